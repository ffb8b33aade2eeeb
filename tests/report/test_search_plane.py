"""The Pareto plane of a search, and its table for a terminal."""

from __future__ import annotations

import io
import re
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tests.report.pages import Page, assert_alone
from tests.report.restored import CANDIDATES, candidate, search_block, with_search, worth

from alignmend.report.axes import HEIGHT, TOP, WIDTH, Frame
from alignmend.report.runs_html import render_runs
from alignmend.report.search_plane import search_plane, size_of, size_words
from alignmend.report.search_text import MOST_ROWS, front_table
from alignmend.report.search_view import front, harm, searches


def text_of(search: dict[str, Any], width: int = 100) -> str:
    console = Console(width=width, no_color=True, record=True, file=io.StringIO())
    console.print(front_table(search))
    return console.export_text()


def plane_of(search: dict[str, Any]) -> ElementTree.Element:
    return ElementTree.fromstring(search_plane(searches(with_search(**search))[0]).chart)


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


def test_the_references_own_curve_lies_under_the_front_and_is_compared_at_the_same_attack_success() -> None:
    """Of the invented candidates two are RESTA's and were asked everything: 0 attacks at 30 refusals, 9 at 2."""
    curve = next(one.get("d") for one in plane_of({}).iter() if one.get("class") == "own-curve")
    frame = Frame(0.0, 1.0)
    assert curve == f"M{frame.x(30 / 48)} {frame.y(0.0)}L{frame.x(2 / 48)} {frame.y(9 / 48)}"
    shown = assert_alone(render_runs(with_search())).shown
    assert "Against resta, at the same attack success" in shown
    assert "1 here, 12 there, of 48 0.003 less over-refusal" in shown
    assert "1 here, 2 there, of 48 1 not proven" in shown
    assert "kill 5 0 3" in shown and "the chosen candidate" in shown
    assert "resta : 4 (2 asked everything), 12 s" in shown
    alone = {"against": {"reference": "resta", "matches": []}, "over_refused": {}, "families": []}
    bare = assert_alone(render_runs(with_search(**alone))).shown
    assert "Against resta" not in bare and "over-refused" not in bare and "was given" not in bare


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


def test_the_chosen_row_is_shown_also_where_noise_has_beaten_it() -> None:
    rows = [candidate(n, f"resta (coefficient {n})", worth=worth(n, 0, n / 48), on_front=n == 0) for n in range(2)]
    assert re.search(r"▸ +resta \(coefficient 1\)", text_of(search_block(candidates=rows, chosen=1)))


def test_a_search_without_a_front_is_a_table_and_a_page() -> None:
    nothing: dict[str, Any] = {"candidates": [CANDIDATES[6]], "chosen": None, "left_out": []}
    assert "fine-tuned" in text_of(search_block(**nothing))
    page = assert_alone(render_runs(with_search(**nothing)))
    assert "Nothing was chosen." in page.shown
    assert "No candidate was worth asking" in page.shown


def test_the_cost_of_a_switch_is_a_multiple_where_a_pass_can_be_timed() -> None:
    tiny = {"median_seconds": 0.009, "pass_seconds": 0.0003, "ratio": 28.2}
    assert searches(with_search(switch=tiny))[0].took.endswith("weights took 9 ms.")
