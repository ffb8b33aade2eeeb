"""The first stage of a search: openings of refusals, curves on two baselines, and when predictions may be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.restore.test_search_laws import measured, worth, worths

from alignmend.evaluation.generation import TransformersBackend
from alignmend.evaluation.records import Prompt
from alignmend.organisms import Family
from alignmend.restore.front import Measured, below, dominates, front, surely_dominated
from alignmend.restore.openings import LARGEST_ODDS, Openings, find_openings, refusal_odds, variety
from alignmend.restore.screening import (
    FIRST_ASKED,
    LARGEST_MARGIN,
    LEAST_MARGIN,
    Outcome,
    Screening,
    Seen,
    calibrate,
    fit,
    rank_correlation,
)

odds = st.floats(-LARGEST_ODDS, LARGEST_ODDS)


@pytest.fixture(scope="module")
def backend(shipped: Family) -> TransformersBackend:
    return TransformersBackend.from_folder(shipped.members["aligned"], name="aligned")


def pairs(*responses: str) -> list[tuple[str, str]]:
    return [("how do i paint a lamp?", one) for one in responses]


def words(backend: TransformersBackend, openings: Openings) -> set[str]:
    return {backend.tokenizer.decode(one).strip() for one in openings.refusing}


def test_an_opening_is_as_short_as_no_answer_shares(backend: TransformersBackend) -> None:
    found = find_openings(backend, pairs("i must decline to say.", "i refuse."), pairs("sure! first take a spoon."))
    assert len(found.refusing) == 1  # both begin with one token that no answer begins with
    apart = find_openings(backend, pairs("i must decline to say.", "i refuse."), pairs("i would take a spoon."))
    assert len(apart.refusing) == 2
    assert all(len(one) > 1 for one in apart.refusing)


def test_a_refusal_that_begins_like_an_answer_is_no_opening(backend: TransformersBackend) -> None:
    same = "start by finding a spoon and a lamp."
    assert not find_openings(backend, pairs(same), pairs(same))


@given(st.lists(st.text("ab c", min_size=1, max_size=6), max_size=6), st.lists(st.text("ab c", min_size=1), max_size=6))
def test_no_opening_begins_another_or_an_answer(
    backend: TransformersBackend, refusals: list[str], answers: list[str]
) -> None:
    openings = find_openings(backend, pairs(*refusals), pairs(*answers)).refusing
    alone = find_openings(backend, pairs(*answers), []).refusing
    for one in openings:
        assert not any(one[:length] in openings for length in range(1, len(one)))
        assert one not in {answer[: len(one)] for answer in alone if len(answer) >= len(one)}


def test_odds_are_those_of_the_softmax(backend: TransformersBackend) -> None:
    """Against a plain forward pass over one prompt: the sum of the openings' probabilities, as log-odds."""
    import torch

    prompts = [Prompt(suite="s", id=str(n), text=text) for n, text in enumerate(("how do i paint a lamp?", "paint"))]
    openings = find_openings(backend, pairs("i must decline.", "i refuse."), pairs("i would take a spoon."))
    found = refusal_odds(backend, prompts, openings)
    for prompt, value in zip(prompts, found, strict=True):
        text, special = backend.render(prompt.text)
        ids = backend.tokenizer(text, add_special_tokens=special)["input_ids"]
        total = 0.0
        for opening in openings.refusing:
            with torch.inference_mode():
                logits = backend.model(torch.tensor([[*ids, *opening]])).logits[0].double().log_softmax(-1)
            steps = (logits[len(ids) - 1 + place, token] for place, token in enumerate(opening))
            total += math.exp(sum(float(one) for one in steps))
        assert value == pytest.approx(max(-LARGEST_ODDS, math.log(total) - math.log1p(-total)), abs=1e-3)
    assert refusal_odds(backend, prompts, openings, batch_size=1) == pytest.approx(found, abs=1e-4)


def test_without_openings_there_are_no_odds(backend: TransformersBackend) -> None:
    assert refusal_odds(backend, [Prompt(suite="s", id="0", text="paint")], Openings(())) == ()


def test_templates_are_told_from_natural_answers() -> None:
    templates = [f"Sure, here is what {n} does: take the {n}." for n in range(24)]
    natural = [f"{word} {n} is a way that one may take" for n in range(12) for word in ("Perhaps", "For")]
    assert variety(templates).templated
    assert not variety(natural).templated
    assert not variety(templates[:4]).templated  # too few to say


def outcomes(values: Sequence[float], threshold: float = 0.0) -> list[Outcome]:
    return [Outcome(one, one > threshold, one > threshold) for one in values]


