"""What a page of runs shows, as plain values: tables of rates, groups, paired tests, notices, how it was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignmend.evaluation.metrics import ALL_SUITES, LOWER_IS_BETTER
from alignmend.report.labels import letter, metric_label
from alignmend.report.made import made
from alignmend.report.numbers import Rate, is_share, percent
from alignmend.report.quantities import HARM, INCOHERENCE, OVER_REFUSAL, QUANTITIES, Pooled
from alignmend.report.runs import Runs

MOST_GROUPS = 400
_ORGANISMS = (
    "The models are organisms: tiny, trained on harmless stand-ins. They prove mechanism, not levels; the rates of "
    "a model of billions of parameters are another matter."
)
_PHRASES = "The judge knows refusals and answers by their words. It does not read for harm."
_NOISE_TO_SAY = 0.10
_HEADLINE = {quantity.metric: quantity.tone for quantity in QUANTITIES}
_OTHER_DENOMINATORS = (
    "attack_success_rate_at_most",
    "coherent_attack_success_rate",
    "judged_attack_success_rate",
)
_GROUPINGS = (("category", HARM), ("category", OVER_REFUSAL), ("language", HARM), ("language", OVER_REFUSAL))
_FINE_GROUPINGS = (("subcategory", HARM), ("subcategory", OVER_REFUSAL))


@dataclass(frozen=True)
class Line:
    """One metric of one suite: a rate, or `None`, per model; `share` where it is one of prompts."""

    suite: str
    metric: str
    label: str
    share: bool
    tone: str
    arrow: str
    rates: tuple[Rate | None, ...]


@dataclass(frozen=True)
class GroupTable:
    """One metric by category, sub-category or language; `left_out` counts rows that would make the page too long."""

    title: str
    tone: str
    grouping: str
    rows: tuple[tuple[str, str, tuple[Rate | None, ...]], ...]
    left_out: int
    fine: bool


def lines(runs: Runs, *, headline: bool) -> tuple[Line, ...]:
    """The rows of the side-by-side table: the four quantities of every suite, or else every other metric.

    All metrics of a suite that has none of the four (drift, tasks of another harness) are with the four.
    """
    suites = dict.fromkeys(suite for one in runs.models for suite in one.rates if suite != ALL_SUITES)
    return tuple(
        _line(runs, suite, metric) for suite in suites for metric, main in _metrics_of(runs, suite) if main == headline
    )


def _metrics_of(runs: Runs, suite: str) -> list[tuple[str, bool]]:
    """In the order of the four quantities, then as recorded; each with whether it is a main one."""
    found = dict.fromkeys(metric for one in runs.models for metric in one.rates.get(suite, {}))
    order = [HARM.metric, *_OTHER_DENOMINATORS, *_HEADLINE]
    ordered = sorted(found, key=lambda metric: order.index(metric) if metric in order else len(order))
    foreign = not any(metric in _HEADLINE for metric in found)
    return [(metric, foreign or metric in _HEADLINE or _tells_more(runs, suite, metric)) for metric in ordered]


def _tells_more(runs: Runs, suite: str, metric: str) -> bool:
    """Attack success by another denominator, where that makes a difference."""
    if metric not in _OTHER_DENOMINATORS:
        return False
    rates = (one.rates.get(suite, {}) for one in runs.models)
    return any(metric in found and found[metric]["value"] != found[HARM.metric]["value"] for found in rates)


def _line(runs: Runs, suite: str, metric: str) -> Line:
    rates = tuple(one.rates.get(suite, {}).get(metric) for one in runs.models)
    lower = LOWER_IS_BETTER.get(metric)
    arrow = {True: "↓", False: "↑"}.get(lower, "") if lower is not None else ""
    return Line(suite, metric, metric_label(metric), is_share(metric), _HEADLINE.get(metric, "noise"), arrow, rates)


def group_tables(runs: Runs) -> tuple[GroupTable, ...]:
    """Attack success and over-refusal by category, language and sub-category, where recorded."""
    coarse = [_group_table(runs, *each, fine=False) for each in _GROUPINGS]
    fine = [_group_table(runs, *each, fine=True) for each in _FINE_GROUPINGS]
    return tuple(table for table in (*coarse, *fine) if table is not None)


def _group_table(runs: Runs, grouping: str, quantity: Any, *, fine: bool) -> GroupTable | None:
    suites = dict.fromkeys(suite for one in runs.models for suite in one.groups)
    rows = [row for suite in suites for row in _group_rows(runs, suite, grouping, quantity.metric)]
    if len(rows) < 2:
        return None
    title = f"{quantity.label.capitalize()} by {grouping}"
    return GroupTable(title, quantity.tone, grouping, tuple(rows[:MOST_GROUPS]), max(0, len(rows) - MOST_GROUPS), fine)


def _group_rows(runs: Runs, suite: str, grouping: str, metric: str) -> list[tuple[str, str, tuple[Rate | None, ...]]]:
    """Over-refusal of suites with known answers is left to the main table: it is near zero in every group."""
    if metric == OVER_REFUSAL.metric and any("accuracy" in one.rates.get(suite, {}) for one in runs.models):
        return []
    groups = [one.groups.get(suite, {}).get(grouping, {}) for one in runs.models]
    names = sorted({name for found in groups for name, rates in found.items() if metric in rates})
    return [(suite, name, tuple(found.get(name, {}).get(metric) for found in groups)) for name in names]


def headline(runs: Runs, pooled: Sequence[Pooled]) -> str:
    """The finding in one sentence: all four quantities or none; of a restore whatever stands beside it."""
    names = [one.label for one in runs.models]
    known = [each for each in pooled if each.known]
    if (len(names) > 2 and not _begins_with_restore(runs)) or not known:
        return f"Harm, over-refusal, utility and incoherence of {len(names)} models" if len(names) > 1 else names[0]
    said = ", ".join(_said(each) for each in known)
    return f"{said[0].upper()}{said[1:]}"


def _begins_with_restore(runs: Runs) -> bool:
    """Whether the first two models are a fine-tune and what one restore made of it."""
    searched = [document for document in runs.documents if "search" in document]
    return len(searched) == 1 and all(one.document is searched[0] for one in runs.models[:2])


def _said(pooled: Pooled) -> str:
    name, (first, *others) = pooled.quantity.label, pooled.rates
    if not others:
        return f"{name} {_short(first)}"
    after = others[0]
    if first is None or after is None:
        return f"{name} {_short(first)} and {_short(after)}"
    if _short(first) == _short(after):
        return f"{name} stays at {_short(after)}"
    verb = "fell" if after["high"] < first["low"] else "rose" if after["low"] > first["high"] else "went"
    return f"{name} {verb} from {_short(first)} to {_short(after)}"


def _short(rate: Rate | None) -> str:
    return "not measured" if rate is None else f"{100 * rate['value']:.0f}%"


def notices(runs: Runs, pooled: Sequence[Pooled]) -> tuple[str, ...]:
    """What must be read before the numbers."""
    by_metric = {each.quantity.metric: each for each in pooled}
    return (*_noise(runs, by_metric[INCOHERENCE.metric]), *_coverage(runs), *_settings(runs), *_unequal(runs))


def _noise(runs: Runs, incoherence: Pooled) -> list[str]:
    return [
        f"{letter(index)} ({runs.models[index].label}): {percent(rate['value'])} of the answers are incoherent. Its "
        "attack success is low for that reason too: noise is not safety."
        for index, rate in enumerate(incoherence.rates)
        if rate is not None and rate["value"] >= _NOISE_TO_SAY
    ]


def _coverage(runs: Runs) -> list[str]:
    found = []
    for index, one in enumerate(runs.models):
        for suite, rates in one.rates.items():
            unclear = rates.get("unclear_rate")
            if suite != ALL_SUITES and unclear is not None and unclear["value"] >= _NOISE_TO_SAY:
                found.append(
                    f"{letter(index)} ({one.label}) on {suite}: the judge could not read {percent(unclear['value'])} "
                    "of the answers; they count as no success of either side."
                )
    return found


def _settings(runs: Runs) -> list[str]:
    """Answers made in different ways are no fair comparison."""
    ways = [(how.templates, how.sampling) for one in runs.models if (how := made(one)) is not None]
    if len(set(ways)) < 2:
        return []
    said = "; ".join(sorted({f"{template} template, {sampling}" for template, sampling in ways}))
    return [f"The models were not asked in the same way ({said}): differences between them may come from that."]


def _unequal(runs: Runs) -> list[str]:
    suites = [
        {suite for suite, rates in one.rates.items() if suite != ALL_SUITES and not rates.keys().isdisjoint(_HEADLINE)}
        for one in runs.models
    ]
    missing = sorted(set[str]().union(*suites).difference(set[str].intersection(*suites)))
    if not missing:
        return []
    return [f"Not every model was measured on {', '.join(missing)}: the cards count only what all have."]


def limits(runs: Runs) -> list[str]:
    """What the numbers do not say; always shown."""
    judge = runs.judge.get("name")
    return [
        *([_ORGANISMS] if judge == "organism" else []),
        *([_PHRASES] if judge in ("organism", "refusal-phrases") else []),
        "Intervals (Wilson, 95%) cover the choice of prompts only: not the seed of training, nor the judge.",
        "Incoherent, unclear and empty answers count as no success of either side: rates need not add up to 100%.",
    ]
