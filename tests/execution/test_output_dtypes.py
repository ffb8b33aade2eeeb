"""The output's dtype rounds what a model stores in its main dtype, and leaves alone what it keeps in float32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.checkpoints import Tensors, computed, llama_shapes, near, normal, same_bits, write

import alignmend as am
from alignmend.errors import ParameterError

ROUTER = "model.layers.1.mlp.gate.e_score_correction_bias"
NORM = "model.norm.weight"


def family(folder: Path, *, kept: tuple[str, ...], dtype: torch.dtype = torch.bfloat16) -> list[am.Checkpoint]:
    """Fine-tune, aligned and unaligned: `dtype`, but for what is kept in float32."""
    base = normal(0, {**llama_shapes(), ROUTER: (4,)})
    base[ROUTER] = torch.tensor([4.9985, 5.0079, 5.0095, 4.9889])
    found = []
    for seed, role in enumerate(("finetuned", "aligned", "unaligned"), 1):
        moved = near(base, seed, size=1e-3)
        tensors = {name: one if name in kept else one.to(dtype) for name, one in moved.items()}
        found.append(am.open(write(folder / role, tensors)))
    return found


def moved(models: list[am.Checkpoint]) -> am.Checkpoint:
    finetuned, aligned, unaligned = models
    return finetuned + 0.5 * (aligned - unaligned)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_what_is_kept_in_float32_stays_exact(tmp_path: Path, dtype: str) -> None:
    models = family(tmp_path, kept=(ROUTER, NORM))
    plain, rounded = (computed(moved(models), tmp_path / str(asked), dtype=asked) for asked in (None, dtype))
    for name in (ROUTER, NORM):
        assert same_bits(rounded[name], plain[name])
    assert {one.dtype for name, one in rounded.items() if name not in (ROUTER, NORM)} == {getattr(torch, dtype)}


def test_a_pattern_asks_for_it_by_name(tmp_path: Path) -> None:
    models = family(tmp_path, kept=(ROUTER, NORM))
    found = computed(moved(models), tmp_path / "out", dtype="bfloat16", dtypes={"*.norm.*": "bfloat16"})
    assert (found[NORM].dtype, found[ROUTER].dtype) == (torch.bfloat16, torch.float32)
    alone = computed(moved(models), tmp_path / "alone", dtypes={"lm_head.*": "float32"})
    assert {name for name, one in alone.items() if one.dtype == torch.float32} == {ROUTER, NORM, "lm_head.weight"}


def test_a_wide_checkpoint_is_rounded_whole_but_for_what_another_model_keeps(tmp_path: Path) -> None:
    finetuned, _, _ = family(tmp_path / "wide", kept=(), dtype=torch.float32)
    _, aligned, unaligned = family(tmp_path / "narrow", kept=(ROUTER,))
    found = computed(finetuned + 0.5 * (aligned - unaligned), tmp_path / "out", dtype="bfloat16")
    assert {name for name, one in found.items() if one.dtype == torch.float32} == {ROUTER}
    alone = computed(finetuned, tmp_path / "alone", dtype="bfloat16")
    assert {one.dtype for one in alone.values()} == {torch.bfloat16}


def test_float32_widens_everything(tmp_path: Path) -> None:
    found = computed(moved(family(tmp_path, kept=(ROUTER,))), tmp_path / "out", dtype="float32")
    assert {one.dtype for one in found.values()} == {torch.float32}


def test_explain_and_manifest_tell_of_it(tmp_path: Path) -> None:
    expression = moved(family(tmp_path, kept=(ROUTER, NORM)))
    told = f"{ROUTER} and 1 more: kept in float32"
    assert any(told in note for note in am.explain(expression, dtype="bfloat16").notes)
    saved = am.save(expression, tmp_path / "out", dtype="bfloat16")
    assert any(told in note for note in saved.manifest.notes)
    assert not any("kept in" in note for note in am.explain(expression).notes)


def test_stochastic_rounding_goes_with_what_stays_wide(tmp_path: Path) -> None:
    models = family(tmp_path, kept=(ROUTER,))
    found = computed(moved(models), tmp_path / "out", dtype="bfloat16", rounding="stochastic")
    assert found[ROUTER].dtype == torch.float32


def test_a_pattern_that_fits_nothing_is_a_slip(tmp_path: Path) -> None:
    models = family(tmp_path, kept=(ROUTER,))
    with pytest.raises(ParameterError, match=r"no tensor of the output fits the pattern 'mlp\.gate' of its dtypes"):
        am.explain(moved(models), dtype="bfloat16", dtypes={"mlp.gate": "bfloat16"})
    with pytest.raises(ParameterError, match="the output dtype is one of float32, float16, bfloat16"):
        am.explain(moved(models), dtypes={"*": "int8"})


def test_tensors_alone_decide_which_dtype_is_the_main_one(tmp_path: Path) -> None:
    shapes: Tensors = {"a.weight": torch.ones(8, 8), "b.weight": torch.ones(4, 4, dtype=torch.bfloat16)}
    model = am.open(write(tmp_path / "model", shapes, dtype="bfloat16"))
    assert {one.dtype for one in computed(model, tmp_path / "out", dtype="float16").values()} == {torch.float16}
