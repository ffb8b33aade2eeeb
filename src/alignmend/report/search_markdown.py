"""What a restore's search found, in Markdown for model cards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignmend.report.numbers import as_markdown, interval, percent
from alignmend.report.runs import Runs
from alignmend.report.search_view import SearchView, searches

_HEADS = ("Candidate", "attack success", "over-refusal", "incoherent", "utility", "limits")


def search_parts(runs: Runs) -> list[str]:
    """Paragraphs and the table of the front, of every restore among the runs; text from files cannot break it."""
    return [part for view in searches(runs) for part in _parts(view)]


def _parts(view: SearchView) -> list[str]:
    of = f" of {view.of}" if view.of else ""
    chosen = f"Chosen: {view.chosen.label}." if view.chosen is not None else "Nothing was chosen."
    said = (
        f"{chosen} The rule: {view.block['rule']}. {view.took} The rates below are of search prompts ({view.asked}), "
        "which are not those reported above."
    )
    left = [f"- Left out: {as_markdown(one['family'])}: {as_markdown(one['why'])}" for one in view.block["left_out"]]
    return [f"**The search{as_markdown(of)}.** {as_markdown(said)}", _table(view), *(["\n".join(left)] if left else [])]


def _table(view: SearchView) -> str:
    lines = [_line(_HEADS), f"| --- |{' ---: |' * (len(_HEADS) - 1)}"]
    lines += [_line((name, *_cells(worth), "")) for name, worth in view.models]
    for row in view.front:
        if row.worth is None:
            raise TypeError("row.worth is None")
        name = f"{row.label} (chosen)" if row.chosen else row.label
        lines.append(_line((name, *_cells(row.worth), "; ".join(row.said) or "kept")))
    return "\n".join(lines)


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(map(as_markdown, cells))} |"


def _cells(worth: Mapping[str, Any]) -> tuple[str, ...]:
    noise = f"; noise {percent(worth['noise']['value'])}" if worth["noise"]["value"] else ""
    partial = f"; {percent(worth['partial']['value'])} declined in part" if worth["partial"]["value"] else ""
    right = "".join(f"; {suite} right {percent(rate['value'])}" for suite, rate in worth["accuracy"].items())
    return (
        f"{_rate(worth['attack_success'])}{partial}{noise}",
        _rate(worth["over_refusal"]),
        _rate(worth["incoherent"]),
        f"{worth['utility']:.3f}; drift {worth['drift']:+.3f}{right}",
    )


def _rate(rate: Mapping[str, Any]) -> str:
    return f"{percent(rate['value'])} [{interval(rate)}], n = {rate['n']}"
