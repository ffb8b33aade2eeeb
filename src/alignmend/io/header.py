"""The header of one safetensors file, believed only after everything it says has been checked.

Layout of the format: 8 bytes little-endian length N, N bytes of JSON, then the tensors' bytes without holes.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from alignmend.errors import FileFormatError, UnsupportedFormatError
from alignmend.io.file_state import FileState, state_of
from alignmend.io.strict_json import JsonObject, parse_object, shown
from alignmend.io.tensors import ITEM_SIZES, TensorEntry

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit on a header."""
MAX_NAME_LENGTH = 1024
MAX_DIMENSIONS = 64
_MAX_COUNT = 1 << 63
_PREAMBLE = 8
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_HALF_CHARACTER = re.compile(r"[\ud800-\udfff]")
_TRUNCATED = "the file is truncated"
_TRUNCATED_ADVICE = "download or copy it again"
_DAMAGED = "the file is damaged or no safetensors file"
_DAMAGED_ADVICE = "download it again, or save it anew with safetensors"


@dataclass(frozen=True)
class Header:
    """What one safetensors file holds; no tensor byte has been read."""

    path: Path
    entries: Mapping[str, TensorEntry]
    """Tensors by name, in the order of their bytes."""
    metadata: Mapping[str, str]
    size: int
    """Bytes of the whole file."""
    header_hash: str
    """SHA-256 of the header's JSON bytes, in hexadecimal."""
    state: FileState = field(compare=False)
    """Of the file when its header was read."""


def read_header(path: Path) -> Header:
    """Read and validate the header of the safetensors file `path`.

    Raises `FileFormatError` when the file is missing, truncated, malformed or hostile, and
    `UnsupportedFormatError` for dtypes that this package cannot address (below one byte, or exotic float8).
    """
    raw, state = _header_bytes(path)
    size = state.size
    document = parse_object(raw, where=f"the header of {path}", advice=f"{_DAMAGED}: {_DAMAGED_ADVICE}")
    metadata = _metadata(path, document.pop("__metadata__", None))
    data_start = _PREAMBLE + len(raw)
    entries = [_entry(path, name, value, data_start) for name, value in document.items()]
    entries.sort(key=lambda entry: (entry.start, entry.stop, entry.name))
    _check_layout(path, entries, data_start, size)
    return Header(
        path=path,
        entries={entry.name: entry for entry in entries},
        metadata=metadata,
        size=size,
        header_hash=hashlib.sha256(raw).hexdigest(),
        state=state,
    )


def _header_bytes(path: Path) -> tuple[bytes, FileState]:
    """The header's JSON bytes and the state of the file."""
    try:
        # Without O_NONBLOCK a named pipe would hang the open itself.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise FileFormatError(
            f"{path} cannot be opened ({error.strerror})", advice="check the path and its rights"
        ) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise FileFormatError(f"{path} is not a regular file", advice="give a .safetensors file")
        length = _header_length(path, os.pread(descriptor, _PREAMBLE, 0), status.st_size)
        return _read_exactly(path, descriptor, length), state_of(status)
    except OSError as error:
        raise FileFormatError(
            f"{path} cannot be read ({error.strerror})", advice="check the disk and try again"
        ) from None
    finally:
        os.close(descriptor)


def _read_exactly(path: Path, descriptor: int, length: int) -> bytes:
    parts: list[bytes] = []
    position, stop = _PREAMBLE, _PREAMBLE + length
    while position < stop:
        part = os.pread(descriptor, stop - position, position)
        if not part:
            raise FileFormatError(f"{path} ends inside its header: {_TRUNCATED}", advice=_TRUNCATED_ADVICE)
        parts.append(part)
        position += len(part)
    return b"".join(parts)


def _header_length(path: Path, preamble: bytes, size: int) -> int:
    if len(preamble) < _PREAMBLE:
        raise FileFormatError(
            f"{path} has {size} bytes, a safetensors file at least {_PREAMBLE}: {_TRUNCATED}", advice=_TRUNCATED_ADVICE
        )
    length = int.from_bytes(preamble, "little")
    if length > MAX_HEADER_BYTES:
        raise FileFormatError(
            f"{path} announces a header of {length:,} bytes (at most {MAX_HEADER_BYTES:,}): {_DAMAGED}",
            advice=_DAMAGED_ADVICE,
        )
    if length > size - _PREAMBLE:
        raise FileFormatError(
            f"{path} announces a header of {length:,} bytes but has only {size:,}: {_TRUNCATED}",
            advice=_TRUNCATED_ADVICE,
        )
    return length


