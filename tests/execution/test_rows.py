"""A ranking by row keeps, in every row, exactly what a stable sort of that row would keep."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import reference
from tests.checkpoints import Tensors, computed, load, normal, same_bits, write

import alignmend as am
from alignmend.algebra.nodes import Counting
from alignmend.errors import NonFiniteError, ParameterError
from alignmend.execution.row_ranking import highest_in_rows

SHAPES = {"model.layers.0.w": (1_500, 1_501), "model.layers.1.experts": (3, 5, 70), "model.norm.weight": (301,)}
"""Several pieces whose rows straddle blocks, a stack of matrices, a vector: one row."""
counter = itertools.count()


def opened(folder: Path, tensors: Tensors, shards: int = 1) -> am.Checkpoint:
    return am.open(write(folder / f"model{next(counter)}", tensors, shards=shards))


def few_values(seed: int) -> Tensors:
    random = np.random.default_rng(seed)
    return {name: torch.from_numpy(random.integers(-3, 4, shape).astype(np.float32)) for name, shape in SHAPES.items()}


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=6), count=st.integers(1, 4)
)
def test_ties_in_a_row_are_granted_in_order(rows: list[list[int]], count: int) -> None:
    scores = np.array(rows, dtype=np.float32)
    expected = reference.top({"w": scores.astype(np.float64)}, count / 5, "row")["w"]
    np.testing.assert_array_equal(highest_in_rows(scores, count), expected)


@pytest.mark.parametrize("density", [0.0, 0.001, 0.3, 0.999, 1.0])
@pytest.mark.parametrize("counting", ["nearest", "down"])
def test_top_by_row_equals_the_sort(density: float, counting: Counting, tmp_path: Path) -> None:
    values = few_values(1)
    zero = opened(tmp_path, {name: torch.zeros_like(tensor) for name, tensor in values.items()})
    delta = opened(tmp_path, values) - zero
    mask = am.top(am.magnitude(delta), density=density, scope="row", counting=counting)
    exact = reference.numbers(values)
    truths = reference.top({name: np.abs(one) for name, one in exact.items()}, density, "row", counting)
    found = computed(zero + am.where(mask, delta), tmp_path / "out")
    for name, one in exact.items():
        np.testing.assert_array_equal(found[name].double().numpy(), one * truths[name], err_msg=name)


def test_neither_threads_nor_shards_change_a_byte(tmp_path: Path) -> None:
    values, base = normal(1, SHAPES, torch.bfloat16), normal(2, SHAPES, torch.bfloat16)
    found = []
    for threads, shards in ((1, 1), (2, 2), (5, 3)):
        zero, model = opened(tmp_path, base, shards=shards), opened(tmp_path, values, shards=shards)
        found.append(
            computed(zero + am.trim(model - zero, density=0.2, scope="row"), tmp_path / f"{threads}", threads=threads)
        )
    for other in found[1:]:
        assert all(same_bits(found[0][name], other[name]) for name in SHAPES)


def test_rankings_by_row_nest_and_join(tmp_path: Path) -> None:
    """The inner ranking is part of the outer one's scores, and both stand under a ranking by tensor."""
    values = few_values(3)
    zero = opened(tmp_path, {name: torch.zeros_like(tensor) for name, tensor in values.items()})
    delta = opened(tmp_path, values) - zero
    inner = am.trim(delta, density=0.5, scope="row")
    outer = am.trim(am.trim(inner, density=0.25, scope="row"), density=0.1, scope="tensor")
    means = reference.trim(reference.numbers(values), 0.5, "row")
    means = reference.trim(reference.trim(means, 0.25, "row"), 0.1, "tensor")
    for name, one in reference.numbers(computed(zero + outer, tmp_path / "out")).items():
        np.testing.assert_array_equal(one, means[name], err_msg=name)
    assert am.norm(outer) == pytest.approx(sum(float((one**2).sum()) for one in means.values()) ** 0.5, rel=1e-6)


def test_a_ranking_by_row_costs_no_pass(tmp_path: Path) -> None:
    zero, one = opened(tmp_path, few_values(1)), opened(tmp_path, few_values(2))
    plan = am.explain(zero + am.trim(one - zero, density=0.1, scope="row"))
    assert plan.passes == ("compute and write, block by block",)
    saved = am.save(zero + am.trim(one - zero, density=0.1, scope="row"), tmp_path / "out")
    (cuts,) = saved.thresholds.values()
    assert cuts["model.layers.1.experts"].kept == 15 * 7


def test_scores_that_cannot_be_ranked_are_refused(tmp_path: Path) -> None:
    zero, one = opened(tmp_path, few_values(1)), opened(tmp_path, few_values(2))
    for value, kind, text in ((-1.0, ParameterError, "is negative"), (float("nan"), NonFiniteError, "is NaN")):
        broken = {name: tensor.abs() for name, tensor in few_values(3).items()}
        broken["model.norm.weight"][7] = value
        scores = am.open_scores(write(tmp_path / f"scores{value}", broken))
        mask = am.top(scores, density=0.5, scope="row")
        with pytest.raises(kind, match=rf"a score (of|made of) model\.norm\.weight in .* {text}"):
            am.save(zero + am.where(mask, one - zero), tmp_path / "out")


def test_a_resumed_run_ranks_the_same(tmp_path: Path) -> None:
    zero, one = opened(tmp_path, few_values(1)), opened(tmp_path, few_values(2))
    expression = zero + am.trim(one - zero, density=0.1, scope="row")

    def interrupt(what: str, done: int, total: int) -> None:
        if what == "write":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        am.save(expression, tmp_path / "out", threads=1, progress=interrupt)
    am.save(expression, tmp_path / "out", resume=True)
    am.save(expression, tmp_path / "plain")
    left, right = load(tmp_path / "out"), load(tmp_path / "plain")
    assert all(same_bits(left[name], right[name]) for name in SHAPES)
