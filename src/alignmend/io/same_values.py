"""Whether two stored tensors hold the same values: read a few megabytes at a time, up to the first difference."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignmend.errors import FileFormatError
from alignmend.io.tensors import ARITHMETIC_DTYPES, TensorEntry

if TYPE_CHECKING:
    import numpy as np

_BLOCK = 1 << 20
"""Elements that are compared at once."""


def same_values(one: TensorEntry, other: TensorEntry, *, first: int | None = None) -> bool:
    """Whether all elements are equal, or the `first` ones in the order in which they are stored.

    Tensors of another size are not equal. Floats of two dtypes are compared as numbers; otherwise bytes are. Raises
    `FileFormatError` where a file cannot be read.
    """
    size = one.size if first is None else first
    if (first is None and one.shape != other.shape) or min(one.size, other.size) < size:
        return False
    alike = one.dtype == other.dtype
    if not alike and not {one.dtype, other.dtype} <= ARITHMETIC_DTYPES:
        return False
    blocks = (_blocks(entry, size) for entry in (one, other))
    return all(left == right if alike else _equal(left, one, right, other) for left, right in zip(*blocks, strict=True))


def same_transposed(one: TensorEntry, other: TensorEntry) -> bool:
    """Whether a matrix is the transpose of another; both are held in memory, as factors of low rank can be."""
    if len(one.shape) != 2 or one.shape != other.shape[::-1] or not {one.dtype, other.dtype} <= ARITHMETIC_DTYPES:
        return False
    left, right = (_numbers(b"".join(_blocks(entry, entry.size)), entry).reshape(entry.shape) for entry in (one, other))
    return bool((left == right.T).all())


def _blocks(entry: TensorEntry, size: int) -> Iterator[bytes]:
    for start in range(0, size, _BLOCK):
        buffer = bytearray((min(start + _BLOCK, size) - start) * entry.item_size)
        try:
            if entry.runs is None:
                _fill(entry.path, entry.start + start * entry.item_size, memoryview(buffer))
            else:
                entry.runs.read(start, memoryview(buffer), _fill)
        except OSError as error:
            raise FileFormatError(f"{entry.path}: cannot read {entry.name}: {error.strerror or error}") from None
        yield bytes(buffer)


def _fill(path: Path, position: int, buffer: memoryview) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        done = 0
        while done < len(buffer):
            count = os.preadv(descriptor, [buffer[done:]], position + done)
            if count == 0:
                raise OSError(f"{path} became shorter while it was read")
            done += count
    finally:
        os.close(descriptor)


def _equal(left: bytes, one: TensorEntry, right: bytes, other: TensorEntry) -> bool:
    return bool((_numbers(left, one) == _numbers(right, other)).all())


def _numbers(raw: bytes, entry: TensorEntry) -> np.ndarray[Any, Any]:
    """As float32; bfloat16 is its upper half."""
    import numpy as np

    if entry.dtype == "BF16":
        return (np.frombuffer(raw, dtype="<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(raw, dtype="<f2" if entry.dtype == "F16" else "<f4").astype(np.float32)