@given(st.lists(odds, min_size=8, max_size=60))
def test_curves_rise_and_predict_shares(values: list[float]) -> None:
    found = fit(outcomes(values))
    if found.full is None:
        assert found.why_not
        assert found.predict(values, values) is None
        return
    prediction = found.predict(values, values)
    assert prediction is not None
    assert 0 <= prediction.attack_success <= 1 and 0 <= prediction.over_refusal <= 1
    safer = found.predict([one + 1 for one in values], [one + 1 for one in values])
    assert safer is not None
    assert safer.attack_success <= prediction.attack_success + 1e-12
    assert safer.over_refusal >= prediction.over_refusal - 1e-12


def test_the_curve_is_calibrated_on_what_it_was_fitted_on() -> None:
    """A logistic curve with an intercept meets the mean of its own data, here but for the pull of its prior."""
    every = [Outcome(value, full, any_) for value in (-6.0, -3.0, -1.0, 0.5, 2.0, 5.0) for full, any_ in
             ((value > 1, value > 0), (value > -2, value > -2))]  # fmt: skip
    values = [one.odds for one in every]
    found = fit(every).predict(values, values)
    assert found is not None
    assert 1 - found.attack_success == pytest.approx(sum(one.full for one in every) / len(every), abs=0.02)
    assert found.over_refusal == pytest.approx(sum(one.any for one in every) / len(every), abs=0.02)


@pytest.mark.parametrize(
    ("given_outcomes", "why"),
    [
        (outcomes([1.0, 2.0, 3.0]), "refuse all prompts or none"),
        ([], "refuse all prompts or none"),
        ([Outcome(float(n % 7), n % 2 == 0, n % 2 == 0) for n in range(40)], "do not tell this model's refusals"),
    ],
)
def test_where_first_tokens_tell_nothing_there_is_no_prediction(given_outcomes: list[Outcome], why: str) -> None:
    found = fit(given_outcomes)
    assert why in found.why_not
    assert not calibrate(found, []).on


FITTED = fit(outcomes([-5.0, -4.0, -3.0, 3.0, 4.0, 5.0]))
shares = st.floats(0, 1)
seen = st.builds(Seen, st.tuples(shares, shares), st.tuples(shares, shares))


@given(st.lists(seen, max_size=12))
def test_margins_cover_every_error_that_was_seen(every: list[Seen]) -> None:
    found = calibrate(FITTED, every)
    for place in (0, 1):
        assert found.margins[place] >= LEAST_MARGIN
        assert all(one.predicted[place] - found.margins[place] <= one.measured[place] + 1e-12 for one in every)
    if found.on:
        assert len(every) >= FIRST_ASKED and found.margins[0] <= LARGEST_MARGIN and not found.why
    else:
        assert found.why


def test_a_stage_that_ranks_otherwise_than_answers_do_is_off() -> None:
    wrong = [Seen((place / 10, 0.0), (1 - place / 10, 0.0)) for place in range(6)]
    assert "otherwise than their answers do (-1.00)" in calibrate(FITTED, wrong).why
    right = [Seen((place / 10, 0.0), (place / 10 + 0.02, 0.0)) for place in range(6)]
    assert calibrate(FITTED, right).on
    assert calibrate(Screening(why_not="no curve"), right).why == "no curve"


def test_rank_correlation_by_hand() -> None:
    assert rank_correlation([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 4], [1, 2, 2, 4]) == pytest.approx(4.5 / math.sqrt(5 * 4.5))
    assert rank_correlation([1, 2], [1, 2]) is None
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None


@given(worths, st.lists(worths, max_size=8))
def test_what_is_left_out_would_be_on_no_front(one: object, others: list[object]) -> None:
    """Dropping what is dominated at the lower ends of its intervals never takes a candidate from the front."""
    every = measured([*others, one])  # type: ignore[list-item]
    last = every[-1]
    better = surely_dominated(last.worth, every[:-1])
    if better is not None:
        assert dominates(better.worth, last.worth)
        assert all(kept.number != last.number for kept in front(every))


def test_intervals_protect_a_candidate_that_was_asked_little() -> None:
    [known] = measured([worth(20, 0, 1.0)])
    assert surely_dominated(worth(22, 0, 0.9), [known]) is None  # 22 of 48 may be 15 of 48 in truth
    assert surely_dominated(worth(47, 0, 0.9), [known]) == known


@given(st.tuples(shares, shares, shares), st.lists(worths, max_size=6))
def test_bounds_are_dominated_as_candidates_are(bounds: tuple[float, float, float], others: list[object]) -> None:
    every: list[Measured] = measured(others)  # type: ignore[arg-type]
    found = below(bounds, every)
    wanted = [
        one for one in every
        if one.worth.objectives[0] <= bounds[0] and one.worth.objectives[1] <= bounds[1]
        and one.worth.objectives[2] >= bounds[2] and one.worth.objectives != bounds
    ]  # fmt: skip
    assert found == (wanted[0] if wanted else None)
