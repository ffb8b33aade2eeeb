"""The files of one checkpoint: its index of shards, checked against the shards' own headers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from alignmend.errors import FileFormatError
from alignmend.io.header import MAX_HEADER_BYTES, MAX_NAME_LENGTH, Header
from alignmend.io.links import own_file
from alignmend.io.refusals import is_unfinished
from alignmend.io.session import header_of
from alignmend.io.strict_json import read_object, shown

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
_DAMAGED = "the index is damaged"
_DAMAGED_ADVICE = "download the checkpoint again, or save it anew with save_pretrained"
_MIXED = "files of two different saves may be mixed"
_MIXED_ADVICE = "download or save the checkpoint again into an empty folder"


def read_headers(folder: Path) -> tuple[Header, ...] | None:
    """Headers of the safetensors files of the checkpoint in `folder`, by file name; None if it has none.

    Raises `FileFormatError` when the index and the files do not fit each other.
    """
    index, single = folder / INDEX_NAME, folder / SINGLE_NAME
    if index.exists() or index.is_symlink():
        return _indexed(folder, index, single)
    if single.exists() or single.is_symlink():
        return (header_of(own_file(folder, single)),)
    return None


def _indexed(folder: Path, index: Path, single: Path) -> tuple[Header, ...]:
    weight_map = _weight_map(folder, index)
    shards = sorted(set(weight_map.values()))
    if single.exists() and SINGLE_NAME not in shards:
        raise FileFormatError(
            f"{folder} has both {SINGLE_NAME} and an index that does not list it, so it is unclear which is meant",
            advice="remove the stale one",
        )
    headers = tuple(_shard(folder, index, shard) for shard in shards)
    _check_map(index, weight_map, headers)
    return headers


def _weight_map(folder: Path, index: Path) -> dict[str, str]:
    """Tensor name -> file name, every file name checked."""
    value = read_object(own_file(folder, index), limit=MAX_HEADER_BYTES, advice=f"{_DAMAGED}: {_DAMAGED_ADVICE}").get(
        "weight_map"
    )
    if not isinstance(value, dict) or not value:
        raise FileFormatError(
            f"{index}: weight_map is {shown(value)}, not a table of tensors: {_DAMAGED}", advice=_DAMAGED_ADVICE
        )
    for name, file in value.items():
        if len(name) > MAX_NAME_LENGTH or not _is_plain_name(file):
            raise FileFormatError(
                f"{index}: tensor {shown(name)} is said to lie in {shown(file)}, which is no .safetensors file of "
                "this folder",
                advice=f"do not use this checkpoint unless you know its origin; {_DAMAGED}: {_DAMAGED_ADVICE}",
            )
    return value


def _is_plain_name(file: object) -> bool:
    """A file name that stays in its folder (which may have sub-folders on no system's reading)."""
    return (
        isinstance(file, str)
        and file.endswith(".safetensors")
        and len(file) <= 255
        and file.isprintable()
        and not file.startswith(".")
        and not any(character in file for character in "/\\:")
    )


def _shard(folder: Path, index: Path, shard: str) -> Header:
    path = folder / shard
    if not path.exists():
        cause = "its download is unfinished" if is_unfinished(folder) else "the download or copy is incomplete"
        raise FileFormatError(f"{index} lists {shard}, which is missing: {cause};", advice="fetch that file")
    return header_of(own_file(folder, path))


def _check_map(index: Path, weight_map: dict[str, str], headers: Iterable[Header]) -> None:
    """Index and headers must name the same tensors in the same files, each once."""
    homes: dict[str, str] = {}
    for header in headers:
        for name in header.entries:
            if name in homes:
                raise FileFormatError(
                    f"{index}: tensor {shown(name)} is in both {homes[name]} and {header.path.name}: {_MIXED}",
                    advice=_MIXED_ADVICE,
                )
            if name not in weight_map:
                raise FileFormatError(
                    f"{index} lacks tensor {shown(name)} of {header.path.name}: {_MIXED}", advice=_MIXED_ADVICE
                )
            homes[name] = header.path.name
    for name, file in weight_map.items():
        if homes.get(name) != file:
            actual = f"it is in {homes[name]}" if name in homes else "no listed file has it"
            raise FileFormatError(
                f"{index} places tensor {shown(name)} in {file}, but {actual}: {_MIXED}", advice=_MIXED_ADVICE
            )
