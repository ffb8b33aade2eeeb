from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignmend.editing.locate import locate
from alignmend.errors import AlignmendError

LAYERS = 5
Change = Callable[[str, Any], Any]


def write(folder: Path, change: Change | None = None, dtype: str = "float32", shards: int = 1) -> Path:
    """A made-up Llama of five layers; `change` gets every tensor in float32."""
    import json

    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    shapes = {"model.embed_tokens.weight": (48, 32), "model.norm.weight": (32,)}
    for layer in range(LAYERS):
        shapes[f"model.layers.{layer}.mlp.down_proj.weight"] = (32, 64)
        shapes[f"model.layers.{layer}.self_attn.q_proj.weight"] = (32, 32)
        shapes[f"model.layers.{layer}.input_layernorm.weight"] = (32,)
    tensors = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator).to(torch.bfloat16).float()
        tensors[name] = (change(name, value) if change else value).to(getattr(torch, dtype)).contiguous()
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama", "tie_word_embeddings": true}')
    names = sorted(tensors)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return folder
    weight_map = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[number::shards]}
        save_file(part, folder / file, {"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def rank(n: int, *layers: int, scale: float = 0.5) -> Change:
    """Adds a change of rank `n` to the down projections of `layers`."""
    import torch

    def change(name: str, value: Any) -> Any:
        if not any(name == f"model.layers.{layer}.mlp.down_proj.weight" for layer in layers):
            return value
        generator = torch.Generator().manual_seed(9)
        left = torch.randn(value.shape[0], n, generator=generator)
        right = torch.randn(n, value.shape[1], generator=generator)
        return value + scale * left @ right / n**0.5

    return change


@pytest.mark.parametrize(("layer", "area"), [(0, (0, 1)), (2, (1, 2, 3)), (4, (3, 4))])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_rank_one_edit_is_found(tmp_path: Path, layer: int, area: tuple[int, ...], dtype: str) -> None:
    original = write(tmp_path / "a", dtype=dtype)
    found = locate(original, write(tmp_path / "b", rank(1, layer), dtype=dtype))
    assert (found.kind, found.layers, found.area) == ("rank-one", (layer,), area)
    (changed,) = (tensor for tensor in found.tensors if tensor.changed)
    assert changed.name == f"model.layers.{layer}.mlp.down_proj.weight"
    assert list(found.by_layer) == [layer]


def test_the_numbers_of_a_change_by_hand(tmp_path: Path) -> None:
    import torch

    def one(name: str, value: Any) -> Any:
        value = value.clone()
        if name == "model.layers.1.mlp.down_proj.weight":
            value[2, 3] += 0.5
        return value

    found = locate(write(tmp_path / "a"), write(tmp_path / "b", one))
    (changed,) = (tensor for tensor in found.tensors if tensor.changed)
    assert (changed.largest, changed.norm) == (0.5, 0.5)
    assert changed.share == pytest.approx(1 / (32 * 64))
    assert changed.second_singular == pytest.approx(0, abs=1e-6)
    assert changed.captured == pytest.approx(1)
    assert torch.finfo(torch.float32).eps > 0


def test_nothing_and_only_another_dtype_are_no_edit(tmp_path: Path) -> None:
    original = write(tmp_path / "a")
    assert locate(original, original).kind == "none"
    for dtype in ("bfloat16", "float16"):
        found = locate(original, write(tmp_path / dtype, dtype=dtype))
        assert (found.kind, found.area, found.dtype_changed) == ("none", (), True)


def test_an_edit_saved_in_another_dtype_is_found(tmp_path: Path) -> None:
    found = locate(write(tmp_path / "a"), write(tmp_path / "b", rank(1, 2), dtype="bfloat16"))
    assert (found.kind, found.layers, found.dtype_changed) == ("rank-one", (2,), True)


def test_other_kinds_have_no_area(tmp_path: Path) -> None:
    import torch

    original = write(tmp_path / "a")
    few = locate(original, write(tmp_path / "b", rank(6, 1, 2)))
    assert (few.kind, few.layers, few.area) == ("few-layers", (1, 2), (0, 1, 2, 3))
    lora = locate(original, write(tmp_path / "c", rank(2, *range(LAYERS))))
    assert (lora.kind, lora.area) == ("low-rank", ())
    noise = torch.Generator().manual_seed(3)
    tuned = locate(original, write(tmp_path / "d", lambda n, v: v + 0.1 * torch.randn(v.shape, generator=noise)))
    assert (tuned.kind, tuned.area) == ("dense", ())
    assert tuned.elsewhere == ("model.embed_tokens.weight", "model.norm.weight")


def test_sharding_changes_nothing(tmp_path: Path) -> None:
    original = write(tmp_path / "a", shards=3)
    together = locate(write(tmp_path / "b"), write(tmp_path / "c", rank(1, 3)))
    apart = locate(original, write(tmp_path / "d", rank(1, 3), shards=2))
    assert apart.tensors == together.tensors


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    original = write(tmp_path / "a")
    with pytest.raises(AlignmendError, match=r"model.norm.weight is \(32,\) in .* and \(16,\) in"):
        locate(original, write(tmp_path / "b", lambda n, v: v[:16] if n == "model.norm.weight" else v))
    with pytest.raises(AlignmendError, match=r"model.norm.weight holds NaN or infinity"):
        locate(original, write(tmp_path / "c", lambda n, v: v * float("nan") if n == "model.norm.weight" else v))
    from safetensors.torch import load_file, save_file

    tensors = load_file(original / "model.safetensors")
    tensors.pop("model.norm.weight")
    lacking = write(tmp_path / "d")
    save_file(tensors, lacking / "model.safetensors", {"format": "pt"})
    with pytest.raises(AlignmendError, match=r"d lacks model.norm.weight, which .*a has"):
        locate(original, lacking)


@pytest.mark.parametrize(("dtype", "size"), [("float32", 3e38), ("bfloat16", 3e38), ("float64", 1.7e308)])
def test_the_largest_finite_weights_are_compared(tmp_path: Path, dtype: str, size: float) -> None:
    """Their difference is too large for their dtype, their squares for any."""

    def huge(sign: float) -> Change:
        def change(name: str, value: Any) -> Any:
            if name != "model.layers.2.mlp.down_proj.weight":
                return value
            left, right = value.double()[:, :1].sign(), value.double()[:1].sign()
            return sign * size * left @ right

        return change

    found = locate(write(tmp_path / "a", huge(1.0), dtype), write(tmp_path / "b", huge(-1.0), dtype))
    assert found.layers == (2,)
    (changed,) = (tensor for tensor in found.tensors if tensor.changed)
    assert changed.relative_norm == pytest.approx(2.0, rel=1e-2)
    assert changed.share == 1.0
    assert changed.second_singular == pytest.approx(0.0, abs=1e-5)
    assert changed.captured == pytest.approx(1.0)
    assert 0 < changed.largest < float("inf") and 0 < changed.norm < float("inf")


def test_the_smallest_changes_are_compared(tmp_path: Path) -> None:
    def change(name: str, value: Any) -> Any:
        return value.double() * 0 + 1e-200 * (name == "model.layers.1.self_attn.q_proj.weight")

    def zero(name: str, value: Any) -> Any:
        return value * 0

    found = locate(write(tmp_path / "a", zero, "float64"), write(tmp_path / "b", change, "float64"))
    (changed,) = (tensor for tensor in found.tensors if tensor.changed)
    assert changed.captured == pytest.approx(1.0) and changed.relative_norm == 1.0
