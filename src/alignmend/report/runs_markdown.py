"""The report of runs in Markdown, for model cards: rates, paired tests and provenance; no prompts and no answers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import yaml

from alignmend.evaluation.metrics import ALL_SUITES
from alignmend.evaluation.statistics import holm
from alignmend.report import made, pairs, runs_view
from alignmend.report.labels import letter, metric_label
from alignmend.report.leaks import leaks
from alignmend.report.numbers import Rate, as_markdown, clean, interval, p_value, points, with_interval
from alignmend.report.quantities import QUANTITIES, Pooled, pooled_quantities
from alignmend.report.runs import Measured, Runs
from alignmend.report.search_markdown import search_parts
from alignmend.report.search_view import proof_notices


def render_runs(runs: Runs, *, front_matter: bool = True) -> str:
    """The report; ends in a newline. Text from files cannot break a table.

    `front_matter` puts the `model-index` block of a model card on top: every headline rate of every suite.
    """
    leaked = leaks(runs)
    tuned = {leak.suite for leak in leaked}
    pooled = pooled_quantities(runs, left_out=tuned)
    worse, beyond = proof_notices(runs)
    parts = [
        *([model_index(runs, tuned)] if front_matter else []),
        f"**{as_markdown(runs_view.headline(runs, pooled))}.**",
        *(f"> **Not a fair test:** {as_markdown(str(leak))}; it counts in no summary." for leak in leaked),
        *(f"> **{as_markdown(text)}**" for text in worse),
        *(f"> {as_markdown(text)}" for text in beyond),
        *(f"> {as_markdown(notice)}" for notice in runs_view.notices(runs, pooled)),
        _summary(runs, pooled),
        _rates(runs),
        *_paired(runs),
        *search_parts(runs),
        _provenance(runs),
        "\n".join(f"- {as_markdown(limit)}" for limit in runs_view.limits(runs)),
    ]
    return "\n\n".join(parts) + "\n"


def model_index(runs: Runs, left_out: Collection[str] = ()) -> str:
    """The `model-index` metadata that hubs read, as YAML front matter; rates in [0, 1], intervals in their names.

    It has no place for a warning, so suites in `left_out` (they were tuned on) are not in it.
    """
    hidden = {ALL_SUITES, *left_out}
    index = [
        {"name": clean(one.label), "results": [_result(one, suite) for suite in one.rates if suite not in hidden]}
        for one in runs.models
    ]
    text = yaml.safe_dump({"model-index": index}, sort_keys=False, allow_unicode=True, width=10**6)
    return f"---\n{text}---"


def _result(measured: Measured, suite: str) -> dict[str, Any]:
    """One suite's headline rates."""
    rates = measured.rates[suite]
    metrics = [
        {
            "type": quantity.metric,
            "value": rate["value"],
            "name": f"{metric_label(quantity.metric)} (95% interval {interval(rate)}, n = {rate['n']})",
        }
        for quantity in QUANTITIES
        if (rate := rates.get(quantity.metric)) is not None
    ]
    name = clean(suite)
    return {"task": {"type": "text-generation"}, "dataset": {"type": name, "name": name}, "metrics": metrics}


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose cells are literal text, the first column left and the others right."""
    lines = [heads, *rows]
    body = [f"| {' | '.join(as_markdown(cell) for cell in cells)} |" for cells in lines]
    return "\n".join([body[0], f"| --- |{' ---: |' * (len(heads) - 1)}", *body[1:]])


def _names(runs: Runs) -> list[str]:
    return [f"{letter(index)}: {one.label}" for index, one in enumerate(runs.models)]


def _summary(runs: Runs, pooled: Sequence[Pooled]) -> str:
    heads = ["", *_names(runs), "prompts of"]
    rows = [
        [
            f"{each.quantity.name} ({each.quantity.label})",
            *(_cell(each.quantity.metric, rate) for rate in each.rates),
            ", ".join(each.suites) or "no suite",
        ]
        for each in pooled
    ]
    return _table(heads, rows)


def _rates(runs: Runs) -> str:
    lines = runs_view.lines(runs, headline=True)
    rows = [
        [f"{line.suite}: {line.label} {line.arrow}", *(_cell(line.metric, rate) for rate in line.rates)]
        for line in lines
    ]
    return _table(["Suite", *_names(runs)], rows)


def _cell(metric: str, rate: Rate | None) -> str:
    if rate is None:
        return "not measured"
    value, low_to_high = with_interval(metric, rate)
    return f"{value} [{low_to_high}], n = {rate['n']}"


def _paired(runs: Runs) -> list[str]:
    found = pairs.comparisons(runs)
    if not found:
        return []
    heads = ["Paired", "models", "n", "mended", "of these to noise", "broken", "difference", "p (McNemar)", "p (Holm)"]
    adjusted = holm([each.difference.p_value for each in found])
    rows = [[*_paired_row(each), p_value(value)] for each, value in zip(found, adjusted, strict=True)]
    return [_table(heads, rows)]


def _paired_row(each: pairs.Comparison) -> list[str]:
    change = each.difference
    models = f"{letter(each.before)} → {letter(each.after)}"
    counts = [str(count) for count in (change.n, change.fixed, each.to_noise, change.broken)]
    return [
        f"{each.suite}: {each.question}",
        models,
        *counts,
        f"{points(change.difference)} [{each.interval}]",
        p_value(change.p_value),
    ]


def _provenance(runs: Runs) -> str:
    judge = runs.judge
    judged = (
        f"Judge: {as_markdown(judge['name'])}, version {as_markdown(judge['version'])}."
        if judge
        else "Judge not recorded."
    )
    asked = [
        f"{letter(index)}: {how.templates} template, {how.sampling}, weights {how.weights}."
        for index, one in enumerate(runs.models)
        if (how := made.made(one)) is not None
    ]
    intervals = "Brackets hold 95% intervals, of shares in percent (Wilson)."
    suites = [
        [name, str(block.get("n", "")), str(block.get("licence") or ""), block.get("sha256", "")]
        for name, block in runs.suites.items()
    ]
    table = [_table(["Suite", "n", "licence", "content hash (SHA-256)"], suites)] if suites else []
    return "\n\n".join([" ".join([intervals, judged, *map(as_markdown, asked)]), *table])
