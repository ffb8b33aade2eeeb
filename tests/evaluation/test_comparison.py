"""Two runs on the same prompts: paired by words, tested exactly, corrected once for the whole table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evaluation.test_metrics import row
from tests.report.run_folders import AFTER, BEFORE, Said, write_run

from alignmend.errors import AlignmendError, MismatchError, RecipeError
from alignmend.evaluation.changes import COMPARED, changes
from alignmend.evaluation.comparison import MAIN, Comparison, compare_runs, pair_record
from alignmend.evaluation.metrics import LOWER_IS_BETTER, macro_metrics, metrics_of, wilson
from alignmend.evaluation.outcomes import state_of
from alignmend.evaluation.pairing import Pair, pair_rows
from alignmend.evaluation.records import JudgementRow
from alignmend.evaluation.run_folder import read_run
from alignmend.evaluation.statistics import difference_interval, holm, mcnemar

judged = st.builds(
    row,
    st.sampled_from(("refused", "complied", "incoherent", "unclear")),
    st.just("refuse"),
    partial=st.booleans(),
    harmful=st.sampled_from((None, True, False)),
    category=st.sampled_from(("a", "b")),
    score=st.sampled_from((None, 0.0, 0.5, 1.0)),
)
two_models = st.lists(st.tuples(judged, judged), min_size=1, max_size=12)


def pairs_of(rows: list[tuple[JudgementRow, JudgementRow]]) -> tuple[Pair, ...]:
    numbered = [
        [one.model_copy(update={"prompt_id": str(number), "category": both[0].category}) for one in both]
        for number, both in enumerate(rows)
    ]
    return pair_rows([one for one, _ in numbered], [other for _, other in numbered])[0]


@settings(max_examples=40)
@given(two_models)
def test_a_change_says_what_the_metrics_of_both_sides_say(rows: list[tuple[JudgementRow, JudgementRow]]) -> None:
    """Wherever all prompts count for both models."""
    pairs = pairs_of(rows)
    before, after = ([getattr(pair, side) for pair in pairs] for side in ("before", "after"))
    sides = [metrics_of(side) | macro_metrics(side) for side in (before, after)]
    for change in changes(pairs, COMPARED):
        if change.n == len(pairs) and change.metric != "judged_coverage":
            if change.metric == "withheld_rate" and not any(change.metric in side for side in sides):
                assert change.before.value == change.after.value == 0
                continue
            assert (change.before, change.after) == (sides[0][change.metric], sides[1][change.metric])
        assert change.low <= change.difference <= change.high
        assert change.difference == pytest.approx(change.after.value - change.before.value)


@settings(max_examples=40)
@given(two_models)
def test_the_other_way_round_everything_is_mirrored(rows: list[tuple[JudgementRow, JudgementRow]]) -> None:
    there = changes(pairs_of(rows), COMPARED)
    back = changes(tuple(Pair(pair.after, pair.before) for pair in pairs_of(rows)), COMPARED)
    for one, other in zip(there, back, strict=True):
        assert (one.metric, one.before, one.after) == (other.metric, other.after, other.before)
        assert one.difference == pytest.approx(-other.difference)
        assert one.p_holm == other.p_holm
        if one.test is not None and other.test is not None:
            assert (one.test.fixed, one.test.broken) == (other.test.broken, other.test.fixed)


def test_the_direction_of_a_metric_says_what_is_fixed() -> None:
    pairs = pairs_of([(row("complied", "refuse"), row("refused", "refuse"))] * 3)
    for change in changes(pairs, ("attack_success_rate", "refusal_rate")):
        assert change.test is not None
        assert (change.test.fixed, change.test.broken) == (3, 0)
        assert change.difference == (-1 if LOWER_IS_BETTER[change.metric] else 1)


def test_what_became_noise_is_told() -> None:
    noise, safe = row("incoherent", "refuse"), row("refused", "refuse")
    pairs = pairs_of([(row("complied", "refuse"), noise), (row("complied", "refuse"), safe), (noise, noise)])
    (change,) = changes(pairs, ("attack_success_rate",))
    assert change.test is not None
    assert (change.test.fixed, change.to_noise) == (2, 1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("runs")
    return write_run(place / "a", "finetuned", BEFORE), write_run(place / "b", "restored", AFTER)


def compared(before: Path, after: Path, **options: Any) -> Comparison:
    return compare_runs(read_run(before), read_run(after), **options)


def test_two_runs_by_hand(folders: tuple[Path, Path]) -> None:
    found = compared(*folders)
    assert [(change.suite, change.metric) for change in found.changes] == [
        ("catqa", "attack_success_rate"),
        ("catqa", "incoherent_rate"),
        ("xstest", "over_refusal_rate"),
        ("xstest", "incoherent_rate"),
        ("gsm8k", "over_refusal_rate"),
        ("gsm8k", "accuracy"),
        ("gsm8k", "incoherent_rate"),
    ]
    attack, noise, over = found.changes[:3]
    assert (attack.before, attack.after) == (wilson(40, 40), wilson(1, 40))
    assert attack.test == mcnemar([True] * 40, [True] + [False] * 39)
    assert (attack.low, attack.high) == difference_interval(40, 39, 0)
    assert (attack.to_noise, noise.difference) == (1, 1 / 40)
    assert over.test is not None
    assert (over.test.fixed, over.test.broken) == (0, 3)
    raw = [change.test.p_value for change in found.changes if change.test is not None]
    assert [change.p_holm for change in found.changes] == holm(raw)
    assert (len(found.pairs), found.unpaired, found.notes) == (100, (), ())
    turns = [pair.turn for pair in found.flips]
    assert (turns.count("mended"), turns.count("broken"), turns.count("changed")) == (38, 3, 2)


def test_what_is_compared_can_be_narrowed_and_corrected_for_that(folders: tuple[Path, Path]) -> None:
    (change,) = compared(*folders, suites=["catqa"], metrics=["attack_success_rate"]).changes
    assert change.test is not None
    assert change.p_holm == change.test.p_value
    every = compared(*folders, metrics=["all"]).changes
    assert {change.metric for change in every} >= {*MAIN, "macro_attack_success_rate", "refusal_rate"}
    macro = next(change for change in every if change.metric == "macro_attack_success_rate")
    assert (macro.test, macro.p_holm, macro.to_noise) == (None, None, None)
    assert macro.difference == pytest.approx((0 + 0 + 1 / 14) / 3 - 1)


def test_the_seed_is_kept_and_makes_the_intervals(folders: tuple[Path, Path]) -> None:
    first, again, other = (compared(*folders, seed=seed) for seed in (1, 1, 2))
    assert first.as_dict() == again.as_dict()
    assert first.as_dict()["bootstrap"] == {"draws": 10_000, "seed": 1}
    assert [change.difference for change in first.changes] == [change.difference for change in other.changes]


def test_answers_that_are_the_same_to_the_letter_are_counted(tmp_path: Path) -> None:
    """As when one model is asked in two programs; space around an answer does not count."""
    said = [Said("catqa", f"h{number}", "refuse", "refused", response=f"answer {number}") for number in range(4)]
    other = [replace(said[0], response=" answer 0\n"), said[1], replace(said[2], response="answer  2"), said[3]]
    found = compared(write_run(tmp_path / "a", "here", said), write_run(tmp_path / "b", "served", other[:3]))
    assert found.same_answers == (2, 3)
    assert found.as_dict()["same_answers"] == {"same": 2, "n": 3}


def test_the_document_holds_no_text(folders: tuple[Path, Path]) -> None:
    found = compared(*folders, metrics=["all"])
    text = json.dumps([found.as_dict(), [pair_record(pair) for pair in found.pairs]])
    assert not any(word in text for word in ("SECRET", "decline", "some request"))
    record = pair_record(found.pairs[0])
    assert (record["before"]["verdict"], record["after"]["partial"]) == ("complied", True)
    assert found.as_dict()["flips"][0] == {
        "suite": "catqa",
        "prompt_id": "h0",
        "turn": "changed",
        "before": "complied",
        "after": "partly refused",
    }


def test_prompts_that_do_not_pair_are_told_and_left_out(folders: tuple[Path, Path], tmp_path: Path) -> None:
    said = [replace(one, prompt="other words") if one.prompt_id == "h1" else one for one in AFTER[:50]]
    after = write_run(tmp_path / "c", "restored", [*said, Said("new", "1", "refuse", "refused")])
    found = compared(folders[0], after)
    assert len(found.pairs) == 49
    assert [(one.suite, one.only_before, one.only_after, one.other_words) for one in found.unpaired] == [
        ("catqa", 0, 0, 1),
        ("xstest", 20, 0, 0),
        ("gsm8k", 30, 0, 0),
        ("new", 0, 1, 0),
    ]
    assert str(found.unpaired[0]) == "catqa: 0 prompts only before, 0 only after, 1 in other words"
    assert found.changes[0].n == 39


def test_other_settings_are_noted(folders: tuple[Path, Path], tmp_path: Path) -> None:
    after = write_run(tmp_path / "c", "restored", AFTER, settings={"template": "raw"})
    (note,) = compared(folders[0], after).notes
    assert "asked in different ways (chat template, greedy" in note
    assert "; raw template, greedy" in note


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"suites": ["catqq"]}, RecipeError, "no suite 'catqq': did you mean 'catqa'"),
        ({"metrics": ["acuracy"]}, RecipeError, "no metric 'acuracy' .*: did you mean 'accuracy'"),
        ({"judge": "other"}, RecipeError, "no judge 'other'"),
    ],
)
def test_unknown_names_are_refused(
    folders: tuple[Path, Path], options: dict[str, Any], error: type[AlignmendError], message: str
) -> None:
    with pytest.raises(error, match=message):
        compared(*folders, **options)


def test_runs_that_share_nothing_or_have_other_judges_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    other = write_run(tmp_path / "c", "m", [Said("new", "1", "refuse", "refused")])
    with pytest.raises(MismatchError, match="no prompt is in both"):
        compared(folders[0], other)
    again = write_run(tmp_path / "d", "m", AFTER, judge={"name": "invented", "version": "invented-2"})
    path = again / "judgements.jsonl"
    path.write_text(path.read_text().replace("invented-1", "invented-2"))
    with pytest.raises(MismatchError, match=r"invented \(invented-1\) and invented \(invented-2\); judge them alike"):
        compared(folders[0], again)


def test_scores_are_compared_by_their_means() -> None:
    scored = [(row("complied", "refuse", score=1.0), row("refused", "refuse", score=0.25))] * 4
    unscored = [(row("incoherent", "refuse"), row("refused", "refuse", score=0.0))]
    (change,) = changes(pairs_of([*scored, *unscored]), ("mean_harm_score",))
    assert (change.n, change.before.value, change.after.value, change.difference) == (4, 1, 0.25, -0.75)
    assert changes(pairs_of(unscored), ("mean_harm_score",)) == ()


def test_coverage_is_compared_only_where_labels_were_asked_for() -> None:
    plain = pairs_of([(row("complied", "refuse"), row("refused", "refuse"))])
    assert changes(plain, ("judged_coverage", "judged_attack_success_rate")) == ()
    failing = pairs_of([(row("complied", "refuse", harmful=True), row("unclear", "refuse", parsed=False))])
    (change,) = changes(failing, ("judged_coverage", "judged_attack_success_rate"))
    assert (change.metric, change.before.value, change.after.value) == ("judged_coverage", 1, 0)


@pytest.mark.parametrize(
    ("judgement", "state"),
    [
        (row("incoherent", "refuse", empty=True), "empty"),
        (row("incoherent", "refuse", harmful=True), "incoherent"),
        (row("refused", "refuse", partial=True, harmful=True), "partly refused, harmful"),
        (row("complied", "refuse", harmful=False), "complied"),
    ],
)
def test_states_in_words(judgement: JudgementRow, state: str) -> None:
    assert state_of(judgement) == state
