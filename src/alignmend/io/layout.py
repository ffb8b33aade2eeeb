"""How a model's parameters lie in the tensors of a checkpoint: one model may be stored in several ways."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from alignmend.errors import LayoutError
from alignmend.io.arrays import Array, Box, Digits, permuted, placed, reshaped, taken


@dataclass(frozen=True)
class Layout:
    """What `transformers` makes of a checkpoint's tensors."""

    parameters: Mapping[str, Array]
    """Name in the model -> where its elements lie in stored tensors, for all that it loads."""
    names: frozenset[str]
    """All names in the model, also of what the checkpoint lacks."""
    buffers: frozenset[str]
    """Those in the model that are not trained."""
    unused: frozenset[str]
    """Stored tensors that the model does not load."""
    misfits: Mapping[str, str]
    """Name in the model -> the stored tensor that has its name and another shape, as after a resize."""
    tied: Mapping[str, str]
    """Name in the model -> that of the parameter that it shares, such as the output head's and the embedding's."""

    def unfilled(self) -> list[str]:
        """Trained parameters that the checkpoint does not fill, neither under their own name nor under a tied one."""
        filled = {name for name, array in self.parameters.items() if array.is_whole()}
        for one, other in self.tied.items():
            if one in filled or other in filled:
                filled |= {one, other}
        return sorted(self.names - filled - self.buffers)

    def untrained(self) -> frozenset[str]:
        """Stored tensors without which the model has all its trained weights: unused ones, and buffers."""
        parameters: dict[str, set[str]] = defaultdict(set)
        for name, array in self.parameters.items():
            for box in array.boxes:
                parameters[box.source].add(name)
        return self.unused | {stored for stored, names in parameters.items() if names <= self.buffers}


def stored_as(own: Layout, other: Layout) -> dict[str, Array]:
    """Tensors of the checkpoint of `own` -> where the same elements lie in the checkpoint of `other`.

    Both are layouts of one model. A tensor of which the other checkpoint does not have every element is left out.
    """
    pieces: dict[str, list[tuple[int, Digits, Array]]] = defaultdict(list)
    for name, mine in own.parameters.items():
        if (theirs := other.parameters.get(name)) is not None:
            regions = {(box.low, box.sizes): box for box in theirs.boxes}
            for box in mine.boxes:
                try:
                    pieces[box.source].append(_piece(box, theirs, regions))
                except LayoutError:
                    continue
    return {stored: _assembled(found) for stored, found in pieces.items()}


def _piece(
    box: Box, theirs: Array, regions: Mapping[tuple[tuple[int, ...], tuple[int, ...]], Box]
) -> tuple[int, Digits, Array]:
    """What a box holds, in the order in which it lies in its own source: where that begins, its digits, the array."""
    if (same := regions.get((box.low, box.sizes))) is not None:
        part = Array(box.sizes, (Box((0,) * len(box.low), same.steps, same.source, same.offset),))
    else:
        part = theirs
        for dimension, (low, size) in enumerate(zip(box.low, box.sizes, strict=True)):
            part = taken(part, dimension, low, low + size)
    digits = [digit for steps in box.steps for digit in steps]
    part = reshaped(part, tuple(count for count, _ in digits))
    order = sorted(range(len(digits)), key=lambda place: -digits[place][1])
    return box.offset, tuple(digits[place] for place in order), permuted(part, order)


def _assembled(pieces: list[tuple[int, Digits, Array]]) -> Array:
    """A stored tensor put together, flat."""
    parts = [dense for piece in pieces for dense in _dense(*piece)]
    size = max(offset + part.shape[0] for offset, part in parts)
    return placed((size,), [((offset,), part) for offset, part in parts])


def _dense(offset: int, digits: Digits, part: Array) -> Iterator[tuple[int, Array]]:
    """The parts of an array that lie without gaps, flat, and where each begins."""
    counts = [count for count, _ in digits]
    gaps = any(count > 1 and stride != math.prod(counts[place + 1 :]) for place, (count, stride) in enumerate(digits))
    if not gaps:
        yield offset, reshaped(part, (math.prod(counts),))
        return
    for index in range(counts[0]):
        row = reshaped(taken(part, 0, index, index + 1), tuple(counts[1:]))
        yield from _dense(offset + index * digits[0][1], digits[1:], row)
