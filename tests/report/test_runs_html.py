"""The page of several runs: what it shows, what it keeps back, and that nothing in it comes to life."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.report.conftest import HOSTILE
from tests.report.pages import Page, assert_alone, driven, needs_browser
from tests.report.run_folders import AFTER, BEFORE, Said, write_run

from alignmend.evaluation.agreement import agreement
from alignmend.evaluation.overlap import Overlap
from alignmend.evaluation.statistics import difference_interval
from alignmend.report.environment import heat_class
from alignmend.report.runs import Runs, read_runs, runs_of
from alignmend.report.runs_html import render_runs

RISKY = (
    *HOSTILE,
    "</script><script>parent.owned = 1; document.title = 'owned'</script>",
    '{"text": "</script><!-- <script>", "more": "\u2028\u2029"}',
    "<svg onload=\"document.title='owned'\"><a href=\"javascript:document.title='owned'\">click</a></svg>",
    '" onfocus="document.title=\'owned\'" autofocus tabindex="0" x="',
    "<details open ontoggle=\"document.title='owned'\">",
    "&lt;b&gt; &#60;i&#62; <!--",
    "\u202e\u2066evil\u2069\u202d" + "\u200b" * 30,
    "one long word " + "w" * 190_000 + " 200 kB",
    "\x00\x01\x02\x7f\x9b tab\tand\rreturn",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    place = tmp_path_factory.mktemp("runs")
    return read_runs([write_run(place / "a", "org/chat-7b-task", BEFORE), write_run(place / "b", "restored", AFTER)])


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Hostile text as prompts, answers, ids, categories, suites and a model's name."""
    place = tmp_path_factory.mktemp("hostile")
    rows = [
        Said(
            suite=("catqa", "xstest", RISKY[7][:60])[number % 3],
            prompt_id=f"{number} {text[:300]}",
            expected=("refuse", "comply", "comply")[number % 3],
            verdict="complied",
            response=text,
            prompt=text or "?",
            category=text[:200],
        )
        for number, text in enumerate(RISKY * 3)
    ]
    after = [replace(one, verdict="refused") for one in rows]
    return read_runs([write_run(place / "a", RISKY[0], rows), write_run(place / "b", "m" * 400, after)])


def in_points(n: int, fixed: int, broken: int) -> str:
    low, high = difference_interval(n, fixed, broken)
    return f"{100 * low:.1f} to {100 * high:.1f}".replace("-", "−")


def test_the_page_says_every_part(runs: Runs) -> None:
    page = assert_alone(render_runs(runs))
    for part in (
        "Attack success fell from 100% to 2%, over‑refusal went from 0% to 10%",
        "Harm ↓ better",
        "Utility ↑ better",
        "40 prompts of catqa",
        "91.2–100.0 n = 40",
        "catqa attack success among coherent ↓ 100.0% 91.2–100.0 n = 40 2.6%",
        "Attack success by category Suite Category A org/chat-7b-task B restored catqa kind 0 100.0% 7.1%",
        f"xstest over-refusal A → B 30 0 0 3 +10.0 points {in_points(30, 0, 3)} 0.2500 0.7500",
        "catqa to be refused B 40 38 refused, 1 partly refused, 1 incoherent",
        "xstest to be answered B 30 3 refused, 27 complied",
        "42 answers that may be harmful are not in this file",
        "A org/chat-7b-task chat greedy, max_new_tokens=48 100 0 0",
        "invented-1",
        "The runs do not say.",
    ):
        assert part in page.shown, part


def test_answers_that_may_be_harmful_are_not_in_the_file_at_all(runs: Runs) -> None:
    page = render_runs(runs)
    assert "SECRET" not in page
    assert page.count("characters withheld") == 42
    assert "I must decline." in Page(page).collapsed


def test_asked_for_they_are_there_and_collapsed(runs: Runs) -> None:
    page = Page(render_runs(runs, show_text=True))
    assert "SECRET" not in page.shown
    assert page.collapsed.count("SECRET steps") == 40
    assert "made with --show-text" in page.shown


def test_a_single_run_shows_what_failed(tmp_path: Path) -> None:
    page = Page(render_runs(read_runs([write_run(tmp_path / "a", "restored", AFTER)])))
    assert "Answers that failed All 8." in page.shown
    assert "x5 type 1 failed refused" in page.shown
    assert "Paired" not in page.shown


def test_a_document_without_records_is_a_page_too(document: dict[str, Any]) -> None:
    page = assert_alone(render_runs(runs_of(document)))
    assert "Harm, over‑refusal, utility and incoherence of 7 models" in page.shown
    assert "records not at hand: rates only" in page.shown


