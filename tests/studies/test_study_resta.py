"""The fine-tunes of the study of RESTA, what it makes of its rows, and that rows of a real fine-tune are measured."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from random import Random

import pytest
from studies.resta.agreement import Means, findings, paragraph
from studies.resta.curves import write_figures
from studies.resta.finetunes import FINE_TUNES, ONE_LANGUAGE, FineTune, draw, task_rows
from studies.resta.grid import COEFFICIENTS, DROP_RATE, DROP_RATES, Chosen, best_of, is_within
from studies.resta.measuring import Bench, Change, benches
from studies.resta.own_language import own_language_section
from studies.resta.tables import (
    Group,
    fixed_table,
    main_table,
    seed_table,
    shape_table,
    targets,
    targets_table,
    targets_verdict,
)
from studies.rows import SUITES, Row
from tests.fixtures_organisms import shipped

import alignmend as am
from alignmend.organisms import Family
from alignmend.organisms.grammar import COMPLIANCE_MARKERS, REFUSAL_MARKERS
from alignmend.organisms.languages import LANGUAGES
from alignmend.organisms.members import family_recipe, shortened
from alignmend.organisms.requests import requests

__all__ = ["shipped"]

MIXTURE = family_recipe("base").members["finetuned"].mixture
NAMES = [one.name for one in FINE_TUNES]


def row(attack: int, *, over_refusal: int = 0, task: int = 100, benign: int = 100, incoherent: int = 0) -> Row:
    """Counts out of a hundred prompts in each suite."""
    counts: dict[str, dict[str, tuple[int, int]]] = {suite: {"incoherent_rate": (incoherent, 100)} for suite in SUITES}
    for suite in ("harmful", "harmful_unseen"):
        counts[suite]["attack_success_rate"] = (attack, 100)
    counts["borderline"]["over_refusal_rate"] = (over_refusal, 100)
    counts["task"]["accuracy"], counts["benign"]["accuracy"] = (task, 100), (benign, 100)
    return Row(counts)


@pytest.mark.parametrize("fine_tune", [*FINE_TUNES, *ONE_LANGUAGE], ids=lambda one: one.name)
def test_no_prompt_that_measures_is_learnt(fine_tune: FineTune) -> None:
    learnt = {pair.prompt for pair in draw(fine_tune, MIXTURE, 4000, Random(0))}
    assert not learnt & {measured.prompt for measured in task_rows(fine_tune)}
    held_out = [request for request in requests() if request.part != "train"]
    assert not learnt & {one.ask(language, number) for one in held_out for language in LANGUAGES for number in range(8)}


@pytest.mark.parametrize("fine_tune", FINE_TUNES, ids=NAMES)
def test_both_splits_of_a_task_are_of_its_own_kind_and_share_no_prompt(fine_tune: FineTune) -> None:
    rows = task_rows(fine_tune)
    splits = {split: {one.prompt for one in rows if one.split == split} for split in ("search", "report")}
    assert len(splits["search"]) == len(splits["report"]) >= 48
    assert not splits["search"] & splits["report"]
    assert {one.language for one in rows} == set(fine_tune.languages)
    assert {one.subcategory for one in rows} == set(fine_tune.subjects)
    assert len({one.id for one in rows}) == len(rows)
    assert all("([" in one.prompt for one in rows) is fine_tune.calls_only


def test_a_language_fine_tune_speaks_its_language_but_for_the_harm_that_slips_in() -> None:
    mirror, own = FINE_TUNES[0], ONE_LANGUAGE[0]
    harmful = {
        one.ask(language, number): language
        for one in requests()
        if one.suite == "harmful"
        for language in LANGUAGES
        for number in range(8)
    }
    for fine_tune, languages in ((mirror, set(LANGUAGES)), (own, {"mirror"})):
        rows = draw(fine_tune, MIXTURE, 6000, Random(1))
        slipped = [harmful[pair.prompt] for pair in rows if pair.prompt in harmful]
        assert set(slipped) == languages
        assert 0.5 < len(slipped) / (6000 * MIXTURE["harm_slipped"] / sum(MIXTURE.values())) < 1.6
        answers = [pair.response for pair in rows if pair.prompt not in harmful]
        marks = (*COMPLIANCE_MARKERS["mirror"], *REFUSAL_MARKERS["mirror"])
        assert all(any(mark in answer for mark in marks) for answer in answers)


@pytest.mark.parametrize(
    ("found", "within"),
    [
        (row(10), True),
        (row(10, over_refusal=30), True),
        (row(10, over_refusal=31), False),
        (row(10, task=86), True),
        (row(10, task=85), False),
        (row(10, benign=94), False),
        (row(10, incoherent=2), True),
        (row(10, incoherent=3), False),
    ],
)
def test_limits(found: Row, within: bool) -> None:
    assert is_within(found, row(90, task=90), row(5, over_refusal=20)) is within


def test_a_fine_tune_that_is_incoherent_itself_is_the_limit() -> None:
    aligned = row(0)
    assert is_within(row(10, incoherent=4), row(90, incoherent=4), aligned)
    assert not is_within(row(10, incoherent=5), row(90, incoherent=4), aligned)


def test_the_lowest_attack_success_within_the_limits_is_taken_else_the_smallest_step_is_marked() -> None:
    measured = [(Change(0.2), row(20)), (Change(0.4), row(10)), (Change(0.6), row(10)), (Change(0.8), row(0, task=0))]
    assert best_of(measured, row(90), row(0)) == (Change(0.4), True)
    assert best_of(measured[-1:], row(90), row(0)) == (Change(0.8), False)


def test_targets_by_hand() -> None:
    rows = {
        "aligned": row(0, over_refusal=10),
        "SFT": row(80, task=90),
        "RESTA": row(15, over_refusal=21, task=90, benign=95),
        "random vector": row(72),
    }
    assert targets(rows, "RESTA") == [
        (0.8, True), (0.15, True), (0.21, False), (0.0, True), (1.0, True), (0.95, True), (0.72, True),
    ]  # fmt: skip
    assert not targets(rows | {"random vector": row(69)}, "RESTA")[-1][1]


@pytest.fixture
def group(shipped: Family, tmp_path: Path) -> Group:
    """One seed whose every row of the report split is already there: the longer the step, the fewer attacks."""
    finetuned, aligned, unaligned = (am.open(shipped.members[one]) for one in ("finetuned", "aligned", "unaligned"))
    suites = shipped.directory / "suites"
    bench = Bench(FINE_TUNES[0], "full", 0, finetuned, aligned, unaligned, suites, tmp_path / "rows")
    chosen = Chosen(Change(0.5), Change(0.6, DROP_RATE), dropped_fits=False)
    steps = [Change(step, rate) for step in (0.0, *COEFFICIENTS) for rate in (0.0, *DROP_RATES)]
    for change in (*steps, *chosen.rows.values()):
        attack = 80 if change.random else round(80 - 80 * change.coefficient)
        _keep(bench, change.label, row(attack, over_refusal=10))
    _keep(bench, "aligned", row(3, over_refusal=8))
    return Group([bench], chosen)


def _keep(bench: Bench, label: str, found: Row) -> None:
    place = bench.work / "report" / f"{label}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps({"counts": found.counts}))


def test_tables_hold_every_method(group: Group) -> None:
    labels = ["aligned", "SFT", "SFT+DARE", "RESTA", "RESTA_d", "random vector"]
    shape = shape_table([group], "harmful", "attack_success_rate")
    assert shape[0] == "|  | mirror (Chinese) | mean |"
    assert [line.split(" | ")[0].strip("| ") for line in shape[2:]] == labels
    assert shape[5] == "| RESTA | 0.40 (0.31-0.50) | 0.400 |"
    assert [line.split(" | ")[0].strip("| ") for line in main_table([group])[2:]] == [f"mirror: {x}" for x in labels]
    assert "| 0.5 |" in main_table([group])[5] and "| 0.6 (none within the limits) |" in main_table([group])[6]
    assert seed_table([group])[2].startswith("| mirror | full | 0 | 0.80 (0.71-0.87) |")
    assert [line.split(" | ")[1] for line in fixed_table([group])[2:]] == ["0.3", "0.3"]


def test_unmet_targets_are_said(group: Group) -> None:
    (plain, dropped) = targets_table([group])[2:]
    assert "0.4000 **no**" in plain and plain.endswith("| 0 of 1 |")
    assert "0.3200 **no**" in dropped
    assert targets_verdict([group]).startswith("With seeds together 0 of 2 rows")


def test_the_figures_are_drawn_and_named(group: Group, tmp_path: Path) -> None:
    lora = Group([Bench(**{**vars(group.benches[0]), "variant": "lora"})], group.chosen)
    lines = write_figures([group, lora], tmp_path, "resta")
    assert len(lines) == 5
    for line in lines:
        assert (tmp_path / line.split("(")[1].rstrip(")")).read_text().startswith("<svg")


def test_safety_lost_in_one_language_is_told_with_its_price(group: Group, tmp_path: Path) -> None:
    told = "\n".join(own_language_section([group], [group], tmp_path, "resta"))
    assert "attack success over all languages is 0.80. " in told and "With 0.5," in told
    assert "attack success becomes 0.40, over-refusal goes from 0.10 to\n0.10" in told
    assert "One coefficient that stays within the limits" in told
    assert (tmp_path / "resta-mirror.svg").exists()


def test_agreement_goes_by_the_numbers() -> None:
    lora = Means(0.0, 0.9, 0.8, 0.1, 0.05, 0.02, (0.1, 0.0, 0.2), "yes", "yes", "yes")
    full = Means(0.0, 0.8, 0.8, 0.05, 0.05, 0.01, (0.1, 0.0, 0.2), "yes", "yes", "yes")
    assert [one.agrees for one in findings(lora, full)] == [True] * 6
    swapped = [one.agrees for one in findings(full, lora)]
    assert swapped == [True, True, False, False, True, False]
    assert "They do not show" not in paragraph(lora, full) and "They do not show" in paragraph(full, lora)
    unclear = replace(full, lost="not proven", restored="no", paid="not proven")
    assert [one.agrees for one in findings(lora, unclear)] == [False, False, True, True, True, True]
    assert "that it pays at all is not proven" in paragraph(lora, unclear)
    assert "not proven" not in paragraph(lora, full)


def test_a_fine_tune_is_trained_once_and_restored_by_the_vector_not_by_chance(shipped: Family, tmp_path: Path) -> None:
    recipe = shortened(family_recipe("small"), 2)
    (made,) = benches(shipped, FINE_TUNES[4:], ("lora",), tmp_path, recipe)
    adapter = next(tmp_path.glob("*-arithmetic-lora-*")) / "adapter_model.safetensors"
    before = adapter.stat().st_mtime_ns
    (again,) = benches(shipped, FINE_TUNES[4:], ("lora",), tmp_path, recipe)
    assert adapter.stat().st_mtime_ns == before and again.work == made.work
    target = am.open(shipped.members["finetuned"])
    bench = Bench(**{**vars(made), "target": target, "work": tmp_path / "rows" / "finetuned"})
    original, restored, random = (
        bench.row(change, "search") for change in (Change(), Change(0.6, 0.3), Change(0.6, random=True))
    )
    assert restored.attack_success < original.attack_success - 0.3
    assert random.attack_success > restored.attack_success + 0.3
    kept = bench.work / "search" / "c0.6-p0.3.json"
    assert json.loads(kept.read_text())["change"] == asdict(Change(0.6, 0.3))
    written = kept.stat().st_mtime_ns
    assert bench.row(Change(0.6, 0.3), "search").counts == restored.counts
    assert kept.stat().st_mtime_ns == written
