"""Markdown tables of measured rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from studies.real.measuring import Measured
from studies.rows import cell

COLUMNS = {
    "AdvBench": ("harmful", "attack_success_rate"),
    "CatQA": ("harmful-categories", "attack_success_rate"),
    "CatQA, Chinese": ("harmful-zh", "attack_success_rate"),
    "CatQA, Vietnamese": ("harmful-vi", "attack_success_rate"),
    "training harms": ("seen", "attack_success_rate"),
    "XSTest, safe": ("borderline", "over_refusal_rate"),
    "plain": ("benign", "over_refusal_rate"),
}
"""What is shown of each suite."""


def table(rows: Mapping[str, Measured]) -> Iterator[str]:
    """A line for each row, by label: attack success, over-refusal, accuracy of the task, nats, share of noise."""
    asked = list(next(iter(rows.values())).row.counts)
    task = next((name for name in asked if name.startswith("task-")), None)
    columns = {head: told for head, told in COLUMNS.items() if told[0] in asked}
    heads = ["row", *columns, *([] if task is None else ["task"]), "nats", "incoherent"]
    yield f"| {' | '.join(heads)} |"
    yield f"| {' | '.join('---' for _ in heads)} |"
    for label, one in rows.items():
        cells = [cell(one.row.rate(suite, metric)) for suite, metric in columns.values()]
        known = [] if task is None else [cell(one.row.rate(task, "accuracy"))]
        noise = one.row.together([suite for suite, _ in columns.values()], "incoherent_rate")
        yield f"| {label} | {' | '.join([*cells, *known])} | {one.nats:.3f} | {noise.value:.3f} |"
