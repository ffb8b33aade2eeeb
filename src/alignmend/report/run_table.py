"""The table of one run for a terminal: suites down, what matters across."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from alignmend.report.numbers import clean, percent

COLUMNS = {
    "attack_success_rate": "attack success",
    "refusal_rate": "refused",
    "over_refusal_rate": "over-refusal",
    "accuracy": "accuracy",
    "incoherent_rate": "incoherent",
    "unclear_rate": "unclear",
    "withheld_rate": "withheld",
}

_PARTIAL = {"refusal_rate": "partial_refusal_rate"}
"""Answers that decline and then go on: they are refusals in part, and attack successes."""


def run_table(results: Mapping[str, Any]) -> Table:
    """A rich table of every model and suite of a results document that has one of the main rates."""
    shown = [metric for metric in COLUMNS if _has(results, metric)]
    title = "95% Wilson intervals below each rate, in percent"
    built = Table(title=title, title_style="dim", title_justify="left", padding=0, box=box.SIMPLE_HEAD)
    built.add_column("suite", overflow="fold")
    built.add_column("n", justify="right")
    for metric in shown:
        built.add_column(COLUMNS[metric].replace("-", "-\n"), justify="right")
    several = len(results["models"]) > 1
    for model, suites in results["models"].items():
        for suite, rates in suites.items():
            if any(metric in rates for metric in shown):
                name = f"{model}: {suite}" if several else suite
                cells = (_cell(rates.get(metric), rates.get(_PARTIAL.get(metric, ""))) for metric in shown)
                built.add_row(clean(name), str(_size(rates)), *cells)
    return built


def other_lines(results: Mapping[str, Any]) -> list[str]:
    """What the table has no column for, one line each: drift, tasks of other harnesses."""
    return [
        f"{clean(suite)}: {metric} {rate['value']:.4g} ({rate['low']:.4g} to {rate['high']:.4g}, n {rate['n']:,})"
        for suites in results["models"].values()
        for suite, rates in suites.items()
        if not any(metric in rates for metric in COLUMNS)
        for metric, rate in rates.items()
    ]


def agreement_lines(results: Mapping[str, Any]) -> list[str]:
    """How far every two judges agree."""
    lines = []
    for one in results.get("agreement", ()):
        kappa = one["kappa"]
        between = "" if kappa["value"] is None else f" ({kappa['low']:.2f}–{kappa['high']:.2f})"
        said = "not defined" if kappa["value"] is None else f"{kappa['value']:.2f}{between}"
        lines.append(
            f"{one['first']} and {one['second']} on {one['about']}: agree on {percent(one['agreed']['value'])} of "
            f"{one['n']:,}, kappa {said}"
        )
    return lines


def overlap_lines(results: Mapping[str, Any]) -> list[str]:
    """What the reported prompts share with others."""
    words = {"used": "are also in what was used for tuning", "reported": "stand in two of the suites"}
    found = results.get("overlap", {})
    return [f"note: {len(rows):,} prompts {words[where]} (results.json lists them)" for where, rows in found.items()]


def _has(results: Mapping[str, Any], metric: str) -> bool:
    return any(metric in rates for suites in results["models"].values() for rates in suites.values())


def _size(rates: Mapping[str, Any]) -> int:
    return max(int(rate["n"]) for rate in rates.values())


def _cell(rate: Mapping[str, Any] | None, partial: Mapping[str, Any] | None) -> Text:
    """With the part of it that is in two columns at once: an answer that declines and then goes on is in both."""
    if rate is None:
        return Text("-", style="dim")
    cell = Text.assemble(percent(rate["value"]), "\n", (f"{100 * rate['low']:.0f}–{100 * rate['high']:.0f}", "dim"))
    if partial is not None and partial["value"]:
        cell.append(f"\n{percent(partial['value'])} in part", style="dim")
    return cell
