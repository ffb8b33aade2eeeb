"""SafePatching's slope ratio: what two patches can and cannot part."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignmend.restore.slopes import LEAST_SHIFT, PatchShift, PatchSlopes, shift


def test_a_shift_by_hand() -> None:
    found = shift(([0.0, 1.0], [2.0]), ([1.0, 4.0], [1.5]))
    assert (found.refuse, found.comply) == (2.0, -0.5)
    assert shift(([1.0], []), ([2.0], [])) == PatchShift(1.0, 0.0)


def test_patches_along_one_line_cannot_be_parted_and_the_note_says_so() -> None:
    found = PatchSlopes(PatchShift(4.0, 2.0), PatchShift(-2.0, -1.0))
    assert found.ratio == pytest.approx(1.0)
    assert "slope ratio 1.00" in found.notes[0]
    assert found.as_dict()["ratio"] == 1.0


def test_patches_with_other_proportions_can() -> None:
    found = PatchSlopes(PatchShift(4.0, 1.0), PatchShift(-1.0, -1.0))
    assert found.ratio == pytest.approx(4.0)
    assert found.notes == ()


def test_a_patch_that_moves_nothing_has_no_ratio() -> None:
    found = PatchSlopes(PatchShift(0.01, 0.0), PatchShift(-1.0, -1.0))
    assert found.ratio is None
    assert "will restore little" in found.notes[0]
    assert PatchSlopes(PatchShift(4.0, 0.0), PatchShift(-1.0, -1.0)).notes == ()


_NATS = st.floats(LEAST_SHIFT, 5.0)


@given(_NATS, _NATS, st.floats(0.1, 3.0), st.floats(0.1, 3.0))
def test_at_a_ratio_of_one_what_leaves_over_refusal_alone_leaves_safety_alone(
    refuse: float, comply: float, alpha: float, part: float
) -> None:
    """In the linear regime: alpha of one patch and beta of the other, with no change where answers are due."""
    safety, over = PatchShift(refuse, comply), PatchShift(-part * refuse, -part * comply)
    beta = alpha * safety.comply / -over.comply
    assert alpha * safety.refuse + beta * over.refuse == pytest.approx(0.0, abs=1e-9)
    slopes = PatchSlopes(safety, over)
    assert slopes.ratio is None or slopes.ratio == pytest.approx(1.0)