def _metadata(path: Path, value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise FileFormatError(
            f"{path}: __metadata__ is {shown(value)}, not an object of strings: {_DAMAGED}", advice=_DAMAGED_ADVICE
        )
    result: dict[str, str] = {}
    for key, text in value.items():
        if not isinstance(text, str):
            raise FileFormatError(
                f"{path}: __metadata__ {shown(key)} is {shown(text)}, not a string: {_DAMAGED}", advice=_DAMAGED_ADVICE
            )
        if _HALF_CHARACTER.search(key + text):
            raise FileFormatError(
                f"{path}: __metadata__ {shown(key)} holds half a character: {_DAMAGED}", advice=_DAMAGED_ADVICE
            )
        result[key] = text
    return result


def _entry(path: Path, name: str, value: object, data_start: int) -> TensorEntry:
    _check_name(path, name)
    if not isinstance(value, dict):
        _refuse(path, name, f"is described by {shown(value)}, not an object")
    _check_keys(path, name, value)
    item_size = _item_size(path, name, value["dtype"])
    shape = _shape(path, name, value["shape"])
    start, stop = _offsets(path, name, value["data_offsets"])
    expected = _count(path, name, shape) * item_size
    if stop - start != expected:
        _refuse(
            path,
            name,
            f"takes {stop - start:,} bytes where {value['dtype']} {list(shape)} needs {expected:,}",
        )
    return TensorEntry(name, str(value["dtype"]), shape, path, data_start + start, data_start + stop)


def _refuse(path: Path, name: str, problem: str) -> NoReturn:
    raise FileFormatError(f"{path}: tensor {shown(name)} {problem}: {_DAMAGED}", advice=_DAMAGED_ADVICE)


def _check_name(path: Path, name: str) -> None:
    if not name:
        _refuse(path, name, "has an empty name")
    if len(name) > MAX_NAME_LENGTH:
        _refuse(path, name, f"has a name of {len(name):,} characters (at most {MAX_NAME_LENGTH:,})")
    is_plain = name.isascii() and name.isprintable()
    if not is_plain and any(unicodedata.category(character) in _UNPRINTABLE for character in name):
        _refuse(path, name, "has control characters in its name")


def _check_keys(path: Path, name: str, value: JsonObject) -> None:
    expected = {"dtype", "shape", "data_offsets"}
    if missing := expected - value.keys():
        _refuse(path, name, f"lacks {', '.join(sorted(missing))}")
    if unknown := value.keys() - expected:
        _refuse(path, name, f"has the unknown field {shown(min(unknown))}")


def _item_size(path: Path, name: str, dtype: object) -> int:
    if isinstance(dtype, str) and dtype in ITEM_SIZES:
        return ITEM_SIZES[dtype]
    if isinstance(dtype, str) and dtype.startswith(("F4", "F6", "F8")) and len(dtype) <= 16:
        raise UnsupportedFormatError(
            f"{path}: tensor {shown(name)} has the quantized dtype {shown(dtype)}",
            advice="use the checkpoint it was made from, or dequantize it to bfloat16 first",
        )
    _refuse(path, name, f"has the unknown dtype {shown(dtype)} (known: {', '.join(ITEM_SIZES)})")


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < _MAX_COUNT


def _shape(path: Path, name: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(_is_count(dimension) for dimension in value):
        _refuse(path, name, f"has the shape {shown(value)}, not a list of whole numbers from 0 to 2^63")
    if len(value) > MAX_DIMENSIONS:
        _refuse(path, name, f"has {len(value):,} dimensions (at most {MAX_DIMENSIONS})")
    return tuple(value)


def _count(path: Path, name: str, shape: tuple[int, ...]) -> int:
    count = 1
    for dimension in shape:
        count *= dimension
        if count >= _MAX_COUNT:
            _refuse(path, name, f"has the shape {shown(list(shape))}, more elements than any file can hold")
    return count


def _offsets(path: Path, name: str, value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2 or not all(_is_count(offset) for offset in value):
        _refuse(path, name, f"has the offsets {shown(value)}, not two whole numbers from 0 to 2^63")
    start, stop = value
    if start > stop:
        _refuse(path, name, f"starts at byte {start:,} and stops before it at {stop:,}")
    return start, stop


def _check_layout(path: Path, entries: list[TensorEntry], data_start: int, size: int) -> None:
    """Tensors must tile the rest of the file: no overlap, no hole, nothing beyond or behind."""
    position = data_start
    for entry in entries:
        if entry.stop > size:
            raise FileFormatError(
                f"{path}: tensor {shown(entry.name)} ends at byte {entry.stop:,} of a file of {size:,}: {_TRUNCATED}",
                advice=_TRUNCATED_ADVICE,
            )
        if entry.start < position:
            _refuse(path, entry.name, f"overlaps the tensor before it by {position - entry.start:,} bytes")
        if entry.start > position:
            _refuse(path, entry.name, f"leaves a hole of {entry.start - position:,} bytes before it")
        position = entry.stop
    if position != size:
        raise FileFormatError(
            f"{path} has {size - position:,} bytes after its last tensor: {_DAMAGED}", advice=_DAMAGED_ADVICE
        )
