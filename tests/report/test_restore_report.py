"""The report of a restore: its proof from its own records, and its search."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tests.report.pages import Page, assert_alone, driven, needs_browser
from tests.report.restored import CANDIDATES, candidate, search_block, worth, write_restore
from tests.report.run_folders import AFTER, BEFORE, write_run
from tests.report.test_runs_html import RISKY

from alignmend.errors import MismatchError
from alignmend.evaluation.results import read_results, results_schema
from alignmend.report import runs_markdown
from alignmend.report.axes import HEIGHT, TOP, WIDTH, Frame
from alignmend.report.runs import Runs, read_runs, runs_of
from alignmend.report.runs_html import render_runs
from alignmend.report.search_plane import search_plane, size_of, size_words
from alignmend.report.search_text import MOST_ROWS, front_table
from alignmend.report.search_view import front, harm, searches
from alignmend.report.write import write_report

SAID = {"finetuned": BEFORE, "restored": AFTER}
DRIFT = {"value": 0.98, "low": 0.97, "high": 0.99, "n": 40}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_restore(tmp_path_factory.mktemp("restore") / "out", SAID)


@pytest.fixture(scope="module")
def runs(folder: Path) -> Runs:
    return read_runs([folder])


def with_search(**changes: Any) -> Runs:
    rates = {"harmful": {"attack_success_rate": DRIFT}}
    return runs_of({"models": {"finetuned": rates, "restored": rates}, "search": search_block(**changes)})


def text_of(search: dict[str, Any], width: int = 100) -> str:
    console = Console(width=width, no_color=True, record=True, file=io.StringIO())
    console.print(front_table(search))
    return console.export_text()


def plane_of(search: dict[str, Any]) -> ElementTree.Element:
    return ElementTree.fromstring(search_plane(searches(with_search(**search))[0]).chart)


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
    (out / "records").rename(tmp_path / "elsewhere")
    page = Page(render_runs(read_runs([out])))
    assert "records not at hand" in page.shown
    assert "The search" in page.shown


def test_the_page_tells_the_whole_search(runs: Runs) -> None:
    page = assert_alone(render_runs(runs))
    for part in (
        "9 candidates in 32 s: 1 ranked by likelihood, 1 asked some prompts, 6 asked all prompts, 1 failed.",
        "1.2 ms, 2 times a pass over them",
        "Chosen: resta_layers (coefficient 0.65, layers 0.6 to 1.4)",
        "The rule: the lowest attack success, ties by utility",
        "search prompts (48 to be refused, 48 harmless, 48 with known answers)",
        "everything else on this page is of prompts that the search never saw",
        "fine-tuned 95.8% 86.0–98.8 n = 48 2.1%",
        "chosen resta_layers (coefficient 0.65, layers 0.6 to 1.4) 6.2% 2.1–16.8 n = 48 6.2% 2.1–16.8 n = 48",
        "0.970 ✕ over-refusal 0.625, at most 0.071",
        "✓ kept",
        "safety_arithmetic : needs contrast pairs: --pairs FILE",
        "the restored model is beyond a limit: over-refusal 0.080, at most 0.060",
    ):
        assert part in page.shown, part
    for part in (
        "9 safe_patching (mode strict) failed: scores/a.npz: no such file n/a n/a n/a 0.75",
        "7 resta (coefficient 0.1) ranked by likelihood: refusals have come back by 3% only n/a",
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


def test_the_plane_marks_the_chosen_one_the_front_the_models_and_the_limit() -> None:
    drawn = plane_of({})
    kinds = [one.get("class") or "" for one in drawn.iter()]
    whole = [one for one in CANDIDATES if one["stage"] == "whole"]
    assert sum(kind.startswith("tried") for kind in kinds) == len(whole)
    assert sum(kind.startswith("tried breaks") for kind in kinds) == sum(bool(one["broken"]) for one in whole)
    assert sum("on-front" in kind for kind in kinds) == sum(one["on_front"] for one in whole)
    assert kinds.count("ring") == 1
    assert kinds.count("mark") == 2
    assert [one.text for one in drawn.iter("text") if "label" in (one.get("class") or "")] == [
        "beyond the limit",
        "chosen",
        "fine-tuned",
        "aligned",
    ]


def test_the_limit_lies_where_the_fine_tune_and_the_limit_say() -> None:
    """Over-refusal of the fine-tune is 1/48, and 0.05 more is allowed; the axis ends at 1, as one has 30/48."""
    limit = next(one.get("d") for one in plane_of({}).iter() if one.get("class") == "limit")
    assert limit is not None
    assert limit.startswith(f"M{Frame(0.0, 1.0).x(1 / 48 + 0.05)} ")


def test_the_line_is_the_front_of_the_two_axes() -> None:
    """From 0 attacks at 30 over-refusals, by 3 at 3 and 9 at 2, to 14 at 1."""
    line = next(one.get("d") for one in plane_of({}).iter() if one.get("class") == "front")
    frame = Frame(0.0, 1.0)
    points = [f"{frame.x(over / 48)} {frame.y(attack / 48)}" for attack, over in ((0, 30), (3, 3), (9, 2), (14, 1))]
    assert line == f"M{'L'.join(points)}"


def test_what_lies_far_from_the_front_does_not_squeeze_it() -> None:
    rows = [
        candidate(0, "near", worth=worth(9, 2, 0.99), on_front=True),
        candidate(1, "far", worth=worth(9, 40, 0.99), broken=["over-refusal 0.833, at most 0.071"]),
    ]
    found = search_plane(searches(with_search(candidates=rows, chosen=0))[0])
    assert found.beyond == 1
    assert ">20%<" in found.chart
    assert "far" not in found.chart
    assert "1 further right than the front" in Page(render_runs(with_search(candidates=rows, chosen=0))).shown


@given(
    st.lists(st.tuples(*(st.integers(0, 48),) * 2, st.integers(0, 20), st.booleans()), max_size=12),
    st.integers(0, 48),
    st.sampled_from([0.0, 0.05, 0.3, 1.0]),
)
def test_any_search_is_a_plane_within_its_frame(
    points: list[tuple[int, int, int, bool]], over: int, limit: float
) -> None:
    rows = [
        candidate(number, f"c{number}", worth=worth(attack, refused, 1 - lost / 20), on_front=best)
        for number, (attack, refused, lost, best) in enumerate(points)
    ]
    limits = {"over_refusal": limit, "utility": 0.95, "incoherent": 0.02}
    drawn = plane_of(
        {"candidates": rows, "chosen": 0 if rows else None, "limits": limits, "finetuned": worth(48, over, 1.0)}
    )
    for one in drawn.iter():
        places = re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", one.get("d") or "")
        places += [(one.get("x"), one.get("y"))] if one.tag == "text" else []
        assert all(0 <= float(x) <= WIDTH and TOP - 8 <= float(y) <= HEIGHT for x, y in places)


@given(st.floats(0, 1.2), st.floats(0, 1))
def test_sizes_are_what_the_legend_says(utility: float, limit: float) -> None:
    sizes = size_words(limit)
    assert [radius for radius, _ in sizes] == sorted((radius for radius, _ in sizes), reverse=True)
    assert (size_of(utility, limit) == 0) == (utility < limit - 1e-9)


def test_the_front_goes_from_the_safest_on() -> None:
    found = front(search_block())
    assert [one["number"] for one in found] == [1, 5, 0, 2]
    assert [harm(one["worth"]) for one in found] == sorted(harm(one["worth"]) for one in found)


@pytest.mark.parametrize("width", [80, 100])
def test_the_terminal_table_marks_the_chosen_row_and_what_breaks_a_limit(width: int) -> None:
    said = text_of(search_block(), width)
    assert max(map(len, said.splitlines())) <= width
    assert re.search(r"▸ +resta_layers \(coefficient 0\.65, .* 6\.2% +6\.2% +0\.960 +0\.0% +kept", said)
    assert re.search(r"resta \(coefficient 1\) +0\.0% +62\.5%! +0\.970 +0\.0% +breaks", said)
    assert "over-refusal" in said
    assert said.count("▸") == 2
    assert "harm_direction_removal" not in said


def test_a_long_front_keeps_the_chosen_row() -> None:
    rows = [candidate(n, f"resta (coefficient {n})", worth=worth(n, 0, n / 48), on_front=True) for n in range(40)]
    said = text_of(search_block(candidates=rows, chosen=39))
    assert re.search(r"▸ +resta \(coefficient 39\)", said)
    assert f"{40 - MOST_ROWS - 1} more of the front" in said


def test_a_search_without_a_front_is_a_table_and_a_page() -> None:
    nothing: dict[str, Any] = {"candidates": [CANDIDATES[6]], "chosen": None, "left_out": []}
    assert "fine-tuned" in text_of(search_block(**nothing))
    page = assert_alone(render_runs(with_search(**nothing)))
    assert "Nothing was chosen." in page.shown
    assert "No candidate was worth asking" in page.shown


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
    text_of(search_block(candidates=rows, chosen=0))


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
def test_every_text_stands_out_in_both_themes(runs: Runs, tmp_path: Path) -> None:
    """WCAG 2.1: a contrast of at least 4.5."""
    found = driven(tmp_path, render_runs(runs), "contrast")
    assert found["light"] == found["dark"] == []
