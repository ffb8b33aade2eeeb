"""How many prompts a limit asks for."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from alignmend.evaluation.statistics import Z_95, wilson
from alignmend.report.checks import Check, Limit
from alignmend.report.prompts_needed import by_rate, by_width
from alignmend.report.relative_utility import ratio_low

SHARES = st.floats(0.01, 0.99)


def upper(p: float, n: float) -> float:
    """Wilson's upper end, of any share of any n."""
    centre = p + Z_95**2 / (2 * n)
    return (centre + Z_95 * math.sqrt(p * (1 - p) / n + Z_95**2 / (4 * n * n))) / (1 + Z_95**2 / n)


@given(value=st.floats(0, 1), limit=SHARES)
def test_the_limit_is_kept_from_that_number_on_and_not_before(value: float, limit: float) -> None:
    assume(limit - value > 1e-3)
    needed = by_rate(value, limit, ceiling=True)
    assert needed is not None
    assert upper(value, needed) <= limit + 1e-9
    assert needed == 1 or upper(value, needed - 1) > limit - 1e-9


@given(value=st.floats(0, 1), limit=SHARES)
def test_a_floor_mirrors_a_ceiling(value: float, limit: float) -> None:
    assume(abs(limit - value) > 1e-3)
    assert by_rate(1 - value, 1 - limit, ceiling=False) in (
        found := by_rate(value, limit, ceiling=True),
        None if found is None else found - 1,
        None if found is None else found + 1,
    )


def test_no_number_of_prompts_keeps_a_limit_that_the_rate_breaks() -> None:
    assert by_rate(0.1, 0.05, ceiling=True) is None
    assert by_rate(0.05, 0.05, ceiling=True) is None
    assert by_rate(0.0, 0.0, ceiling=True) is None
    assert by_rate(1.0, 1.0, ceiling=False) is None
    assert (by_rate(0.5, 1.0, ceiling=True), by_rate(0.5, 0.0, ceiling=False)) == (1, 1)
    assert by_width(0.9, 0.8, 0.95, 10, ceiling=False) is None


@given(successes=st.integers(0, 60), failures=st.integers(0, 60), limit=SHARES, ceiling=st.booleans())
def test_a_confident_check_passes_where_it_has_the_prompts_that_it_needs(
    successes: int, failures: int, limit: float, ceiling: bool
) -> None:
    n = successes + failures
    assume(n > 0)
    rate = wilson(successes, n)
    metric = "attack_success_rate" if ceiling else "accuracy"
    worst = rate.high if ceiling else rate.low
    check = Check("m", "s", Limit(metric, limit), rate.value, worst, n, confident=True)
    needed = check.prompts_needed
    assume(needed is None or abs(needed - n) > 1)
    assert check.passed == (needed is not None and needed <= n)


def test_half_the_room_needs_four_times_the_prompts() -> None:
    assert by_width(0.10, 0.20, 0.15, 30, ceiling=True) == 120
    assert by_width(0.98, 0.94, 0.96, 50, ceiling=False) == 200


@given(after=st.integers(0, 50), before=st.integers(1, 50))
def test_a_ratio_is_never_below_its_lower_end_and_more_prompts_raise_it(after: int, before: int) -> None:
    few, many = ratio_low(after / 50, 50, before / 50, 50), ratio_low(after / 50, 5000, before / 50, 5000)
    assert 0 <= few <= after / before + 1e-12
    assert few <= many + 1e-12


def test_the_lower_end_by_hand() -> None:
    """45 of 48 against 48 of 48: 46/50 and 49/50; exp(-1.96 sqrt(0.08/46 + 0.02/49)) x 46/49 = 0.8573."""
    assert ratio_low(45 / 48, 48, 1.0, 48) == pytest.approx(0.8573, abs=2e-4)
