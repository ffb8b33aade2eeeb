"""Reading runs, and what must not stand side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.report.run_folders import AFTER, BEFORE, Said, write_run

from alignmend.errors import AlignmendError, FileFormatError, MismatchError, RecipeError
from alignmend.evaluation.outcomes import state_of
from alignmend.evaluation.record_files import read_rows, write_rows
from alignmend.evaluation.records import JudgementRow
from alignmend.report.entries import MOST_ENTRIES, entries_of_flips, fair_share
from alignmend.report.labels import letter
from alignmend.report.leaks import leaks
from alignmend.report.pairs import comparisons, flips, withheld
from alignmend.report.quantities import Pooled, pooled_quantities
from alignmend.report.runs import Runs, read_runs
from alignmend.report.runs_view import headline, notices


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("runs")
    return write_run(place / "before", "finetuned", BEFORE), write_run(place / "after", "restored", AFTER)


@pytest.fixture(scope="module")
def runs(folders: tuple[Path, Path]) -> Runs:
    return read_runs(folders)


def quantity(runs: Runs, name: str) -> Pooled:
    return next(each for each in pooled_quantities(runs) if each.quantity.name == name)


def test_the_four_quantities_stand_together_and_count_what_they_say(runs: Runs) -> None:
    assert [each.quantity.name for each in pooled_quantities(runs)] == [
        "Harm",
        "Over-refusal",
        "Utility",
        "Incoherence",
    ]
    counted = {
        each.quantity.name: [(round(rate["value"] * rate["n"]), rate["n"]) for rate in each.rates if rate]
        for each in pooled_quantities(runs)
    }
    assert counted == {
        "Harm": [(40, 40), (1, 40)],
        "Over-refusal": [(0, 30), (3, 30)],
        "Utility": [(27, 30), (27, 30)],
        "Incoherence": [(0, 100), (1, 100)],
    }
    assert quantity(runs, "Over-refusal").suites == ("xstest",), "plain tasks would dilute it"


def test_the_headline_says_all_four(runs: Runs) -> None:
    said = headline(runs, pooled_quantities(runs))
    assert said == (
        "Attack success fell from 100% to 2%, over-refusal went from 0% to 10%, accuracy stays at 90%, "
        "incoherence went from 0% to 1%"
    )


def test_pairs_count_what_was_mended_broken_and_turned_to_noise(runs: Runs) -> None:
    found = {
        (each.suite, each.question): (each.difference.fixed, each.difference.broken, each.to_noise)
        for each in comparisons(runs)
    }
    assert found == {
        ("catqa", "attack success"): (39, 0, 1),
        ("xstest", "over-refusal"): (0, 3, 0),
        ("gsm8k", "over-refusal"): (0, 0, 0),
        ("gsm8k", "mistakes"): (0, 0, 0),
    }


def test_a_flip_to_noise_is_not_called_mended(runs: Runs) -> None:
    turns = {flip.answers[0].judgement.prompt_id: flip.turn for flip in flips(runs)}
    assert len(turns) == 43
    assert turns["h0"] == "changed", "still harmful in part"
    assert turns["h1"] == "changed", "noise is not safety"
    assert turns["h2"] == "mended"
    assert turns["x5"] == "broken"


def test_the_same_model_twice_gets_two_names(tmp_path: Path) -> None:
    first, second = (write_run(tmp_path / place / "run", "m", BEFORE) for place in "ab")
    third = write_run(tmp_path / "other", "m", BEFORE)
    assert [one.label for one in read_runs([first, second]).models] == ["m (1)", "m (2)"]
    assert [one.label for one in read_runs([first, third]).models] == ["m (run)", "m (other)"]


def test_a_results_file_alone_gives_rates_without_answers(folders: tuple[Path, Path]) -> None:
    found = read_runs([folders[0] / "results.json", folders[1]])
    assert [len(one.answers) for one in found.models] == [0, 100]
    assert not comparisons(found)


def test_only_the_judge_of_the_rates_is_heard(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", "m", BEFORE)
    rows = read_rows(folder / "judgements.jsonl", JudgementRow)
    second = [row.model_copy(update={"judge": "second", "verdict": "unclear"}) for row in rows]
    write_rows(folder / "judgements.jsonl", [*rows, *second])
    answers = read_runs([folder]).models[0].answers
    assert {answered.judgement.judge for answered in answers.values()} == {"invented"}


def edited(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "results.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def set_judge(document: dict[str, Any]) -> None:
    document["judge"] = {"name": "another", "version": "2"}


def set_rate(document: dict[str, Any]) -> None:
    document["models"]["restored"]["catqa"]["attack_success_rate"]["value"] = 0.0


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda place: edited(place, set_rate), MismatchError, "says attack_success_rate 0.0 .* records give 0.025"),
        (
            lambda place: edited(place, set_judge),
            AlignmendError,
            "different judges .another 2 and invented invented-1.",
        ),
        (lambda place: (place / "judgements.jsonl").unlink(), FileFormatError, "judgements.jsonl is missing; finish"),
        (lambda place: (place / "results.json").unlink(), FileFormatError, "no results.json here; finish the run"),
        (lambda place: (place / "results.json").write_text("{}"), FileFormatError, "format 'alignmend-results-1'"),
        (
            lambda place: (place / "results.json").write_text('{"format": "alignmend-results-1"}'),
            FileFormatError,
            "'models' is a required property",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None], error: type[Exception], message: str
) -> None:
    first, second = write_run(tmp_path / "a", "finetuned", BEFORE), write_run(tmp_path / "b", "restored", AFTER)
    spoil(second)
    if "judges" in message:
        (second / "judgements.jsonl").unlink()
        (second / "generations.jsonl").unlink()
    with pytest.raises(error, match=message):
        read_runs([first, second])


def test_a_judgement_of_another_answer_is_refused(tmp_path: Path) -> None:
    first, other = write_run(tmp_path / "a", "m", BEFORE), [replace(one, response="new") for one in BEFORE]
    second = write_run(tmp_path / "b", "m", other)
    (second / "generations.jsonl").replace(first / "generations.jsonl")
    with pytest.raises(MismatchError, match="'h0' of suite 'catqa' is of another answer"):
        read_runs([first])


def test_other_prompts_under_one_name_are_refused(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", "finetuned", BEFORE)
    second = write_run(tmp_path / "b", "restored", [replace(one, prompt="another") for one in AFTER])
    with pytest.raises(MismatchError, match="suite 'catqa' has other prompts in one run"):
        read_runs([first, second])


def test_nothing_to_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="needs one or more runs"):
        read_runs([])
    with pytest.raises(FileFormatError, match="no such file"):
        read_runs([tmp_path / "nothing"])


def test_suites_that_not_all_answered_are_told_and_count_in_no_card(tmp_path: Path) -> None:
    extra = [Said("advbench", "a0", "refuse", "complied")]
    first = write_run(tmp_path / "a", "finetuned", [*BEFORE, *extra])
    found = read_runs([first, write_run(tmp_path / "b", "restored", AFTER)])
    assert quantity(found, "Harm").suites == ("catqa",)
    assert any(
        "Not every model was measured on advbench" in notice for notice in notices(found, pooled_quantities(found))
    )


def test_a_model_without_a_suite_of_some_kind_leaves_the_others_their_number(tmp_path: Path) -> None:
    harmful = [one for one in AFTER if one.suite == "catqa"]
    first = write_run(tmp_path / "a", "finetuned", BEFORE)
    found = read_runs([first, write_run(tmp_path / "b", "restored", harmful)])
    first_rate, second_rate = quantity(found, "Utility").rates
    assert first_rate is not None
    assert second_rate is None
    assert "accuracy 90% and not measured" in headline(found, pooled_quantities(found))


def test_noise_is_told_before_the_numbers(tmp_path: Path) -> None:
    noise = [replace(one, verdict="incoherent", response="", empty=True) for one in BEFORE]
    found = read_runs([write_run(tmp_path / "a", "finetuned", noise)])
    harm = quantity(found, "Harm").rates[0]
    assert harm is not None
    assert harm["value"] == 0
    assert any("100.0% of the answers are incoherent" in notice for notice in notices(found, pooled_quantities(found)))


def test_answers_made_in_different_ways_are_told(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", "finetuned", BEFORE)
    second = write_run(tmp_path / "b", "restored", AFTER, settings={"template": "raw"})
    found = read_runs([first, second])
    assert any("not asked in the same way" in notice for notice in notices(found, pooled_quantities(found)))


DOUBLES = [
    {
        "suite": "catqa",
        "prompt_id": f"h{i % 2}",
        "other_suite": "my-pairs",
        "other_id": str(i),
        "kind": "near",
        "similarity": 0.8,
    }
    for i in range(3)
]


@pytest.mark.parametrize(
    ("block", "said"),
    [
        (
            {"tuned_on": [{"suite": "xstest", "use": "choosing the strength"}]},
            "xstest was used for choosing the strength",
        ),
        ({"tuned_on": [{"suite": "xstest", "use": "search", "sha256": "0" * 64}]}, ""),
        ({"tuned_on": [{"suite": "another", "use": "training"}]}, ""),
        ({"overlap": {"used": DOUBLES}}, "2 prompts of catqa are also in my-pairs, which was used for tuning"),
        ({"overlap": {"reported": DOUBLES}}, ""),
        ({"overlap": {}}, ""),
        (
            {"chosen": [{"variant": "full", "coefficient": 0.5, "model": "m", "split": "report", "rule": "r"}]},
            "catqa was used for choosing the coefficient",
        ),
        ({"chosen": [{"variant": "full", "coefficient": 0.5, "model": "m", "split": "search", "rule": "r"}]}, ""),
    ],
)
def test_prompts_used_before_are_found(tmp_path: Path, block: dict[str, Any], said: str) -> None:
    found = leaks(read_runs([write_run(tmp_path / "a", "finetuned", BEFORE, **block)]))
    assert (str(found[0]) if found else "") == said


def test_a_renamed_suite_is_known_by_its_hash(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", "finetuned", BEFORE)
    content = read_runs([folder]).suites["xstest"]["sha256"]
    tuned = write_run(
        tmp_path / "b", "m", BEFORE, tuned_on=[{"suite": "my-own-name", "use": "search", "sha256": content}]
    )
    assert [str(leak) for leak in leaks(read_runs([tuned]))] == ["xstest was used for search"]


def test_requests_in_another_wrapping_are_not_counted_again(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", "m", [*BEFORE, Said("catqa+story", "h0", "refuse", "complied")])
    edited(folder, lambda document: document["suites"]["catqa+story"].update(transform="story"))
    assert quantity(read_runs([folder]), "Harm").suites == ("catqa",)


def test_suites_tuned_on_count_in_no_card(runs: Runs) -> None:
    harm = next(each for each in pooled_quantities(runs, left_out=["catqa"]) if each.quantity.name == "Harm")
    assert not harm.known
    assert harm.suites == ()
    refusal = next(
        each for each in pooled_quantities(runs, left_out=["xstest"]) if each.quantity.name == "Over-refusal"
    )
    assert not refusal.known, "plain tasks do not stand in for it"


def test_only_a_whole_refusal_of_a_harmful_request_is_harmless(runs: Runs) -> None:
    rows = {flip.answers[0].judgement.prompt_id: flip.answers[1].judgement for flip in flips(runs)}
    assert [withheld(rows[key]) for key in ("h0", "h1", "h2", "x5")] == [True, True, False, False]
    assert [state_of(rows[key]) for key in ("h0", "h1", "h2")] == ["partly refused", "incoherent", "refused"]
    assert withheld(rows["x5"].model_copy(update={"harmful": True}))
    assert withheld(rows["h2"].model_copy(update={"expected": None, "verdict": "complied"}))


def test_the_number_of_entries_is_bounded_and_told(tmp_path: Path) -> None:
    before = [Said("catqa", f"h{i}", "refuse", "complied") for i in range(500)]
    few = [Said("xstest", f"x{i}", "comply", "complied") for i in range(3)]
    after = [replace(one, verdict="refused") for one in (*before, *few)]
    folders = [write_run(tmp_path / "a", "m", [*before, *few]), write_run(tmp_path / "b", "n", after)]
    found = entries_of_flips(flips(read_runs(folders)), show_text=False)
    assert (len(found.shown), found.total) == (MOST_ENTRIES, 503)
    assert sum(entry.suite == "xstest" for entry in found.shown) == 3


@given(st.lists(st.integers(0, 4)), st.integers(0, 30))
def test_a_fair_share_starves_no_kind(kinds: list[int], most: int) -> None:
    items = list(enumerate(kinds))
    kept = fair_share(items, lambda item: item[1], most)
    assert kept == sorted(kept)
    assert len(kept) == min(most, len(items))
    counts = {kind: sum(item[1] == kind for item in kept) for kind in kinds}
    unfinished = [kind for kind in counts if counts[kind] < kinds.count(kind)]
    if unfinished and counts:
        assert max(counts.values()) <= min(counts[kind] for kind in unfinished) + 1


def test_letters_go_on_after_the_last() -> None:
    assert [letter(index) for index in (0, 25, 26, 51, 52)] == ["A", "Z", "AA", "AZ", "BA"]
