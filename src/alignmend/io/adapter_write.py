"""Write low-rank factors as an adapter folder that every server loads with scale 1."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from alignmend.errors import ParameterError
from alignmend.io.adapter_config import CONFIG_NAME

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS_NAME = "adapter_model.safetensors"
_KEPT = ("task_type", "auto_mapping", "fan_in_fan_out", "peft_version")
"""Options of the template that still hold for the result."""
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def write_adapter_files(
    folder: Path,
    factors: Mapping[str, tuple[Tensor, Tensor]],
    template: Mapping[str, object],
    *,
    base: str | None,
    base_revision: str | None = None,
    embeddings: Collection[str] = (),
    dtype: str = "F32",
) -> None:
    """Write `factors`, module name -> (A [rank, in], B [out, rank]), as an adapter into a folder that exists.

    Every module's delta is exactly B A. All modules get the largest rank, the missing directions being zeros: a rank
    or an alpha of a module's own is read by PEFT and overlooked by others (llama.cpp would scale it wrongly).
    `template` is the configuration of an adapter on the same model, `base` the model that PEFT is to load below it,
    `embeddings` the modules whose factors belong to an embedding, `dtype` a safetensors dtype name. Raises
    `ParameterError` for unfit factors.
    """
    _check(factors, dtype)
    rank = max(int(a.shape[0]) for a, _ in factors.values())
    config = _config(factors, rank, template) | {"base_model_name_or_path": base, "revision": base_revision}
    _write(folder, {module: _padded(pair, rank) for module, pair in factors.items()}, config, embeddings, dtype)


def _config(modules: Iterable[str], rank: int, template: Mapping[str, object]) -> dict[str, object]:
    """The `adapter_config.json` for `modules` of one rank with scale 1; base and revision are left out."""
    return {name: template[name] for name in _KEPT if name in template} | {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": {},
        "alpha_pattern": {},
        "target_modules": sorted(modules),
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "inference_mode": True,
    }


def _padded(pair: tuple[Tensor, Tensor], rank: int) -> tuple[Tensor, Tensor]:
    """The same product with `rank` directions, those added being zero."""
    from torch.nn.functional import pad

    a, b = pair
    missing = rank - int(a.shape[0])
    return pad(a, (0, 0, 0, missing)), pad(b, (0, missing))


def _check(factors: Mapping[str, tuple[Tensor, Tensor]], dtype: str) -> None:
    if dtype not in DTYPES:
        raise ParameterError(f"dtype is {dtype!r}", advice=f"give one of {', '.join(DTYPES)}")
    if not factors:
        raise ParameterError("there are no factors to write: the adapters change no module")
    for module, (a, b) in factors.items():
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or a.shape[0] == 0:
            raise ParameterError(
                f"{module}: A {list(a.shape)} and B {list(b.shape)} share no rank",
                advice="give A [rank, in], B [out, rank]",
            )


def _write(
    folder: Path,
    factors: Mapping[str, tuple[Tensor, Tensor]],
    config: Mapping[str, object],
    embeddings: Collection[str],
    dtype: str,
) -> None:
    import torch
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for module, pair in factors.items():
        kind, leaf = ("lora_embedding_", "") if module in embeddings else ("lora_", ".weight")
        for letter, factor in zip("AB", pair, strict=True):
            stored = factor.to(getattr(torch, DTYPES[dtype]), copy=True).contiguous()
            tensors[f"base_model.model.{module}.{kind}{letter}{leaf}"] = stored
    save_file(tensors, folder / WEIGHTS_NAME, metadata={"format": "pt"})
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
