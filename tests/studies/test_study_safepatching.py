"""What the study of SafePatching learns from, chooses and shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from studies.rows import SUITES, Row
from studies.safepatching.aligned import triggers
from studies.safepatching.depth import table as depth_table
from studies.safepatching.grid import Chosen, best_of, is_within, lowering, lowers_both
from studies.safepatching.kinds import AMBIGUOUS, GROUPS, SEEN, UNSEEN, group_pairs, main_pairs
from studies.safepatching.patches import ORIGINAL, Merge, patching, ties
from studies.safepatching.sequence import verdict

from alignmend.organisms.languages import LANGUAGES, say
from alignmend.organisms.requests import requests


def row(attack: int, over_refusal: int, *, right: int = 100, incoherent: int = 0, covered: int = 0) -> Row:
    """Counts out of a hundred prompts in each suite; covered harms are refused unless told."""
    counts: dict[str, dict[str, tuple[int, int]]] = {suite: {"incoherent_rate": (incoherent, 100)} for suite in SUITES}
    counts["harmful"]["attack_success_rate"] = (covered, 100)
    counts["harmful_unseen"]["attack_success_rate"] = (attack, 100)
    counts["borderline"]["over_refusal_rate"] = (over_refusal, 100)
    for suite in ("benign", "task"):
        counts[suite]["accuracy"] = (right, 100)
    return Row(counts)


ORIGINAL_ROW = row(40, 30)


def test_the_harmful_set_holds_training_requests_of_seen_kinds_alone(tmp_path: Path) -> None:
    held_out = {one.ask("english", 0) for one in requests() if one.part != "train"}
    unseen = {one.verb.word for one in requests() if one.suite == "harmful_unseen" and one.verb.category in UNSEEN}
    pairs = [json.loads(line) for line in main_pairs(tmp_path / "main.jsonl").read_text().splitlines()]
    assert len(pairs) == 240
    assert not {pair["prompt"] for pair in pairs} & held_out
    assert not [pair for pair in pairs if unseen & set(pair["prompt"].replace(".", "").replace("?", "").split())]
    assert main_pairs(tmp_path / "main.jsonl").read_text() == "".join(f"{json.dumps(pair)}\n" for pair in pairs)


def test_some_of_the_harmful_set_are_of_verbs_that_plain_requests_have_too(tmp_path: Path) -> None:
    plain = {one.verb.word for one in requests() if one.suite == "borderline"}
    pairs = [json.loads(line) for line in main_pairs(tmp_path / "main.jsonl").read_text().splitlines()]
    spoken = [{word for text in plain for word in [say(text, language)]} for language in LANGUAGES]
    words = [set(pair["prompt"].replace(".", "").replace("?", "").split()) for pair in pairs]
    assert sum(any(one & known for known in spoken) for one in words) == AMBIGUOUS < len(pairs) // 2
    assert set(triggers()) < plain


def test_groups_and_seen_kinds_divide_all_categories(tmp_path: Path) -> None:
    kinds = {one.verb.category for one in requests() if one.suite == "harmful_unseen"}
    assert kinds == set(SEEN) | set(UNSEEN) == {kind for group in GROUPS.values() for kind in group}
    assert not set(SEEN) & set(UNSEEN)
    texts = [group_pairs(tmp_path / f"{group}.jsonl", group).read_text() for group in GROUPS]
    assert len(set(texts)) == len(GROUPS)


def test_merges_are_told_apart_by_all_their_numbers() -> None:
    merges = [ORIGINAL, Merge("safety"), patching(density=0.3), patching(density=0.3).but(seed=1), ties(density=0.3)]
    assert len({one.label for one in merges}) == len(merges)
    assert patching(a=1, b=2).label == patching(b=2, a=1).label


def test_the_best_balance_lowers_both() -> None:
    both, one_alone = patching(a=1), patching(a=2)
    assert best_of([(one_alone, row(2, 35)), (both, row(35, 28))], ORIGINAL_ROW) == both
    assert best_of([(one_alone, row(20, 20)), (both, row(35, 28))], ORIGINAL_ROW) == one_alone


def test_the_search_leaves_a_margin_before_the_limits() -> None:
    kept, near = patching(a=1), patching(a=2)
    for short in (row(20, 20, covered=4), row(20, 20, right=97)):
        assert is_within(short, ORIGINAL_ROW)
        assert best_of([(near, short), (kept, row(35, 28))], ORIGINAL_ROW) == kept


@pytest.mark.parametrize(
    ("found", "within"),
    [
        (row(0, 0), True),
        (row(0, 0, right=94), False),
        (row(0, 0, incoherent=3), False),
        (row(0, 0, covered=6), False),
    ],
)
def test_limits(found: Row, within: bool) -> None:
    assert is_within(found, ORIGINAL_ROW) is within


def test_one_side_alone_is_not_both() -> None:
    assert lowers_both(row(39, 29), ORIGINAL_ROW)
    assert not lowers_both(row(0, 30), ORIGINAL_ROW)
    assert not lowers_both(row(40, 0), ORIGINAL_ROW)


def test_both_are_lower_only_where_neither_could_be_chance() -> None:
    assert lowering(row(10, 5), ORIGINAL_ROW) == "yes"
    assert lowering(row(10, 29), ORIGINAL_ROW) == "not proven"
    assert lowering(row(10, 30), ORIGINAL_ROW) == "no"
    assert lowering(row(10, 80), ORIGINAL_ROW) == "the opposite"


def test_ablations_differ_from_the_strict_reading_in_their_switch_alone() -> None:
    strict, conflict = patching(mode="strict", density=0.3, safety_rate=0.1), patching(mode="conflict", density=0.3)
    rows = Chosen(strict, conflict, patching(sets="none"), ties(density=0.2)).rows
    assert dict(rows["intersection"].parameters) == {**dict(strict.parameters), "sets": "intersection"}
    assert dict(rows["no random retention"].parameters) == {**dict(strict.parameters), "density": 1.0}
    assert dict(rows["control: random sets, strict"].parameters)["importance"] == "random"


def test_depth_shows_mean_shares() -> None:
    lines = depth_table([{"safety": [0.25, 0.75]}, {"safety": [0.75, 0.25]}])
    assert lines[-1] == "| safety | 50 % | 50 % |"


@pytest.mark.parametrize(
    ("by_scores", "by_chance", "told"),
    [
        (row(20, 20), row(45, 20), "the target is met by strict**"),
        (row(20, 20), row(30, 29), "no reading meets the whole target**: what does, does so with random sets too"),
        (row(20, 31), row(45, 20), "no reading meets the whole target**."),
        (row(20, 20, right=90), row(45, 20), "no reading meets the whole target**."),
    ],
)
def test_rounds_count_only_where_random_sets_do_not_do_the_same(by_scores: Row, by_chance: Row, told: str) -> None:
    runs = {"strict": [[ORIGINAL_ROW, by_scores]], "random sets, strict": [[ORIGINAL_ROW, by_chance]]}
    assert told in verdict(runs)[-1]
