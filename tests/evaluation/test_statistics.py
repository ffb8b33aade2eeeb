"""Intervals cover what they should, tests are exact, corrections keep their order."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from fractions import Fraction
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignmend.errors import AlignmendError
from alignmend.evaluation.statistics import (
    difference_interval,
    holm,
    macro_difference,
    macro_interval,
    mcnemar,
    mean_difference,
    mean_interval,
    wilson,
)

Interval = tuple[float, float]
scores = st.lists(st.sampled_from((0.0, 0.125, 0.5, 1.0)), min_size=1, max_size=12)


def drawn(values: list[float], size: int, draws: int = 20_000) -> Interval:
    """The percentiles of means of so many of `values`, each drawn by its place: the slow way."""
    places = np.random.default_rng(1).integers(len(values), size=(draws, size))
    low, high = np.percentile(np.array(values)[places].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def test_an_interval_of_a_difference_is_that_of_drawing_prompts() -> None:
    n, fixed, broken = 60, 20, 5
    changes = [-1.0] * fixed + [1.0] * broken + [0.0] * (n - fixed - broken)
    found = difference_interval(n, fixed, broken)
    assert found == pytest.approx(drawn([*changes, -1.0, 1.0], n), abs=0.017)
    assert found == difference_interval(n, fixed, broken)
    ends = {difference_interval(n, fixed, broken, draws=500, seed=seed) for seed in range(5)}
    assert len(ends) > 1


def test_an_interval_of_a_mean_is_that_of_drawing_prompts() -> None:
    values = [0.0] * 20 + [0.25] * 10 + [1.0] * 10
    value, low, high = mean_interval(values)
    assert value == 0.3125
    assert (low, high) == pytest.approx(drawn([*values, 0.0, 1.0], 40), abs=0.01)
    zeros = [0.0] * 40
    assert mean_difference(zeros, values)[0] == value
    assert mean_difference(zeros, values)[1:] == pytest.approx(drawn([*values, -1.0, 1.0], 40), abs=0.01)


def test_one_group_and_equal_groups_are_worth_all_their_prompts() -> None:
    assert macro_difference([(50, 10, 2)])[1:] == difference_interval(50, 10, 2)
    wide, narrow = macro_interval([(0, 1), (0, 199)])[2], macro_interval([(0, 100), (0, 100)])[2]
    assert narrow < 0.03
    assert wide > 0.4, "half of the mean hangs on one prompt"


def test_failures_are_as_sure_as_successes() -> None:
    """The two prompts that are added to the groups are one of each outcome."""
    never, always = macro_interval([(0, 25)] * 8), macro_interval([(25, 25)] * 8)
    assert (1 - always[1], 1 - always[2]) == pytest.approx((never[2], never[1]), abs=1.01 / 200)


@pytest.mark.parametrize("n", [1, 4, 20, 200])
def test_where_all_prompts_agree_there_still_is_an_interval(n: int) -> None:
    """About as wide as Wilson's: what twenty prompts cannot show is not shown to be absent."""
    for low, high in (mean_interval([0.0] * n)[1:], macro_interval([(0, n)])[1:]):
        assert low == 0
        assert 0.5 * wilson(0, n).high < high <= 1.3 * wilson(0, n).high
    low, high = difference_interval(n, 0, 0)
    assert low < 0 < high
    assert low == pytest.approx(-high, abs=1 / n)
    assert difference_interval(n, n, 0)[1] > -1


COVERED: dict[str, tuple[float, Callable[[np.random.Generator, int], Interval]]] = {}


def covered(name: str, truth: float) -> Callable[[Callable[[np.random.Generator, int], Interval]], None]:
    def keep(make: Callable[[np.random.Generator, int], Interval]) -> None:
        COVERED[name] = (truth, make)

    return keep


@covered("difference", -0.25)
def _(generator: np.random.Generator, seed: int) -> Interval:
    fixed, broken, _ = generator.multinomial(100, [0.3, 0.05, 0.65])
    return difference_interval(100, int(fixed), int(broken), draws=1000, seed=seed)


@covered("difference of many", -0.38)
def _(generator: np.random.Generator, seed: int) -> Interval:
    fixed, broken, _ = generator.multinomial(500, [0.4, 0.02, 0.58])
    return difference_interval(500, int(fixed), int(broken), draws=1000, seed=seed)


@covered("macro", (0.2 + 0.5 + 0.7) / 3)
def _(generator: np.random.Generator, seed: int) -> Interval:
    groups = [(int(generator.binomial(n, p)), n) for n, p in ((80, 0.2), (120, 0.5), (60, 0.7))]
    return macro_interval(groups, draws=1000, seed=seed)[1:]


@covered("macro difference", -0.17)
def _(generator: np.random.Generator, seed: int) -> Interval:
    drawn = [generator.multinomial(50, [0.2, 0.03, 0.77]) for _ in range(11)]
    return macro_difference([(50, int(one[0]), int(one[1])) for one in drawn], draws=1000, seed=seed)[1:]


