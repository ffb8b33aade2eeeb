"""Tensors that fit neither their options nor the base are refused, with both shapes or names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.io.adapter_files import EMBEDDING, QUERY, base, pair, write, zeros
from torch import Tensor

from alignmend.errors import AlignmendError, FileFormatError, MismatchError, UnsupportedFormatError
from alignmend.io.adapter import open_adapter_folder, resolve_parts
from alignmend.io.tensors import TensorEntry


@pytest.mark.parametrize(
    ("tensors", "options", "error", "message"),
    [
        (
            pair() | {f"{QUERY}.lora_B.bias": torch.zeros(4)},
            {},
            UnsupportedFormatError,
            "q_proj.lora_B.bias is no",
        ),
        (
            pair(f"{QUERY}.base_layer"),
            {},
            UnsupportedFormatError,
            "base_layer.lora_A.weight is no LoRA factor",
        ),
        (pair() | {f"{QUERY}.lora_diag": torch.zeros(2)}, {}, UnsupportedFormatError, "lora_diag is no LoRA"),
        (
            pair() | {f"{QUERY}.base_layer.weight.absmax": torch.zeros(2)},
            {},
            UnsupportedFormatError,
            "absmax is no",
        ),
        (
            {name: tensor.reshape(*tensor.shape, 1, 1) for name, tensor in pair().items()},
            {},
            UnsupportedFormatError,
            "factors of a convolution",
        ),
        (
            pair() | {f"{QUERY}.bias": torch.zeros(4, dtype=torch.uint8)},
            {},
            UnsupportedFormatError,
            "bias is U8",
        ),
        ({f"{QUERY}.lora_A.weight": torch.zeros(2, 4)}, {}, FileFormatError, "needs exactly one A and one B"),
        (
            zeros(**{f"{QUERY}.lora_A.weight": (0,), f"{QUERY}.lora_B.weight": (0,)}),
            {},
            FileFormatError,
            "gathering",
        ),
        (
            pair(rank=2) | {f"{QUERY}.lora_B.weight": torch.zeros(4, 3)},
            {},
            FileFormatError,
            "do not share a rank",
        ),
        (pair(rank=3), {}, FileFormatError, "has rank 3, but adapter_config.json gives .*q_proj rank 2"),
        (pair(rank=2), {"rank_pattern": {"q_proj": 5}}, FileFormatError, "gives .*q_proj rank 5"),
        (pair(), {"use_dora": True}, FileFormatError, "use_dora is true, but .*q_proj has no lora_magnitude"),
        (
            pair() | {f"{QUERY}.lora_magnitude_vector": torch.ones(4)},
            {},
            FileFormatError,
            "use_dora is false, but .*q_proj has a lora_magnitude",
        ),
        (
            pair() | {f"{QUERY}.lora_magnitude_vector": torch.ones(5)},
            {"use_dora": True},
            FileFormatError,
            r"shape \[5\], where .* needs \[4\]",
        ),
        (
            {f"{EMBEDDING}.token_adapter.trainable_tokens_delta": torch.zeros(2, 4)},
            {"trainable_token_indices": [1, 2, 3]},
            FileFormatError,
            "names 3 rows",
        ),
        (
            {f"{EMBEDDING}.token_adapter.trainable_tokens_delta": torch.zeros(2, 4)},
            {"trainable_token_indices": [1, 1]},
            FileFormatError,
            "all different",
        ),
        (
            {f"{EMBEDDING}.token_adapter.trainable_tokens_delta": torch.zeros(2, 4)},
            {"trainable_token_indices": {"lm_head": [1, 2]}},
            FileFormatError,
            "names 0 rows",
        ),
        (
            pair()
            | {
                f"{QUERY}.lora_A.first.weight": torch.zeros(2, 4),
                "x.lora_A.second.weight": torch.zeros(2, 4),
            },
            {},
            FileFormatError,
            "mixes the adapters first, second",
        ),
        (
            pair() | {f"{QUERY}.lora_A.default.weight": torch.ones(2, 4)},
            {},
            FileFormatError,
            "both change model.layers.0.self_attn.q_proj.weight",
        ),
        (
            {f"{EMBEDDING}.original_module.weight": torch.zeros(3, 4)},
            {},
            FileFormatError,
            "no adapter tensor",
        ),
        (pair(), {"r": "two"}, FileFormatError, "not what PEFT writes: r:"),
        (pair(), {"r": 0}, FileFormatError, "not what PEFT writes: r:"),
        (pair(), {"rank_pattern": {"(": 2}}, FileFormatError, "'\\(' is no regular expression"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    tensors: dict[str, Tensor],
    options: dict[str, Any],
    error: type[AlignmendError],
    message: str,
    tmp_path: Path,
) -> None:
    write(tmp_path, tensors, **options)
    with pytest.raises(error, match=message):
        open_adapter_folder(tmp_path)


@pytest.mark.parametrize(
    ("tensors", "weights", "error", "message"),
    [
        (pair(), base("model.norm.weight"), MismatchError, "which the base does not have"),
        (
            pair(),
            base("a.model.layers.0.self_attn.q_proj.weight", "b.model.layers.0.self_attn.q_proj.weight"),
            MismatchError,
            "could be a.model.*, b.model.* of the base",
        ),
        (
            pair(),
            base("layers.0.self_attn.q_proj.weight", "language_model.layers.0.self_attn.q_proj.weight"),
            MismatchError,
            "could be language_model.*, layers",
        ),
        (
            pair(inputs=5),
            base("model.layers.0.self_attn.q_proj.weight"),
            MismatchError,
            r"for a weight of shape \[4, 5\] \(out, in\), but .* has \[4, 4\]; give the base",
        ),
        (
            pair(EMBEDDING, outputs=9),
            base("model.embed_tokens.weight", shape=(7, 4)),
            MismatchError,
            r"\[9, 4\] \(out, in\).*the vocabulary was resized",
        ),
        (
            {f"{EMBEDDING}.weight": torch.zeros(9, 4)},
            base("model.embed_tokens.weight", shape=(7, 4)),
            MismatchError,
            "the vocabulary was resized",
        ),
        (
            pair(),
            base("model.layers.0.self_attn.q_proj.weight", dtype="U8"),
            UnsupportedFormatError,
            "which is U8 .*give the full-precision base",
        ),
        (
            pair(),
            base("model.layers.0.self_attn.q_proj.weight", shape=(2, 4, 4)),
            UnsupportedFormatError,
            "is no matrix",
        ),
        (
            pair() | pair(QUERY.replace("model.layers", "layers")),
            base("language_model.layers.0.self_attn.q_proj.weight"),
            MismatchError,
            "would both change language_model",
        ),
    ],
)
def test_another_base_is_refused(
    tensors: dict[str, Tensor],
    weights: dict[str, TensorEntry],
    error: type[AlignmendError],
    message: str,
    tmp_path: Path,
) -> None:
    adapter = open_adapter_folder(write(tmp_path, tensors))
    with pytest.raises(error, match=message):
        resolve_parts(adapter, weights, tied=False)


def test_a_trained_token_beyond_the_vocabulary_is_refused(tmp_path: Path) -> None:
    tensors = {f"{EMBEDDING}.token_adapter.trainable_tokens_delta": torch.zeros(2, 4)}
    adapter = open_adapter_folder(write(tmp_path, tensors, trainable_token_indices=[1, 7]))
    with pytest.raises(MismatchError, match="the vocabulary was resized"):
        resolve_parts(adapter, base("model.embed_tokens.weight", shape=(7, 4)), tied=False)
