"""Where a sparse tensor's numbers stand: found by binary search in the file, read a block at a time."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from alignmend.algebra.programs import Scattered
from alignmend.errors import FileFormatError
from alignmend.execution.files import Files
from alignmend.io.tensors import TensorEntry

Indices: TypeAlias = npt.NDArray[np.int64]


class Places:
    """Looks up increasing flat indices. One per thread."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._ends: dict[TensorEntry, tuple[int, int]] = {}
        """Where the block before ended, and how many indices lie below: the next one usually begins there."""

    def between(self, part: Scattered, start: int, stop: int) -> tuple[int, torch.Tensor]:
        """The position of the first index in `[start, stop)`, and all of these indices less `start`, int64.

        Raises `FileFormatError` where the indices do not increase, or go beyond the tensor's size.
        """
        indices = part.indices
        known, first = self._ends.get(indices, (0, 0))
        if known != start:
            first = self._below(indices, start, 0)
        last = indices.size if stop == part.size else self._below(indices, stop, first)
        found = self._read(indices, first, last) if last - first <= stop - start else None
        if found is None or not _increase(found, start, stop):
            raise FileFormatError(
                f"{indices.path}: {indices.name} are not increasing places in {part.size:,} weights: the file is "
                "damaged, save the delta again"
            )
        self._ends[indices] = stop, last
        return first, torch.from_numpy(found - start)

    def _below(self, indices: TensorEntry, bound: int, low: int) -> int:
        """How many indices are less than `bound`, at least `low`."""
        high = indices.size
        while low < high:
            middle = (low + high) // 2
            if self._read(indices, middle, middle + 1)[0] < bound:
                low = middle + 1
            else:
                high = middle
        return low

    def _read(self, indices: TensorEntry, first: int, last: int) -> Indices:
        found = np.empty(last - first, dtype=np.int32 if indices.dtype == "I32" else np.int64)
        self._files.read(indices, first, found.view(np.uint8).data)
        return found.astype(np.int64)


def _increase(found: Indices, start: int, stop: int) -> bool:
    inside = found.size == 0 or bool(start <= found[0] and found[-1] < stop)
    return inside and bool((np.diff(found) > 0).all())
