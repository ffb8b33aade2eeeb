"""Steering vectors on disk: safetensors with one tensor per layer, everything else as metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_args

from alignmend.anatomy.layers import Site
from alignmend.errors import FileFormatError, NonFiniteError, OutputError
from alignmend.io.atomic import replace_bytes

if TYPE_CHECKING:
    import torch

    from alignmend.activations.vector import SteeringVector

FORMAT = "alignmend-steering-1"
_PREFIX = "layer."


def save_vector(
    vector: SteeringVector, path: Path, *, overwrite: bool, extra: Mapping[str, str] = MappingProxyType({})
) -> Path:
    """Write `vector` to `path`, with `extra` metadata; an `OutputError` where the file exists, unless `overwrite`."""
    from safetensors.torch import save

    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists", advice="choose another name, or overwrite it")
    tensors = {f"{_PREFIX}{layer}": vector.directions[layer].float().contiguous().cpu() for layer in vector.layers}
    metadata = {"format": FORMAT, "site": vector.site, "about": json.dumps(dict(vector.about), sort_keys=True)}
    metadata |= extra
    replace_bytes(path, _in_order(save(tensors, metadata)))
    return path


def _in_order(data: bytes) -> bytes:
    """The file with its header's keys sorted: the library writes metadata in an order that changes from run to run."""
    end = 8 + int.from_bytes(data[:8], "little")
    text = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]


def load_vector(path: Path) -> tuple[Mapping[int, torch.Tensor], Site, Mapping[str, Any]]:
    """Directions, site and description of the file `path`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise FileFormatError(f"{path}: not a steering vector: {error}") from None
    if metadata.get("format") != FORMAT or metadata.get("site") not in get_args(Site):
        raise FileFormatError(f"{path}: not a steering vector: its metadata lacks format {FORMAT!r} and a known site")
    return (
        {_layer(name, path): _checked(name, tensor, path) for name, tensor in tensors.items()},
        _site(metadata),
        _about(metadata, path),
    )


def _site(metadata: Mapping[str, str]) -> Site:
    return "mlp_output" if metadata["site"] == "mlp_output" else "block_output"


def _about(metadata: Mapping[str, str], path: Path) -> Mapping[str, Any]:
    try:
        about = json.loads(metadata.get("about", "{}"))
    except ValueError as error:
        raise FileFormatError(f"{path}: its description is not JSON ({error})") from None
    return about if isinstance(about, dict) else {}


def _layer(name: str, path: Path) -> int:
    number = name.removeprefix(_PREFIX)
    if number == name or not number.isdecimal():
        raise FileFormatError(f"{path}: tensor {name!r} is not called {_PREFIX}N")
    return int(number)


def _checked(name: str, tensor: torch.Tensor, path: Path) -> torch.Tensor:
    if not tensor.isfinite().all():
        raise NonFiniteError(f"{path}: {name} holds NaN or infinity")
    return tensor.float()
