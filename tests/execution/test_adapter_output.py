"""A sum of adapters is an adapter again, exactly; everything else is refused with the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.checkpoints import load, normal, same_bits, write
from tests.io.adapter_files import write as write_adapter

import alignmend as am
from alignmend.errors import MismatchError, NonFiniteError, OutputError, ParameterError, UnsupportedFormatError
from alignmend.execution.adapter_output import save_adapter

MODULES = [f"model.layers.{layer}.self_attn.q_proj" for layer in (0, 1)]
SHAPE = (6, 5)


def patch(folder: Path, seed: int, rank: int, **options: object) -> Path:
    folder.mkdir()
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for module in MODULES:
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.randn(rank, SHAPE[1], generator=generator)
        tensors[f"base_model.model.{module}.lora_B.weight"] = torch.randn(SHAPE[0], rank, generator=generator)
    return write_adapter(folder, tensors, r=rank, lora_alpha=6, **options)


@pytest.fixture
def base(tmp_path: Path) -> am.Checkpoint:
    return am.open(write(tmp_path / "base", normal(0, {f"{module}.weight": SHAPE for module in MODULES})))


@pytest.fixture
def patches(tmp_path: Path) -> tuple[am.Delta, am.Delta]:
    one, two = patch(tmp_path / "one", 1, 2), patch(tmp_path / "two", 2, 3)
    return am.open_adapter(one), am.open_adapter(two)


def test_the_written_adapter_is_the_same_delta(
    base: am.Checkpoint, patches: tuple[am.Delta, am.Delta], tmp_path: Path
) -> None:
    one, two = patches
    cases = {
        "sum": one - 0.5 * two,
        "nested": 2.0 * (one + 3.0 * (two - one)),
        "layers": am.per_layer(one, {1: -2.0}, default=0.5) + am.select(two, layers=[0]),
        "rows": am.common_rows(one) + 0.0 * two,
    }
    for name, delta in cases.items():
        save_adapter(base + delta, tmp_path / name)
        again = am.open_adapter(tmp_path / name)
        am.save(base + delta, tmp_path / f"{name}-merged")
        am.save(base + again, tmp_path / f"{name}-again")
        merged, found = load(tmp_path / f"{name}-merged"), load(tmp_path / f"{name}-again")
        for tensor, expected in merged.items():
            np.testing.assert_allclose(found[tensor].numpy(), expected.numpy(), atol=2e-5, err_msg=f"{name} {tensor}")
        am.verify(tmp_path / name)


def test_modules_where_one_takes_part_are_filled_up_to_the_rank_of_both(
    base: am.Checkpoint, patches: tuple[am.Delta, am.Delta], tmp_path: Path
) -> None:
    one, two = patches
    save_adapter(base + one + am.select(two, layers=[0]) + (one - one), tmp_path / "out")
    ranks = {name: tensor.shape[0] for name, tensor in load(tmp_path / "out").items() if "lora_A" in name}
    assert list(ranks.values()) == [5, 5]
    second = [tensor for name, tensor in load(tmp_path / "out").items() if "lora_A" in name][1]
    assert int((second != 0).any(dim=1).sum()) == 2, "the rest is zeros"


def test_a_finished_adapter_is_left_unless_it_is_another(
    base: am.Checkpoint, patches: tuple[am.Delta, am.Delta], tmp_path: Path
) -> None:
    one, _ = patches
    save_adapter(base + one, tmp_path / "out")
    before = (tmp_path / "out" / "adapter_model.safetensors").stat().st_mtime_ns
    save_adapter(base + one, tmp_path / "out", resume=True)
    assert (tmp_path / "out" / "adapter_model.safetensors").stat().st_mtime_ns == before
    for expression, dtype in ((base + one, "bfloat16"), (base + 1.0000001 * one, "float32")):
        with pytest.raises(OutputError, match="exists and is not empty"):
            save_adapter(expression, tmp_path / "out", dtype=dtype, resume=True)
    save_adapter(base + one, tmp_path / "out", dtype="bfloat16", overwrite=True)
    assert {tensor.dtype for tensor in load(tmp_path / "out").values()} == {torch.bfloat16}


def test_what_is_no_sum_of_adapters_is_refused(
    base: am.Checkpoint, patches: tuple[am.Delta, am.Delta], tmp_path: Path
) -> None:
    one, two = patches
    other = am.open(write(tmp_path / "other", normal(1, {f"{module}.weight": SHAPE for module in MODULES})))
    elsewhere = am.open_adapter(tmp_path / "one", base=other)
    cases = {
        "nothing is added to the base": base,
        "a difference of full checkpoints, a trim or a drop is not low-rank": base + one + (other - base),
        "a trim or a drop": base + am.trim(one, density=0.5) - two,
        "no adapter takes part": base + (other - other),
        "every coefficient is zero": base + 0.0 * one,
        "stands on another base than the result": base + elsewhere,
    }
    for reason, expression in cases.items():
        with pytest.raises(MismatchError, match=reason):
            save_adapter(expression, tmp_path / "out")
    with pytest.raises(ParameterError, match="the output dtype is one of"):
        save_adapter(base + one, tmp_path / "out", dtype="int8")
    with pytest.raises(OutputError, match=r"is one of the inputs|holds an input"):
        save_adapter(base + one, tmp_path / "one", overwrite=True)
    assert not (tmp_path / "out").exists()


def test_what_is_not_plain_or_not_finite_is_refused(base: am.Checkpoint, tmp_path: Path) -> None:
    dora = patch(tmp_path / "dora", 3, 2, use_dora=True)
    magnitudes = {f"base_model.model.{module}.lora_magnitude_vector": torch.ones(SHAPE[0]) for module in MODULES}
    save_file(load(dora) | magnitudes, dora / "adapter_model.safetensors")
    with pytest.raises(UnsupportedFormatError, match=r"holds .* so the result cannot be an adapter"):
        save_adapter(base + am.open_adapter(dora, base=base), tmp_path / "out")
    broken = patch(tmp_path / "broken", 4, 2)
    tensors = load(broken)
    tensors[next(iter(tensors))][0, 0] = float("nan")
    save_file(tensors, broken / "adapter_model.safetensors")
    with pytest.raises(NonFiniteError, match=r"in broken/adapter_model\.safetensors holds NaN or infinity"):
        save_adapter(base + am.open_adapter(broken), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_adapter_times_one_keeps_its_factors(
    base: am.Checkpoint, patches: tuple[am.Delta, am.Delta], tmp_path: Path
) -> None:
    save_adapter(base + patches[1], tmp_path / "out")
    name = f"base_model.model.{MODULES[0]}.lora_A.weight"
    assert same_bits(load(tmp_path / "out")[name], load(tmp_path / "two")[name])


def test_a_smaller_rank_is_the_best_of_that_rank_and_tells_its_error(
    base: am.Checkpoint, patches: tuple[am.Delta, am.Delta], tmp_path: Path
) -> None:
    one, two = patches
    exact, cut = (
        save_adapter(base + one - two, tmp_path / "exact"),
        save_adapter(base + one - two, tmp_path / "c", rank=3),
    )
    factors = load(tmp_path / "c")
    losses = []
    for module in MODULES:
        a, b = (factors[f"base_model.model.{module}.lora_{side}.weight"].double() for side in "AB")
        whole = load(tmp_path / "exact")
        left, right = (whole[f"base_model.model.{module}.lora_{side}.weight"].double() for side in "BA")
        values = torch.linalg.svdvals(left @ right)
        losses.append(float(values[3:].norm() / values.norm()))
        assert a.shape[0] == 3
        assert float((b @ a - left @ right).norm() / values.norm()) == pytest.approx(losses[-1], rel=1e-4)
    assert cut.manifest.notes[-1].startswith("written as an adapter of rank 3 at most: of ")
    assert f" {max(losses):.2%} of the norm is lost" in cut.manifest.notes[-1]
    assert "which is exact" in exact.manifest.notes[-1]
    am.verify(tmp_path / "c")


def test_a_finished_adapter_of_another_rank_is_another(
    base: am.Checkpoint, patches: tuple[am.Delta, am.Delta], tmp_path: Path
) -> None:
    delta = patches[0] + patches[1]
    save_adapter(base + delta, tmp_path / "out", rank=2)
    save_adapter(base + delta, tmp_path / "out", rank=2, resume=True)
    for rank in (None, 3):
        with pytest.raises(OutputError, match="exists and is not empty"):
            save_adapter(base + delta, tmp_path / "out", rank=rank, resume=True)
    with pytest.raises(ParameterError, match="rank is 0"):
        save_adapter(base + delta, tmp_path / "none", rank=0)
    assert not (tmp_path / "none").exists()
