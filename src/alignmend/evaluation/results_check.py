"""Does a results document say what the records give? The records are the truth; a document can be stale or changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignmend.errors import MismatchError
from alignmend.evaluation.metrics import (
    ALL_SUITES,
    MACRO,
    MEAN_SCORE,
    Rate,
    macro_metrics,
    metrics_by,
    metrics_of,
    pooled,
)
from alignmend.evaluation.records import JudgementRow
from alignmend.evaluation.shares import SHARES

Said = Mapping[str, Any]
"""Metric -> rate, as `results.json` stores it."""
GROUPS = ("category", "subcategory", "language")
AGAIN = "run  alignmend evaluate  again"
_ROUNDING = 2e-6
_BOOTSTRAP_TOLERANCE = 0.01
"""What another version of numpy may draw instead."""


def check_results(
    where: Path, model: str, judgements: Mapping[str, Sequence[JudgementRow]], document: Mapping[str, Any]
) -> None:
    """Whether everything that `document` says of answers of `model` is what the records give.

    `judgements`: judge -> its rows, the judge that made the rates first. `MismatchError` names the first number that
    differs. What was measured beside answers (drift, tasks of other harnesses) has no records and is not checked. A
    metric or a further judge that the document lacks is no error: it may be older than they.
    """
    first = next(iter(judgements))
    for name, rows in judgements.items():
        block = document.get("judge", {}) if name == first else document.get("judges", {}).get(name)
        if block is None:
            continue
        _check_version(where, name, rows, block)
        models = document["models"] if name == first else block.get("models", {})
        whose = f"{model!r}" if name == first else f"{model!r} by {name!r}"
        _check_model(where, whose, rows, models.get(model, {}))
    _check_sizes(where, judgements[first], document.get("suites", {}))
    _check_groups(where, model, judgements[first], document.get("groups", {}).get(model, {}))


def rates_of(rows: Sequence[JudgementRow]) -> dict[str, Rate]:
    """Every metric of one suite's rows, means over categories included."""
    return metrics_of(rows) | macro_metrics(rows)


def by_suite(rows: Iterable[JudgementRow]) -> dict[str, list[JudgementRow]]:
    """The rows of each suite, in the order of its first row."""
    found: dict[str, list[JudgementRow]] = {}
    for row in rows:
        found.setdefault(row.suite, []).append(row)
    return found


def _check_version(where: Path, name: str, rows: Sequence[JudgementRow], block: Mapping[str, Any]) -> None:
    said, given = block.get("version"), rows[0].judge_version
    if said != given:
        raise MismatchError(
            f"{where}: results.json has judge {name!r} in version {said!r}, judgements.jsonl in {given!r};",
            advice=AGAIN,
        )


def _check_model(where: Path, whose: str, rows: Sequence[JudgementRow], said: Mapping[str, Said]) -> None:
    given = {name: rates_of(found) for name, found in by_suite(rows).items()}
    for suite, rates in said.items():
        if suite not in given and suite != ALL_SUITES and not rates.keys().isdisjoint(SHARES):
            raise MismatchError(
                f"{where}: results.json has suite {suite!r} for {whose}, the records have not;", advice=AGAIN
            )
    for suite, found in given.items():
        _check_rates(where, f"{whose} on {suite!r}", found, said.get(suite, {}))
    if ALL_SUITES in said:
        _check_rates(where, f"{whose} on all suites", pooled(given), said[ALL_SUITES])


def _check_sizes(where: Path, rows: Sequence[JudgementRow], said: Mapping[str, Any]) -> None:
    given = by_suite(rows)
    for suite, block in said.items():
        if block["n"] != len(given.get(suite, ())):
            raise MismatchError(
                f"{where}: results.json says suite {suite!r} has {block['n']} prompts, the records have "
                f"{len(given.get(suite, ()))};",
                advice=AGAIN,
            )


def _check_groups(where: Path, model: str, rows: Sequence[JudgementRow], said: Mapping[str, Any]) -> None:
    for suite, found in by_suite(rows).items():
        for column, groups in said.get(suite, {}).items():
            if column in GROUPS:
                given = metrics_by(found, {row.prompt_id: getattr(row, column) or "none" for row in found})
                for group in sorted(given.keys() | groups.keys()):
                    about = f"{model!r} on {suite!r} in {column} {group!r}"
                    _check_rates(where, about, given.get(group, {}), groups.get(group, {}))


def _check_rates(where: Path, about: str, given: Mapping[str, Rate], said: Said) -> None:
    for metric, rate in said.items():
        known = given.get(metric)
        if known is None or not _same(metric, known.as_dict(), rate):
            counted = "nothing" if known is None else _told(known.as_dict())
            raise MismatchError(
                f"{where}: results.json says {metric} {_told(rate)} for {about}, the records give {counted};",
                advice=AGAIN,
            )
    if given and not said:
        raise MismatchError(f"{where}: results.json says nothing for {about}, the records do;", advice=AGAIN)


def _same(metric: str, given: Said, said: Said) -> bool:
    drawn = metric in MACRO or metric == MEAN_SCORE
    tolerance = _BOOTSTRAP_TOLERANCE if drawn else _ROUNDING
    near = all(abs(given[end] - said[end]) <= tolerance for end in ("low", "high"))
    return near and given["n"] == said["n"] and abs(given["value"] - said["value"]) <= _ROUNDING


def _told(rate: Said) -> str:
    return f"{rate['value']} ({rate['low']} to {rate['high']}, n = {rate['n']})"