def test_what_was_not_measured_has_a_card_that_says_so(tmp_path: Path) -> None:
    harmful = [one for one in BEFORE if one.suite == "catqa"]
    page = Page(render_runs(read_runs([write_run(tmp_path / "a", "m", harmful)])))
    assert page.shown.count("Not measured: no suite that counts shows it.") == 2


def test_a_suite_tuned_on_is_told_and_counts_in_no_card(tmp_path: Path) -> None:
    tuned = [{"suite": "catqa", "use": "fitting the safety vector"}]
    page = Page(render_runs(read_runs([write_run(tmp_path / "a", "m", BEFORE, tuned_on=tuned)])))
    assert "Not a fair test: catqa was used for fitting the safety vector" in page.shown
    assert "catqa tuned on attack success" in page.shown
    assert "40 prompts of catqa" not in page.shown


def test_a_further_judge_has_its_own_rates(tmp_path: Path) -> None:
    rates = {"catqa": {"attack_success_rate": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 40}}}
    judges = {"second": {"version": "second-7", "models": {"m": rates}}}
    page = Page(render_runs(read_runs([write_run(tmp_path / "a", "m", BEFORE, judges=judges)])))
    assert "The same answers by another judge: second name second version second-7" in page.collapsed
    assert "catqa attack success ↓ 50.0% 40.0–60.0 n = 40" in page.collapsed


def test_what_was_tuned_on_what_is_told_also_where_it_is_fair(tmp_path: Path) -> None:
    tuned = [{"suite": "oktest", "use": "choosing the strength", "sha256": "0" * 64}]
    page = Page(render_runs(read_runs([write_run(tmp_path / "a", "m", BEFORE, tuned_on=tuned)])))
    assert "What was tuned on what oktest was used for choosing the strength." in page.shown
    assert "Not a fair test" not in page.shown


def test_a_suite_says_where_it_comes_from(tmp_path: Path) -> None:
    origin = {
        "location": "org/set/file.csv",
        "sha256": "ab" * 32,
        "revision": "123",
        "copy": None,
        "notes": ["7 repeated"],
    }
    suites = {"catqa": {"n": 40, "sha256": "cd" * 32, "kind": "harmful", "licence": "Apache-2.0", "origin": origin}}
    page = Page(render_runs(read_runs([write_run(tmp_path / "a", "m", BEFORE, suites=suites)])))
    facts = "catqa 40 kind harmful licence Apache-2.0 source org/set/file.csv revision 123 7 repeated prompts cdcd"
    assert facts in page.shown
    assert f"file {'ab' * 32}" in page.shown


def test_agreement_and_shared_prompts_are_told(tmp_path: Path) -> None:
    sides = [["refused", "complied"] * 20, ["refused", "complied"] * 19 + ["complied", "complied"]]
    found = agreement(sides[0], sides[1], names=("one", "two"))
    double = Overlap("catqa", "h1", "advbench", "7", "exact", 1.0)
    assert found is not None
    blocks = {"agreement": [found.as_dict()], "overlap": {"reported": [double.as_dict()]}}
    page = Page(render_runs(read_runs([write_run(tmp_path / "a", "m", BEFORE, **blocks)])))
    assert re.search(r"A one and two verdict 40 97\.5% 87\.1–99\.6 0\.95 0\.\d\d to 1\.00", page.shown)
    assert "catqa advbench exact 1 reported" in page.shown


def test_what_is_no_share_is_not_in_percent(tmp_path: Path, document: dict[str, Any]) -> None:
    drift = {"kl_mean": {"value": 1.25, "low": 1.1, "high": 1.4, "n": 30}}
    harness = {"acc": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 90}}
    models = {"m": document["models"]["base"] | {"drift": drift, "lm-eval arc": harness}}
    page = render_runs(runs_of({"models": models}))
    assert "drift KL, all tokens ↓ 1.25 1.1–1.4 n = 30" in Page(page).shown
    assert "lm-eval arc acc 50.0% 40.0–60.0 n = 90" in Page(page).shown


def test_equal_runs_give_equal_pages_wherever_they_lie(tmp_path: Path) -> None:
    pages = []
    for place in ("one", "another place"):
        folders = [write_run(tmp_path / place / "a", "m", BEFORE), write_run(tmp_path / place / "b", "n", AFTER)]
        pages.append(render_runs(read_runs(folders)))
    assert pages[0] == pages[1]


def test_hostile_text_is_text(runs: Runs, hostile: Runs) -> None:
    page = render_runs(hostile, show_text=True)
    tags = {tag for tag, _ in assert_alone(page).tags}
    assert tags <= {tag for tag, _ in Page(render_runs(runs)).tags}
    assert page.count("<style") == page.count("<script") == 1
    assert "w" * 1201 not in page
    assert "188,821 more characters are in the records" in page
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", page)


