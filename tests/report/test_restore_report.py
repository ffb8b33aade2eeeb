"""The report of a restore: its proof from its own records, and its search."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
from tests.report.pages import Page, assert_alone, driven, needs_browser
from tests.report.restored import candidate, search_block, with_search, worth, write_restore
from tests.report.run_folders import AFTER, BEFORE, write_run
from tests.report.test_runs_html import RISKY

from alignmend.errors import MismatchError
from alignmend.evaluation.results import read_results, results_schema
from alignmend.report import runs_markdown
from alignmend.report.runs import Runs, read_runs
from alignmend.report.runs_html import render_runs
from alignmend.report.search_text import front_table
from alignmend.report.write import write_report

SAID = {"finetuned": BEFORE, "restored": AFTER}
DRIFT = {"value": 0.98, "low": 0.97, "high": 0.99, "n": 40}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_restore(tmp_path_factory.mktemp("restore") / "out", SAID)


@pytest.fixture(scope="module")
def runs(folder: Path) -> Runs:
    return read_runs([folder])


def test_both_models_are_read_with_their_answers_and_compared_in_pairs(folder: Path, runs: Runs) -> None:
    assert [one.label for one in runs.models] == ["finetuned", "restored"]
    assert [len(one.answers) for one in runs.models] == [len(BEFORE), len(AFTER)]
    page = assert_alone(render_runs(runs))
    assert "catqa attack success A → B 40 39 1 0" in page.shown
    assert "Attack success fell from 100% to 2%" in page.shown
    assert "Answers that flipped" in page.shown
    assert read_runs([folder / "results.json"]).models[0].answers == {}


def test_what_a_restore_writes_keeps_to_the_schema(folder: Path) -> None:
    schema = results_schema()
    document = read_results(folder / "results.json")
    jsonschema.validate(document, schema)
    for block, key, value in (
        ("search", "chosen", "5"),
        ("search", "candidates", [candidate(0, "x", stage="unknown")]),
        ("search", "candidates", [{"number": 0}]),
        ("search", "finetuned", {**worth(1, 1, 1.0), "more": 1}),
        ("search", "unknown", 1),
        ("proof", "kept", "yes"),
        ("proof", "unknown", 1),
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(document | {block: document[block] | {key: value}}, schema)


def test_records_of_other_answers_than_the_results_are_refused(tmp_path: Path) -> None:
    out = write_restore(tmp_path / "out", SAID)
    document = read_results(out / "results.json")
    document["models"]["restored"]["catqa"]["attack_success_rate"] |= {"value": 0.0, "low": 0.0}
    (out / "results.json").write_text(json.dumps(document))
    with pytest.raises(MismatchError, match="other rates of suite 'catqa' than the results beside it"):
        read_runs([out])


def test_without_records_the_rates_are_still_a_page(tmp_path: Path) -> None:
    out = write_restore(tmp_path / "out", SAID)
    (out.with_name(f"{out.name}-report") / "records").rename(tmp_path / "elsewhere")
    page = Page(render_runs(read_runs([out])))
    assert "records not at hand" in page.shown
    assert "The search" in page.shown


def test_the_page_tells_the_whole_search(runs: Runs) -> None:
    page = assert_alone(render_runs(runs))
    for part in (
        "9 candidates in 32 s: 1 predicted only, 1 asked some prompts, 6 asked all prompts, 1 failed.",
        "120 ms, 2.0 times a pass over them",
        "Chosen: resta_layers (coefficient 0.65, layers 0.6 to 1.4)",
        "The rule: the lowest attack success, ties by utility",
        "search prompts (48 to be refused, 48 harmless, 48 with known answers)",
        "everything else on this page is of prompts that the search never saw",
        "fine-tuned 95.8% 86.0–98.8 n = 48 2.1%",
        "chosen resta_layers (coefficient 0.65, layers 0.6 to 1.4) 6.2% 2.1–16.8 n = 48 6.2% 2.1–16.8 n = 48",
        "0.970 drift +0.012 task right 81.2% ✕ over-refusal 0.625, at most 0.071",
        "brings refusing back by 62% of the way to the aligned model",
        "rank correlation of 0.93 over 6 candidates",
        "takes 0.5% of the chosen step's effect",
        "✓ kept",
        "safety_arithmetic : needs contrast pairs: --pairs FILE",
        "the restored model is beyond a limit: over-refusal 0.080, at most 0.060",
    ):
        assert part in page.shown, part
    for part in (
        "9 safe_patching (mode strict) failed: scores/a.npz: no such file n/a n/a n/a 0.75",
        "7 resta (coefficient 0.1) predicted only: behind resta (coefficient 0.5) n/a",
        "asked all prompts; breaks over-refusal 0.312, at most 0.071; utility 0.900, at least 0.95; incoherent 0.042",
    ):
        assert part in page.collapsed, part


def test_a_model_that_is_no_safer_is_told_first(tmp_path: Path) -> None:
    proof = {"kept": True, "broken": [], "safer": False}
    out = write_restore(tmp_path / "out", {"finetuned": BEFORE, "restored": BEFORE}, proof=proof)
    shown = Page(render_runs(read_runs([out]))).shown
    assert shown.index("nothing is restored") < shown.index("Harm ↓ better")
    assert "beyond a limit" not in shown


def test_kept_limits_ask_for_no_notice(tmp_path: Path) -> None:
    out = write_restore(tmp_path / "out", SAID, proof={"kept": True, "broken": [], "safer": True})
    page = render_runs(read_runs([out]))
    assert "nothing is restored" not in page
    assert "beyond a limit" not in page


def test_prompts_that_the_search_saw_are_not_called_unseen(tmp_path: Path) -> None:
    out = write_restore(tmp_path / "out", SAID, tuned_on=[{"suite": "catqa", "use": "search"}])
    shown = Page(render_runs(read_runs([out]))).shown
    assert "Not a fair test: catqa was used for search" in shown
    assert "everything else on this page" not in shown


def test_two_restores_have_two_searches(tmp_path: Path) -> None:
    places = [write_restore(tmp_path / name, SAID) for name in ("first", "second")]
    page = assert_alone(render_runs(read_runs(places)))
    assert "The search: restored (first)" in page.shown
    assert "The search: restored (second)" in page.shown


def test_what_stands_beside_a_restore_does_not_take_its_headline(folder: Path, tmp_path: Path) -> None:
    beside = write_run(tmp_path / "aligned", "aligned", BEFORE)
    assert "Attack success fell from 100% to 2%" in Page(render_runs(read_runs([folder, beside]))).shown
    assert "utility and incoherence of 3 models" in Page(render_runs(read_runs([beside, folder]))).shown


def test_likelihood_stands_for_utility_where_nothing_has_known_answers(tmp_path: Path) -> None:
    said = {model: [one for one in rows if one.suite != "gsm8k"] for model, rows in SAID.items()}
    out = write_restore(tmp_path / "out", said)
    document = read_results(out / "results.json")
    for model, value in (("finetuned", 1.0), ("restored", 0.98)):
        document["models"][model]["drift"] = {"utility": DRIFT | {"value": value, "high": max(value, 0.99)}}
    (out / "results.json").write_text(json.dumps(document))
    page = Page(render_runs(read_runs([out])))
    assert "likelihood of texts that must stay" in page.shown
    assert "likelihood kept went from 100% to 98%" in page.shown
    assert "Not every model was measured" not in page.shown
    beside = write_run(tmp_path / "aligned", "aligned", said["finetuned"])
    assert "Not every model was measured" not in render_runs(read_runs([out, beside]))
    assert "drift likelihood kept, of the fine-tune's ↑ 1 0.97–1 n = 40 0.98 0.97–0.99 n = 40" in page.shown


def test_the_card_holds_the_front_and_what_was_left_out(folder: Path, tmp_path: Path) -> None:
    written = write_report([folder], tmp_path / "card.md")
    said = written.path.read_text()
    assert "> On these prompts, which the search never saw, the restored model is beyond a limit" in said
    rows = [line for line in said.splitlines() if line.startswith("| resta")]
    assert len(rows) == 4
    assert rows[1].startswith("| resta\\_layers \\(coefficient 0.65, layers 0.6 to 1.4\\) \\(chosen\\) | 6.2% ")
    assert "- Left out: safety\\_arithmetic: needs contrast pairs: \\-\\-pairs FILE" in said


@pytest.mark.parametrize("text", RISKY)
def test_hostile_names_and_reasons_stay_text(text: str) -> None:
    rows = [candidate(0, text, why=text, on_front=True, broken=[text], within_limits=False)]
    runs = with_search(candidates=rows, chosen=0, rule=text, left_out=[{"family": text, "why": text}])
    assert_alone(render_runs(runs))
    table = [line for line in runs_markdown.render_runs(runs).splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} <= {4, 5, 7}
    front_table(search_block(candidates=rows, chosen=0))


def test_harmful_answers_stay_out_of_the_page(folder: Path, tmp_path: Path) -> None:
    shown = write_report([folder], tmp_path / "page.html")
    assert "SECRET" not in shown.path.read_text()
    asked = write_report([folder], tmp_path / "page.html", show_text=True)
    assert "SECRET steps" in Page(asked.path.read_text()).collapsed


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_stands_beside_the_page(runs: Runs, tmp_path: Path, width: int) -> None:
    found = driven(tmp_path, render_runs(runs), "look", width)
    assert found["beside"] <= 0


@needs_browser
def test_nor_where_many_models_stand_beside_a_restore(folder: Path, tmp_path: Path) -> None:
    many = [write_run(tmp_path / f"m{number}", f"a-model-{number}", BEFORE) for number in range(7)]
    assert driven(tmp_path, render_runs(read_runs([folder, *many])), "look", 390)["beside"] <= 0


@needs_browser
def test_every_text_stands_out_in_both_themes(runs: Runs, tmp_path: Path) -> None:
    """WCAG 2.1: a contrast of at least 4.5."""
    found = driven(tmp_path, render_runs(runs), "contrast")
    assert found["light"] == found["dark"] == []
