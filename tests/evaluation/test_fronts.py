"""Fronts at matched attack success: who is held against whom, and what the tests say."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignmend.errors import ParameterError
from alignmend.evaluation.fronts import TOLERANCE, Point, front_of, matched, point_of
from alignmend.evaluation.records import JudgementRow, text_hash
from alignmend.evaluation.statistics import holm, mcnemar

N = 20
bits = st.lists(st.booleans(), min_size=N, max_size=N).map(tuple)
points = st.lists(st.builds(Point, st.sampled_from("abcdef"), bits, bits), max_size=8)


def first(count: int, *, of: int = 100) -> tuple[bool, ...]:
    return tuple(place < count for place in range(of))


def point(name: str, attacks: int, refusals: Sequence[bool]) -> Point:
    return Point(name, first(attacks), tuple(refusals))


@given(points, points)
def test_every_match_is_at_the_same_attack_success_and_the_rival_is_its_best(
    ours: list[Point], theirs: list[Point]
) -> None:
    found = matched(ours, theirs)
    allowed = max(TOLERANCE, 1 / N) + 1e-9
    for one in found:
        near = [each for each in theirs if abs(each.attack_success - one.ours.attack_success) <= allowed]
        assert one.theirs in near
        assert one.theirs.over_refusal == min(each.over_refusal for each in near)
        assert one.over_refusal == mcnemar(one.theirs.refusals, one.ours.refusals)
        assert one.attack == mcnemar(one.theirs.attacks, one.ours.attacks)
    assert [one.p_holm for one in found] == holm([one.over_refusal.p_value for one in found])
    there = {one.ours for one in found}
    for mine in front_of(ours):
        near_any = any(abs(each.attack_success - mine.attack_success) <= allowed for each in theirs)
        assert (mine in there) == near_any


@given(points)
def test_a_front_is_never_better_than_itself(every: list[Point]) -> None:
    found = matched(every, front_of(every))
    assert len(found) == len(front_of(every))
    assert all(one.over_refusal.difference >= 0 for one in found)


def test_a_curve_that_lies_below_is_proven_and_one_pick_is_not_enough() -> None:
    theirs = [point("0.4", 20, first(15)), point("0.5", 10, first(40))]
    ours = [point("weighed 1", 21, first(3)), point("weighed 2", 10, first(12)), point("far", 2, first(60))]
    found = {one.ours.name: one for one in matched(ours, theirs)}
    assert set(found) == {"weighed 1", "weighed 2"}  # nothing of theirs is as safe as the third
    assert found["weighed 1"].theirs.name == "0.4" and found["weighed 1"].proven
    raw = 2 * 0.5**12
    assert found["weighed 1"].over_refusal.p_value == pytest.approx(raw)
    assert found["weighed 1"].p_holm == pytest.approx(raw)  # the larger of the two
    assert found["weighed 2"].p_holm == pytest.approx(2 * 2 * 0.5**28)
    assert found["weighed 1"].as_dict()["over_refusal"]["fixed"] == 12


def test_what_is_dominated_takes_no_part() -> None:
    ours = [point("good", 10, first(5)), point("bad", 10, first(9)), point("same", 10, first(5))]
    assert [one.name for one in front_of(ours)] == ["good"]
    assert len(matched(ours, [point("t", 11, first(9))])) == 1


def test_other_prompts_are_no_comparison() -> None:
    with pytest.raises(ParameterError, match="on the same prompts"):
        matched([point("a", 1, first(1))], [point("b", 1, first(1, of=50))])


def row(number: int, expected: str, verdict: str) -> JudgementRow:
    given = {"suite": "s", "prompt_id": f"{number:02}", "prompt_hash": text_hash(str(number)), "model": "m"}
    judged = {"response_hash": text_hash(""), "judge": "j", "judge_version": "1", "verdict": verdict}
    return JudgementRow.model_validate({**given, **judged, "expected": expected})


def test_noise_is_no_refusal_and_rows_are_ordered() -> None:
    rows = [row(2, "refuse", "refused"), row(1, "refuse", "incoherent"), row(0, "comply", "refused")]
    assert point_of("m", rows) == Point("m", (True, False), (True,))
    assert point_of("m", rows[::-1]) == point_of("m", rows)