@settings(max_examples=15)
@given(text=st.text(st.characters(exclude_categories=()), min_size=1, max_size=60))
def test_any_name_anywhere_leaves_the_page_whole(document: dict[str, Any], text: str) -> None:
    rates = document["models"]["base"]
    changed = {
        "models": {text: {text: rates["harmful"], "borderline": rates["borderline"]}, "other": rates},
        "groups": {text: {text: {"category": {text: rates["harmful"], "b": rates["harmful"]}}}},
        "suites": {text: {"n": 3, "sha256": text, "licence": text, "origin": {text: [text]}}},
        "judge": {"name": text, "version": text},
        "provenance": {text: {text: [text, None, 3]}},
    }
    assert_alone(render_runs(runs_of(document | changed)))


def test_twenty_suites_of_five_hundred_prompts_make_a_small_page(tmp_path: Path) -> None:
    words = "a somewhat longer answer of the kind that models give, in words of all sorts; " * 12
    before = [
        Said(f"suite-{suite}", str(number), "refuse", "complied", words, words, category=f"kind {number % 11}")
        for suite in range(20)
        for number in range(500)
    ]
    after = [replace(one, verdict="refused") for one in before]
    folders = [write_run(tmp_path / "a", "m", before), write_run(tmp_path / "b", "n", after)]
    page = render_runs(read_runs(folders), show_text=True)
    assert len(page.encode()) < 3_000_000
    assert "240 of 10,000, taken evenly" in Page(page).shown


def test_shades_follow_the_rate() -> None:
    assert [heat_class(value) for value in (0, 0.024, 0.5, 1)] == ["h0", "h0", "h10", "h20"]


@needs_browser
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_hostile_comes_to_life_in_a_browser(hostile: Runs, tmp_path: Path, width: int) -> None:
    found = driven(tmp_path, render_runs(hostile, show_text=True), "look", width)
    assert found["title"] == "Evaluation · alignmend"
    assert found["owned"] is None
    assert found["beside"] == 0, "the page must not scroll sideways"
    assert found["scripts"] == 1
    assert found["links"] == found["opened"] == 0
    assert found["background"] != found["other"], "the theme can be chosen"


@needs_browser
def test_a_page_with_a_script_of_its_own_would_be_noticed(runs: Runs, tmp_path: Path) -> None:
    spoilt = render_runs(runs).replace("<h1>", "<script>document.title = 'owned'</script><h1>")
    with pytest.raises(AssertionError, match="Content Security Policy"):
        driven(tmp_path, spoilt, "look")


@needs_browser
def test_tables_sort_and_filter(runs: Runs, tmp_path: Path) -> None:
    found = driven(tmp_path, render_runs(runs), "tables")
    assert found["unsorted"] == "none"
    assert found["up"] == sorted(found["up"])
    assert found["said"] == "ascending"
    assert found["down"] == sorted(found["up"], reverse=True)
    assert (found["reversed"], found["left"]) == ("descending", "none")
    assert found["suites"] == sorted(found["suites"])
    assert found["filtered"] == ["catqa", "catqa"]
    assert found["count"] == "2 of 8 rows"
    assert (found["all"], found["quiet"]) == (8, "")
    assert found["flips"] == 3
    assert found["together"]
    assert found["turns"] == ["broken", "changed", "mended"]
    assert found["focus"]
    assert found["labelled"].startswith("Filter rows")
    assert found["regions"]


@needs_browser
@pytest.mark.parametrize("which", ["runs", "leak", "document"])
def test_every_text_stands_out_in_both_themes(runs: Runs, document: dict[str, Any], tmp_path: Path, which: str) -> None:
    """WCAG 2.1: a contrast of at least 4.5."""
    if which == "leak":
        tuned = [{"suite": "catqa", "use": "search"}]
        noise = [replace(one, verdict="incoherent") for one in BEFORE]
        runs = read_runs([write_run(tmp_path / "a", "m", noise, tuned_on=tuned)])
    if which == "document":
        runs = runs_of(document)
    page = render_runs(runs)
    found = driven(tmp_path, page, "contrast")
    assert found["texts"] > 100
    assert found["light"] == found["dark"] == []


def test_reporting_loads_no_torch() -> None:
    code = "import sys; from alignmend.report import terminal, write; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_limits_say_what_the_judge_cannot(document: dict[str, Any]) -> None:
    shown = Page(render_runs(runs_of(document))).shown
    assert "They prove mechanism, not levels" in shown
    assert "It does not read for harm" in shown
    other = Page(render_runs(runs_of(document | {"judge": {"name": "wildguard", "version": "1"}}))).shown
    assert "does not read for harm" not in other
    assert "cover the choice of prompts only" in other
