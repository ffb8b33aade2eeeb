"""Stored bfloat16 scores are ranked as they lie in the file, also where the thin sample misleads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.checkpoints import computed, write

import alignmend as am
from alignmend.errors import NonFiniteError, ParameterError
from alignmend.execution.ranking import FEW, LARGE, THINNING

NAME = "model.layers.0.mlp.w"
SIZE = FEW + 100_003
generator = torch.Generator().manual_seed(0)
LOGNORMAL = torch.randn(SIZE, generator=generator).exp().bfloat16()


def misleading(sampled: float) -> torch.Tensor:
    scores = LOGNORMAL.clone()
    scores[::THINNING] = sampled
    return scores


def with_minus_zeros() -> torch.Tensor:
    scores = LOGNORMAL.clone()
    scores[::2], scores[1::4] = -0.0, 0.0
    return scores


CASES = {
    "lognormal": LOGNORMAL,
    "sorted": LOGNORMAL.sort().values,
    "one value": torch.ones(SIZE, dtype=torch.bfloat16),
    "sample too low": misleading(0.0),
    "sample too high": misleading(1e30),
    "minus zeros": with_minus_zeros(),
}


def kept(folder: Path, scores: torch.Tensor, density: float) -> torch.Tensor:
    """Where the top set is true, seen through a step of one."""
    shape = tuple(scores.shape)
    zero = am.open(write(folder / "zero", {NAME: torch.zeros(shape, dtype=torch.bfloat16)}))
    one = am.open(write(folder / "one", {NAME: torch.ones(shape, dtype=torch.bfloat16)}))
    mask = am.top(am.open_scores(write(folder / "scores", {NAME: scores})), density=density, scope="tensor")
    return computed(zero + am.where(mask, one - zero), folder / "out")[NAME] == 1


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("density", [0.00001, 0.03, 0.7])
def test_the_highest_are_kept_and_ties_in_order_of_index(case: str, density: float, tmp_path: Path) -> None:
    found = kept(tmp_path, CASES[case], density)
    order = np.argsort(-CASES[case].float().numpy(), kind="stable")[: round(density * SIZE)]
    expected = torch.zeros(SIZE, dtype=torch.bool)
    expected[torch.from_numpy(order)] = True
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [(float("nan"), NonFiniteError, "NaN"), (float("inf"), NonFiniteError, "NaN"), (-1.0, ParameterError, "negative")],
)
def test_one_unfit_score_is_found(number: float, error: type[Exception], words: str, tmp_path: Path) -> None:
    scores = LOGNORMAL.clone()
    scores[SIZE - 7] = number
    with pytest.raises(error, match=words):
        kept(tmp_path, scores, 0.1)


def test_a_tensor_for_all_threads_has_the_cut_that_it_would_have_alone(tmp_path: Path) -> None:
    scores = torch.arange(LARGE + 5).remainder(251).bfloat16()
    found = kept(tmp_path, scores, 0.1)
    assert int(found.sum()) == round(0.1 * (LARGE + 5))
    cut = scores[found].min()
    assert bool(found[scores > cut].all())
    ties = torch.nonzero(scores == cut).flatten()
    assert bool(found[ties[: int(found[ties].sum())]].all())
