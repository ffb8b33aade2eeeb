"""A tensor whose elements lie in several ranges, files or orders: which, and how they are read."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from alignmend.io.arrays import Array, Digits, Shape, cut, joined, length, reshaped
from alignmend.io.tensors import TensorEntry

if TYPE_CHECKING:
    import numpy as np

Reader: TypeAlias = Callable[[Path, int, memoryview], None]
"""Fills a buffer from a position of a file."""
_SPAN = 64 << 20
"""Bytes that are read at once to pick some of them."""


@dataclass(frozen=True, slots=True)
class Run:
    """Elements that follow each other in a tensor, and lie at steady distances in a stored one."""

    first: int
    """The first of them in the tensor."""
    source: TensorEntry | None
    """None for zeros."""
    offset: int
    """Where it lies, in elements of the source."""
    digits: Digits

    @property
    def stop(self) -> int:
        """One past the last of them in the tensor."""
        return self.first + length(self.digits)

    @property
    def plain(self) -> tuple[Path, int] | None:
        """The file and the byte where they begin, if they lie there side by side as in the tensor."""
        source = self.source
        if source is None or source.runs is not None or len(self.digits) > 1 or self.digits[0][1] != 1:
            return None
        return source.path, source.start + self.offset * source.item_size


class Runs:
    """The runs of one tensor, in order and without gaps. Equal where all of them are."""

    def __init__(self, runs: tuple[Run, ...], item_size: int) -> None:
        self.runs, self.item_size = runs, item_size
        self._starts = [run.first for run in runs]
        # Entries are keys of many tables: a digest is cheaper to compare than a thousand runs.
        self._digest = hashlib.sha256(repr(runs).encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Runs) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    def __repr__(self) -> str:
        return f"Runs({len(self.runs)}, {self._digest[:16]})"

    def between(self, start: int, stop: int) -> tuple[Run, ...]:
        """Those that hold elements of `[start, stop)`."""
        first = bisect.bisect_right(self._starts, start) - 1
        return self.runs[max(first, 0) : bisect.bisect_left(self._starts, stop)]

    def read(self, start: int, buffer: memoryview, read: Reader) -> None:
        """Fill `buffer` with the tensor's bytes from its element `start` on."""
        size = self.item_size
        stop = start + len(buffer) // size
        for run in self.between(start, stop):
            first, last = max(start, run.first), min(stop, run.stop)
            part = buffer[(first - start) * size : (last - start) * size]
            if run.source is None:
                part[:] = bytes(len(part))
            elif run.source.runs is not None and len(run.digits) == 1 and run.digits[0][1] == 1:
                run.source.runs.read(run.offset + first - run.first, part, read)
            elif (plain := run.plain) is not None:
                read(plain[0], plain[1] + (first - run.first) * size, part)
            else:
                _pick(run, run.source, (first - run.first, last - run.first), part, read)


def _pick(run: Run, source: TensorEntry, places: tuple[int, int], buffer: memoryview, read: Reader) -> None:
    """Elements `[start, stop)` of a run that do not lie side by side."""
    import numpy as np

    flat = np.frombuffer(buffer, dtype=f"u{source.item_size}")
    for shift, digits, offset in cut(run.digits, *places):
        block = flat[shift : shift + length(digits)].reshape([count for count, _ in digits])
        _fill(block, [stride for _, stride in digits], source, run.offset + offset, read)


def _fill(block: np.ndarray[Any, Any], strides: list[int], source: TensorEntry, offset: int, read: Reader) -> None:
    import numpy as np

    size = source.item_size
    span = 1 + sum((count - 1) * stride for count, stride in zip(block.shape, strides, strict=True))
    if span * size > _SPAN and max(block.shape, default=1) > 1:
        widest = max(range(len(strides)), key=lambda place: (block.shape[place] > 1, strides[place]))
        rest = [*strides[:widest], *strides[widest + 1 :]]
        for index, part in enumerate(np.moveaxis(block, widest, 0)):
            _fill(part, rest, source, offset + index * strides[widest], read)
        return
    raw = np.empty(span, dtype=block.dtype)
    if source.runs is None:
        read(source.path, source.start + offset * size, raw.view(np.uint8).data)
    else:
        source.runs.read(offset, raw.view(np.uint8).data, read)
    block[...] = np.lib.stride_tricks.as_strided(raw, block.shape, [stride * size for stride in strides])


def runs_of(array: Array, sources: Mapping[str, TensorEntry]) -> tuple[Run, ...]:
    """A whole array, row after row; neighbours that also are neighbours in their source become one run."""
    found: list[Run] = []
    for box in sorted(reshaped(array, (_size(array),)).boxes, key=lambda box: box.low):
        run = Run(box.low[0], sources[box.source], box.offset, joined(box.steps[0]))
        last = found[-1] if found else None
        if (
            last is not None
            and run.plain is not None
            and last.plain is not None
            and last.source == run.source
            and last.offset + length(last.digits) == run.offset
        ):
            found[-1] = Run(last.first, last.source, last.offset, ((length(last.digits) + length(run.digits), 1),))
        else:
            found.append(run)
    return tuple(found)


def entry_of(name: str, shape: Shape, array: Array, sources: Mapping[str, TensorEntry]) -> TensorEntry | None:
    """A tensor whose elements, row after row, are a whole array's; None where its sources have several dtypes."""
    runs = runs_of(array, sources)
    dtypes = {run.source.dtype for run in runs if run.source is not None}
    first = runs[0].source if runs else None
    if len(dtypes) != 1 or first is None:
        return None
    size = _size(array) * first.item_size
    if len(runs) == 1 and (plain := runs[0].plain) is not None:
        return TensorEntry(name, first.dtype, shape, plain[0], plain[1], plain[1] + size)
    return TensorEntry(name, first.dtype, shape, first.path, 0, size, Runs(runs, first.item_size))


def _size(array: Array) -> int:
    return length(tuple((count, 1) for count in array.shape))
