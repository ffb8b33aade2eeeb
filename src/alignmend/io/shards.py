"""Where every byte of an output goes: shards, headers and index, decided before any of it is written."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from alignmend.errors import ParameterError
from alignmend.io.tensors import ITEM_SIZES

INDEX_NAME = "model.safetensors.index.json"
_UNITS = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}


@dataclass(frozen=True)
class OutputTensor:
    """One tensor to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return math.prod(self.shape) * ITEM_SIZES[self.dtype]


@dataclass(frozen=True)
class Shard:
    """One file to be written: its header, and where each tensor's first byte goes."""

    file: str
    header: bytes
    offsets: Mapping[str, int]
    size: int


def human_bytes(count: int) -> str:
    """A size with three digits and a decimal unit."""
    size = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.4g} TB"


def parse_size(text: str | int) -> int:
    """Bytes in a size such as `5GB`, `500 MB` or `2GiB`; raises `ParameterError` for anything else."""
    if isinstance(text, int) and not isinstance(text, bool) and text > 0:
        return text
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?B)?\s*", str(text).upper())
    size = int(float(found.group(1)) * _UNITS[found.group(2) or "B"]) if found else 0
    if size <= 0:
        raise ParameterError(f"a size looks like 5GB, 500MB or 2GiB, not {text!r}")
    return size


def plan_shards(tensors: Iterable[OutputTensor], max_shard_size: int) -> tuple[Shard, ...]:
    """Fill shards in the order given, a new one where the next tensor would not fit; one shard alone has no number."""
    groups: list[list[OutputTensor]] = [[]]
    filled = 0
    for tensor in tensors:
        if groups[-1] and filled + tensor.bytes > max_shard_size:
            groups.append([])
            filled = 0
        groups[-1].append(tensor)
        filled += tensor.bytes
    count = len(groups)
    names = [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    return tuple(
        _shard(name, group) for name, group in zip(names if count > 1 else ["model.safetensors"], groups, strict=True)
    )


def _shard(file: str, tensors: list[OutputTensor]) -> Shard:
    # Wider dtypes first, so that every tensor's offset is a multiple of its item size, as readers that map memory need.
    ordered = sorted(tensors, key=lambda tensor: -ITEM_SIZES[tensor.dtype])
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    starts: dict[str, int] = {}
    position = 0
    for tensor in ordered:
        stop = position + tensor.bytes
        table[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [position, stop],
        }
        starts[tensor.name] = position
        position = stop
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    return Shard(file, header, {name: start + len(header) for name, start in starts.items()}, len(header) + position)


def index_text(shards: Iterable[Shard], total: int) -> str:
    """The JSON of an index: which shard holds which tensor; `total` in bytes of weights."""
    weight_map = {name: shard.file for shard in shards for name in shard.offsets}
    document = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
