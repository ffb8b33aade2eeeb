"""Quantized weights of every tool are refused by what lies in the files; integers that are no weights are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from alignmend.errors import UnsupportedFormatError
from alignmend.io.folder import open_checkpoint_folder

OUT, IN = 32, 32
PROJECTION = "model.layers.0.self_attn.q_proj"
Leaves = dict[str, tuple[torch.dtype, tuple[int, ...]]]
U8, I8, I16, I32, U32, I64 = torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint32, torch.int64
F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32

PACKED: dict[str, tuple[Leaves, str]] = {
    "MLX": ({".weight": (U32, (OUT, 4)), ".scales": (BF16, (OUT, 2)), ".biases": (BF16, (OUT, 2))}, "as MLX writes it"),
    "HQQ": ({".W_q": (U8, (512,)), ".scale": (F16, (1, 16)), ".zero": (F16, (1, 16))}, "as HQQ"),
    "quanto": ({".weight._data": (I8, (OUT, IN)), ".weight._scale": (BF16, (OUT, 1))}, "as quanto"),
    "AQLM": ({".codes": (I8, (OUT, 4, 1)), ".codebooks": (F16, (1, 256, 1, 8)), ".scales": (F16, (OUT, 1))}, "as AQLM"),
    "torchao": ({"._weight_qdata": (I8, (OUT, IN)), "._weight_scale": (BF16, (OUT, 1))}, "as torchao"),
    "torchao, colons": ({".weight:qdata": (I8, (OUT, IN)), ".weight:scale": (BF16, (OUT, 1))}, "as torchao"),
    "GPTQ": ({".qweight": (I32, (4, OUT)), ".scales": (F16, (1, OUT)), ".qzeros": (I32, (1, 4))}, "as GPTQ or AWQ"),
    "Marlin": ({".B": (I32, (2, 64)), ".s": (F16, (1, OUT))}, "packed and quantized"),
    "QuIP#": ({".Qidxs": (I64, (OUT, 1)), ".SU": (F16, (IN,))}, "as QuIP#"),
    "ExLlama": ({".trellis": (I16, (2, 2, 64)), ".suh": (F16, (IN,))}, "as ExLlama"),
    "EETQ": ({".weight": (I8, (OUT, IN)), ".weight_scales": (F16, (OUT,))}, "as EETQ"),
    "HIGGS": ({".weight": (I16, (OUT, 16)), ".scales": (F16, (OUT,)), ".tables2": (F16, (16, 1))}, "as HIGGS"),
    "VPTQ": ({".indices": (I32, (1, OUT, 4)), ".centroids.weight": (F16, (1, 64))}, "quantized"),
    "MXFP4": ({"_blocks": (U8, (OUT, 16)), "_scales": (U8, (OUT, 1))}, "as MXFP4"),
    "NVFP4": ({".weight": (U8, (OUT, 16)), ".weight_scale_2": (F32, (1,))}, "as ModelOpt"),
    "packed integers": ({".weight": (I32, (OUT, 4))}, "dtype I32"),
    "integers of eight bytes": ({".weight": (I64, (OUT, IN))}, "dtype I64"),
    "a tool that nobody knows": ({".blob": (I32, (OUT, 4)), ".lut": (F16, (16,))}, "packed and quantized"),
    "nothing beside it": ({".blob": (U8, (OUT, 16))}, "packed and quantized"),
}


def zeros(leaves: Leaves) -> dict[str, Tensor]:
    return {PROJECTION + leaf: torch.zeros(shape, dtype=dtype) for leaf, (dtype, shape) in leaves.items()}


def model(**more: Tensor) -> dict[str, Tensor]:
    return {"model.embed_tokens.weight": torch.zeros(64, IN, dtype=BF16), "model.norm.weight": torch.ones(IN), **more}


@pytest.mark.parametrize("tool", PACKED)
def test_packed_weights_are_refused_without_any_word_in_the_config(tmp_path: Path, tool: str) -> None:
    leaves, told = PACKED[tool]
    save_file(model(**zeros(leaves)), tmp_path / "model.safetensors")
    with pytest.raises(UnsupportedFormatError, match=rf"{told}.*: use the full-precision checkpoint"):
        open_checkpoint_folder(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        {"quantization": {"group_size": 64, "bits": 4}},
        {"quantization": "int4"},
        {"compression_config": {"quant_method": "compressed-tensors"}},
        {"llm_config": {"quantization_config": {"quant_method": "awq"}}},
        {"thinker_config": {"text_config": {"quantization_config": {"quant_algo": "FP8"}}}},
    ],
)
def test_every_key_that_declares_quantization(tmp_path: Path, config: dict[str, Any]) -> None:
    save_file(model(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedFormatError, match=r"declares quantized weights .*: use the full-precision"):
        open_checkpoint_folder(tmp_path)


def test_mlx_is_told_how_it_unpacks(tmp_path: Path) -> None:
    save_file(model(**zeros(PACKED["MLX"][0])), tmp_path / "model.safetensors", metadata={"format": "mlx"})
    with pytest.raises(UnsupportedFormatError, match=r"mlx_lm\.convert .* --dequantize"):
        open_checkpoint_folder(tmp_path)


def test_tables_of_places_and_masks_are_no_weights(tmp_path: Path) -> None:
    attention, gate = "swin.layers.0.attention.self", "model.layers.0.mlp.gate"
    places = {
        "vision.embeddings.position_ids": torch.arange(50)[None],
        f"{attention}.relative_position_index": torch.zeros(49, 49, dtype=I64),
        f"{attention}.relative_position_bias_table": torch.ones(169, 3),
        f"{attention}.logit_scale": torch.ones(3, 1, 1),
        f"{gate}.tid2eid": torch.zeros(64, 6, dtype=I64),
        f"{gate}.weight": torch.ones(8, IN),
        "norm.num_batches_tracked": torch.tensor(1),
        "norm.weight": torch.ones(2),
        "h.0.attn.bias": torch.ones(1, 1, 256, 256, dtype=U8),
    }
    save_file(model(**places), tmp_path / "model.safetensors", metadata={"format": "mlx"})
    assert set(places) < set(open_checkpoint_folder(tmp_path).tensors)


@pytest.mark.parametrize("declared", [{}, None, False])
def test_a_key_that_declares_nothing(tmp_path: Path, declared: object) -> None:
    save_file(model(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"quantization": declared, "quantization_config": declared}))
    assert len(open_checkpoint_folder(tmp_path).tensors) == 2
