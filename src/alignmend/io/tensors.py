"""What a header says about one tensor, before any of its bytes are read; or what several say that are seen as one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alignmend.io.runs import Runs

ITEM_SIZES: dict[str, int] = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1,
    "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "C64": 8,
}  # fmt: skip
"""Bytes per element of each safetensors dtype that can be copied."""

ARITHMETIC_DTYPES = frozenset({"F32", "F16", "BF16"})
"""Dtypes that expressions may read and write."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor in one safetensors file: where its bytes lie, none of them read."""

    name: str
    dtype: str
    """A safetensors dtype name, such as `BF16`."""
    shape: tuple[int, ...]
    path: Path
    """The file that holds it."""
    start: int
    """Absolute offset of the first byte in the file."""
    stop: int
    """Absolute offset one past the last byte."""
    runs: Runs | None = None
    """Where its elements lie, where they are no range of one file: then start and stop only tell how many there are."""

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def item_size(self) -> int:
        """Bytes per element."""
        return ITEM_SIZES[self.dtype]

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return self.stop - self.start
