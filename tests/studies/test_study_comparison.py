"""The comparison counts what restores measured, and says where nothing was within the limits."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest
from studies.comparison.tables import HARMFUL, Outcome, page, plane, pooled, rows

from alignmend.evaluation.metrics import wilson

SUITES = {"attack_success_rate": HARMFUL, "over_refusal_rate": ("borderline",), "accuracy": ("benign", "task")}
N = 40


def model(attack: int, refused: int, right: int) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, Any]] = {}
    for (metric, suites), count in zip(SUITES.items(), (attack, refused, right), strict=True):
        for suite in suites:
            rates = {metric: wilson(count, N), "incoherent_rate": wilson(0, N)}
            found[suite] = {name: rate.as_dict() for name, rate in rates.items()}
    return found


def outcome(seed: int, family: str, restored: tuple[int, int, int] | None, variant: str = "full") -> Outcome:
    candidates = [{"number": 3, "label": f"{family} (coefficient 0.5)", "stage": "whole", "seconds": 1.5}]
    search = {"candidates": candidates, "chosen": 3 if restored else None}
    models = {"finetuned": model(40, 0, 38), "restored": model(*restored)} if restored else None
    return Outcome(seed, variant, family, {"search": search} | ({"models": models} if models else {}))


OUTCOMES = [
    outcome(0, "resta", (10, 4, 37)),
    outcome(1, "resta", (20, 2, 39)),
    outcome(0, "random vector", None),
    outcome(1, "random vector", None),
    outcome(0, "resta", (12, 1, 38), "lora"),
]


def test_rates_are_counted_over_seeds_and_suites() -> None:
    found = pooled("resta", OUTCOMES[:2], "restored")
    assert found.attack == wilson(2 * 10 + 2 * 20, 4 * N)
    assert found.refusal == wilson(6, 2 * N)
    assert found.accuracy == wilson(2 * 37 + 2 * 39, 4 * N)


def test_what_restored_nothing_has_no_row() -> None:
    assert [(row.name, kept, total) for row, kept, total in rows(OUTCOMES, "full")] == [
        ("fine-tuned", 2, 2),
        ("resta", 2, 2),
    ]


def test_the_page_says_what_was_chosen_and_what_was_not() -> None:
    text = page(OUTCOMES, size="base", trials=12, limits="the rule")
    assert "| resta | 2 of 2 | 0.38 (0.30-0.45) | 0.07 (0.03-0.15) |" in text
    assert "than the fine-tune: random vector (seed 0), random vector (seed 1)." in text
    assert "| full | random vector | none; none |" in text


@pytest.mark.parametrize("found", [OUTCOMES, OUTCOMES[:1]])
def test_the_plane_is_whole_and_has_a_mark_for_each_row(found: list[Outcome]) -> None:
    tree = ElementTree.fromstring(plane(found))
    marks = [one for one in tree.iter() if one.tag.endswith(("circle", "rect"))]
    count = sum(len(rows(found, variant)) for variant in ("full", "lora"))
    names = len({row.name for variant in ("full", "lora") for row, _, _ in rows(found, variant)})
    assert len(marks) == count + names + 1  # the legend, and the ground