@covered("mean", 0.2)
def _(generator: np.random.Generator, seed: int) -> Interval:
    return mean_interval([*generator.choice([0.0, 0.5, 1.0], 200, p=[0.7, 0.2, 0.1])], draws=1000, seed=seed)[1:]


@covered("mean difference", 0.3)
def _(generator: np.random.Generator, seed: int) -> Interval:
    before = [*generator.choice([0.0, 0.5, 1.0], 200, p=[0.7, 0.2, 0.1])]
    after = [*generator.choice([0.0, 0.5, 1.0], 200, p=[0.25, 0.5, 0.25])]
    return mean_difference(before, after, draws=1000, seed=seed)[1:]


@pytest.mark.parametrize("name", COVERED)
def test_intervals_cover_93_to_97_of_100_truths(name: str) -> None:
    truth, make = COVERED[name]
    generator = np.random.default_rng(0)
    held = sum(low <= truth <= high for low, high in (make(generator, seed) for seed in range(1000)))
    assert 930 <= held <= 970


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_an_interval_holds_its_difference(fixed: int, broken: int, rest: int) -> None:
    n = max(1, fixed + broken + rest)
    low, high = difference_interval(n, fixed, broken, draws=200)
    assert -1 <= low <= (broken - fixed) / n <= high <= 1


@given(scores, st.randoms())
def test_means_do_not_depend_on_order(values: list[float], shuffler: Random) -> None:
    shuffled = shuffler.sample(values, len(values))
    assert mean_interval(values, draws=200) == mean_interval(shuffled, draws=200)
    value, low, high = mean_interval(values, draws=200)
    assert 0 <= low <= value <= high <= 1


def test_ten_thousand_draws_are_quick() -> None:
    begin = time.perf_counter()
    macro_difference([(50, 5, 1)] * 20)
    difference_interval(20_000, 4_000, 100)
    mean_interval([0.0, 0.25, 0.5, 1.0] * 2_500)
    assert time.perf_counter() - begin < 2


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_the_exact_binomial_test_and_symmetric(pairs: list[tuple[bool, bool]]) -> None:
    before, after = [b for b, _ in pairs], [a for _, a in pairs]
    one, other = mcnemar(before, after), mcnemar(after, before)
    assert (one.fixed, one.broken, one.p_value) == (other.broken, other.fixed, other.p_value)
    flips, observed = one.fixed + one.broken, one.fixed
    ways = [math.comb(flips, heads) for heads in range(flips + 1)]
    as_extreme = sum(way for way in ways if way <= ways[observed])
    assert one.p_value == pytest.approx(float(Fraction(as_extreme, 2**flips)), rel=1e-15)
    assert one.difference == pytest.approx((sum(after) - sum(before)) / len(pairs))


@pytest.mark.parametrize(
    ("fixed", "broken", "p_value"),
    [(0, 0, 1.0), (6, 0, 2 / 64), (0, 6, 2 / 64), (3, 3, 1.0), (9, 2, 2 * (1 + 11 + 55) / 2**11)],
)
def test_mcnemar_by_hand(fixed: int, broken: int, p_value: float) -> None:
    before = [True] * fixed + [False] * broken + [True]
    after = [False] * fixed + [True] * broken + [True]
    assert mcnemar(before, after).p_value == p_value


def test_mcnemar_of_many_flips_is_exact_still() -> None:
    """5,000 flips evenly split but for 400: the normal approximation says 2 Φ(-5.64) = 1.7e-8."""
    found = mcnemar([True] * 2700 + [False] * 2300, [False] * 2700 + [True] * 2300)
    assert found.p_value == pytest.approx(1.7e-8, rel=0.05)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_keeps_the_order_and_stays_between_the_raw_values_and_bonferroni(p_values: list[float]) -> None:
    corrected = holm(p_values)
    for one, two in zip(p_values, corrected, strict=True):
        assert one <= two <= min(1.0, len(p_values) * max(p_values))
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    assert [corrected[index] for index in order] == sorted(corrected)
    assert corrected[order[0]] == min(1.0, len(p_values) * p_values[order[0]])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda: difference_interval(3, 2, 2), r"0 <= fixed \+ broken <= n"),
        (lambda: difference_interval(0, 0, 0), r"0 <= fixed \+ broken <= n"),
        (lambda: macro_difference([]), r"0 <= fixed \+ broken <= n"),
        (lambda: macro_interval([]), "needs groups"),
        (lambda: macro_interval([(2, 1)]), "needs groups"),
        (lambda: mean_interval([]), "at least one value"),
        (lambda: mean_interval([1.5]), "from 0 to 1"),
        (lambda: mean_interval([math.nan]), "from 0 to 1"),
        (lambda: mean_difference([0.0], []), "same prompts: 1 before, 0 after"),
        (lambda: mcnemar([True, False], [True]), "same prompts: 2 before, 1 after"),
        (lambda: mcnemar([], []), "same prompts: 0 before, 0 after"),
    ],
)
def test_what_has_no_interval(what: Callable[[], object], message: str) -> None:
    with pytest.raises(AlignmendError, match=message):
        what()
