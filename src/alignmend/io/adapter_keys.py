"""The tensor names that PEFT writes, now and formerly, read as (parameter of the base model, role)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alignmend.errors import FileFormatError, UnsupportedFormatError

Role = Literal["a", "b", "embedding_a", "embedding_b", "magnitude", "replaced", "token_rows"]

_ROLES: dict[str, Role] = {
    "lora_A": "a",
    "lora_B": "b",
    "lora_embedding_A": "embedding_a",
    "lora_embedding_B": "embedding_b",
    "lora_magnitude_vector": "magnitude",
}
_FACTOR = re.compile(rf"(.+)\.({'|'.join(_ROLES)})(?:\.([^.]+))??(?:\.(weight|bias))?$")
_TOKENS = re.compile(r"(.+)\.token_adapter\.trainable_tokens_delta(?:\.([^.]+))?$")
_SAVED = re.compile(r"(.+)\.modules_to_save(?:\.default)?\.(.+)$")
_BASE_LAYER = re.compile(r"(.+?)(?:\.token_adapter)?\.base_layer\.(weight|bias)$")
_COPY_OF_BASE = re.compile(r".+\.(original_module\..+|token_adapter\.trainable_tokens_original(\..+)?)$")
_TRAINING_ONLY = re.compile(r".+\.lora_velora_[^.]+(\..+)?$")


@dataclass(frozen=True, slots=True)
class AdapterKey:
    """One tensor name of an adapter, understood."""

    parameter: str
    """Name of the parameter in the model that was adapted, such as
    `model.layers.0.self_attn.q_proj.weight`; a wrapped parameter's is that of its module, with the wrappers."""
    role: Role
    adapter: str | None = None
    """The adapter's name where an older or raw state dict kept it inside the key, such as `default`."""


def read_keys(path: Path, names: Iterable[str]) -> dict[str, AdapterKey]:
    """Tensor name -> its meaning; names that repeat the base or served only training are left out.

    Raises UnsupportedFormatError for a name that is not understood, FileFormatError where two adapters are
    mixed.
    """
    keys = {name: key for name in names if (key := _read_key(path, name)) is not None}
    adapters = sorted({key.adapter for key in keys.values() if key.adapter is not None})
    if len(adapters) > 1:
        raise FileFormatError(
            f"{path} mixes the adapters {', '.join(adapters)};",
            advice="save each with its own save_pretrained and give one",
        )
    return keys


def _read_key(path: Path, name: str) -> AdapterKey | None:
    bare = name.removeprefix("base_model.model.")
    if _COPY_OF_BASE.match(bare) or _TRAINING_ONLY.match(bare):
        return None
    if match := _FACTOR.match(bare):
        module, kind, adapter, leaf = match.groups()
        if leaf == "bias":
            raise not_understood(path, name)
        return AdapterKey(f"{module}.weight", _ROLES[kind], adapter)
    if match := _TOKENS.match(bare):
        return AdapterKey(f"{match[1]}.weight", "token_rows", match[2])
    for pattern in (_SAVED, _BASE_LAYER):
        if match := pattern.match(bare):
            bare = f"{match[1]}.{match[2]}"
            break
    if re.search(r"(^|\.)(lora_|base_layer\.|token_adapter\.|modules_to_save\.)", bare):
        raise not_understood(path, name)
    return AdapterKey(bare, "replaced")


def not_understood(path: Path, name: str) -> UnsupportedFormatError:
    """The error for a tensor whose meaning is not known."""
    return UnsupportedFormatError(
        f"{path}: tensor {name} is no LoRA factor, magnitude, saved module or bias that is understood here (a "
        "fused parameter, a bias of the factors or a quantized copy);",
        advice="let PEFT merge the adapter and give the merged folder",
    )
