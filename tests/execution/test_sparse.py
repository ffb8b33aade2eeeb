"""Where masks keep little, only what they keep is computed: with the bytes of the whole block, or with its errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.checkpoints import Tensors, computed, near, normal, same_bits, write

import alignmend as am
from alignmend.algebra.programs import Above, Keep, Plus, RandomKeep, Read, Subtract, Times
from alignmend.errors import NonFiniteError
from alignmend.execution.sparse import keeps_of
from alignmend.io.tensors import TensorEntry

WEIGHT = "model.layers.0.mlp.w"
SHAPES = {WEIGHT: (700, 800), "model.layers.1.mlp.w": (9, 30), "model.norm.weight": (5,)}
"""The first has several blocks of several draws."""


def models(seed: int) -> dict[str, Tensors]:
    base = normal(seed, SHAPES, torch.bfloat16)
    base[WEIGHT].view(-1)[::977] = -0.0
    base[WEIGHT].view(-1)[::1013] = 0.0
    found = {"target": base, "one": near(base, seed + 1), "other": near(base, seed + 2)}
    scores = {role: {n: t.abs() for n, t in normal(seed + 9, SHAPES, torch.bfloat16).items()} for role in ("s", "t")}
    scores["t"][WEIGHT].view(-1)[::3] = -0.0
    return found | scores


def patched(folder: Path, found: dict[str, Tensors], rate: float, density: float, alpha: float) -> am.Checkpoint:
    for role, tensors in found.items():
        write(folder / role, tensors)
    target, one, other = (am.open(folder / role) for role in ("target", "one", "other"))
    first, second = (am.top(am.open_scores(folder / role), density=rate, scope="tensor") for role in "st")
    kept = [am.random_mask(density=density, seed=3, stream=stream) for stream in "ab"]
    safety = am.where((first - second) & kept[0], one - target, label="one")
    return target + alpha * safety + am.where((second - first) & kept[1], other - target, label="other")


@settings(max_examples=6)
@given(
    seed=st.integers(0, 99),
    rate=st.sampled_from([0.001, 0.02, 0.1, 0.5, 0.99]),
    density=st.sampled_from([0.3, 1.0]),
    alpha=st.floats(-2, 2).filter(lambda number: abs(number) > 0.01),
)
def test_bytes_and_counts_are_those_of_whole_blocks(
    seed: int, rate: float, density: float, alpha: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("sparse")
    expression = patched(folder, models(seed), rate, density, alpha)
    thin = computed(expression, folder / "thin")
    whole = computed(expression, folder / "whole", dtype="float32")  # a wider output is never computed in part
    for name, values in whole.items():
        assert same_bits(thin[name], values.bfloat16()), name
    told = [json.loads((folder / out / "alignmend.json").read_text())["patches"] for out in ("thin", "whole")]
    for one, other in zip(*told, strict=True):
        assert (one["kept"], one["weights"], one["label"]) == (other["kept"], other["weights"], other["label"])
        assert one["norm"] == pytest.approx(other["norm"], rel=1e-4)


@pytest.mark.parametrize("number", [float("inf"), float("nan"), 3.3e38])
def test_what_is_not_kept_is_checked_all_the_same(number: float, tmp_path: Path) -> None:
    found = models(5)
    found["one"][WEIGHT].view(-1)[300_000] = number
    found["target"][WEIGHT].view(-1)[300_000] = -3.3e38
    expression = patched(tmp_path, found, 0.001, 0.3, 1.0)
    with pytest.raises(NonFiniteError):
        computed(expression, tmp_path / "out")


def test_only_thin_sums_of_differences_qualify() -> None:
    def entry(name: str, dtype: str) -> TensorEntry:
        return TensorEntry(name, dtype, (4,), Path("file"), 0, 4 * (2 if dtype == "BF16" else 4))

    def keep(mask: Above | RandomKeep, dtype: str = "BF16") -> Keep:
        return Keep(mask, Subtract(Read(entry("a", dtype)), Read(entry("b", dtype))))

    top, few, many = Above(Read(entry("s", "BF16")), 7, 0), RandomKeep(0.1, 0, "a"), RandomKeep(0.5, 0, "a")
    assert keeps_of(Plus((Times(0.5, keep(top)), keep(few)))) == (keep(top), keep(few))
    for dense in (keep(many), keep(top, "F32"), Plus((keep(top), Read(entry("a", "BF16")))), keep(top).operand):
        assert keeps_of(dense) == ()
