"""Where the elements of an array lie in other arrays, after stacking, cutting, transposing and reshaping: no bytes.

An array is a set of boxes. Within a box the place in the source is linear in the index of every dimension, or in its
digits: `((3, 8), (4, 1))` says that index `4 * i + j` lies `8 * i + j` elements behind the box's offset.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

from alignmend.errors import LayoutError

Item = TypeVar("Item")
Digits: TypeAlias = tuple[tuple[int, int], ...]
"""(count, stride) of each digit of an index, the slowest first."""
Shape: TypeAlias = tuple[int, ...]


def length(digits: Digits) -> int:
    """How many indices the digits count."""
    return math.prod(count for count, _ in digits)


def joined(digits: Digits) -> Digits:
    """With as few digits as tell the same."""
    found: list[tuple[int, int]] = []
    for count, stride in digits:
        if count == 1:
            continue
        if found and found[-1][1] == count * stride:
            found[-1] = (found[-1][0] * count, stride)
        else:
            found.append((count, stride))
    return tuple(found) or ((1, 1),)


@dataclass(frozen=True, slots=True)
class Box:
    """A part of an array that lies in one source."""

    low: Shape
    """Its first index in each dimension."""
    steps: tuple[Digits, ...]
    """By dimension: where the next element lies."""
    source: str
    offset: int
    """Of its first element, in elements of the source."""

    @property
    def sizes(self) -> Shape:
        """Its length in each dimension."""
        return tuple(map(length, self.steps))


@dataclass(frozen=True)
class Array:
    """Boxes that fill a shape."""

    shape: Shape
    boxes: tuple[Box, ...]

    def is_whole(self) -> bool:
        """Whether every element is in a box; boxes never overlap."""
        return sum(math.prod(box.sizes) for box in self.boxes) == math.prod(self.shape)


def source_array(source: str, shape: Shape) -> Array:
    """A stored array as it is, row after row."""
    strides = [math.prod(shape[place + 1 :]) for place in range(len(shape))]
    steps = tuple(((count, stride),) for count, stride in zip(shape, strides, strict=True))
    return Array(shape, (Box((0,) * len(shape), steps, source, 0),))


def placed(shape: Shape, parts: Sequence[tuple[Shape, Array]]) -> Array:
    """Arrays put into a larger one, each from its lowest index on."""
    boxes = (
        replace(box, low=tuple(map(sum, zip(box.low, low, strict=True)))) for low, part in parts for box in part.boxes
    )
    return Array(shape, tuple(boxes))


def concatenated(arrays: Sequence[Array], dimension: int) -> Array:
    """Arrays one after the other along a dimension."""
    first, position, parts = arrays[0].shape, 0, []
    for array in arrays:
        low = [0] * len(first)
        low[dimension] = position
        parts.append((tuple(low), array))
        position += array.shape[dimension]
    return placed((*first[:dimension], position, *first[dimension + 1 :]), parts)


def unsqueezed(array: Array, dimension: int) -> Array:
    """With a new dimension of length 1."""
    boxes = (
        replace(
            box,
            low=(*box.low[:dimension], 0, *box.low[dimension:]),
            steps=(*box.steps[:dimension], ((1, 0),), *box.steps[dimension:]),
        )
        for box in array.boxes
    )
    return Array((*array.shape[:dimension], 1, *array.shape[dimension:]), tuple(boxes))


def stacked(arrays: Sequence[Array], dimension: int) -> Array:
    """Arrays of one shape along a new dimension."""
    return concatenated([unsqueezed(array, dimension) for array in arrays], dimension)


def permuted(array: Array, order: Sequence[int]) -> Array:
    """The dimensions in another order."""
    boxes = (
        replace(box, low=tuple(box.low[one] for one in order), steps=tuple(box.steps[one] for one in order))
        for box in array.boxes
    )
    return Array(tuple(array.shape[one] for one in order), tuple(boxes))


def taken(array: Array, dimension: int, start: int, stop: int) -> Array:
    """Indices `[start, stop)` of one dimension."""
    boxes: list[Box] = []
    for box in array.boxes:
        low = box.low[dimension]
        first, last = max(start, low), min(stop, low + box.sizes[dimension])
        for shift, digits, offset in cut(box.steps[dimension], first - low, last - low):
            boxes.append(
                Box(
                    _put(box.low, dimension, first - start + shift),
                    _put(box.steps, dimension, digits),
                    box.source,
                    box.offset + offset,
                )
            )
    return Array(_put(array.shape, dimension, stop - start), tuple(boxes))


def _put(items: tuple[Item, ...], place: int, item: Item) -> tuple[Item, ...]:
    return (*items[:place], item, *items[place + 1 :])


def cut(digits: Digits, start: int, stop: int) -> Iterator[tuple[int, Digits, int]]:
    """Indices `[start, stop)` of digits: how far behind the start each part begins, its digits, its offset."""
    if start >= stop:
        return
    (_, stride), *rest = digits
    inner = length(tuple(rest))
    first, last = start // inner, -(-stop // inner)
    if start % inner == stop % inner == 0:
        yield 0, ((last - first, stride), *rest), first * stride
    elif last - first == 1:
        for shift, found, offset in cut(tuple(rest), start - first * inner, stop - first * inner):
            yield shift, found, first * stride + offset
    else:
        middle = (first + 1) * inner if start % inner else (last - 1) * inner
        yield from cut(digits, start, middle)
        for shift, found, offset in cut(digits, middle, stop):
            yield middle - start + shift, found, offset


def reshaped(array: Array, shape: Shape) -> Array:
    """The same elements in the same order, row after row, in another shape."""
    if array.shape == shape:
        return array
    flat = array
    while len(flat.shape) > 1:
        flat = _merged(flat)
    if not flat.shape:
        flat = unsqueezed(flat, 0)
    for inner in (math.prod(shape[place:]) for place in range(1, len(shape))):
        flat = _split(flat, inner)
    return Array(shape, flat.boxes) if shape else Array((), tuple(replace(b, low=(), steps=()) for b in flat.boxes))


def _merged(array: Array) -> Array:
    """The last two dimensions as one."""
    inner = array.shape[-1]
    boxes: list[Box] = []
    for box in array.boxes:
        (outer, last), low = box.steps[-2:], box.low
        if (low[-1] == 0 and length(last) == inner) or length(outer) == 1:
            merged = (*outer, *last) if length(outer) > 1 else last
            boxes.append(replace(box, low=(*low[:-2], low[-2] * inner + low[-1]), steps=(*box.steps[:-2], merged)))
            continue
        for index, place in enumerate(places(outer)):
            boxes.append(
                Box(
                    (*low[:-2], (low[-2] + index) * inner + low[-1]),
                    (*box.steps[:-2], last),
                    box.source,
                    box.offset + place,
                )
            )
    return Array((*array.shape[:-2], array.shape[-2] * inner), tuple(boxes))


def places(digits: Digits) -> Iterator[int]:
    """Offset of every index, in order."""
    if not digits:
        yield 0
        return
    (count, stride), *rest = digits
    for index in range(count):
        for place in places(tuple(rest)):
            yield index * stride + place


def _split(array: Array, inner: int) -> Array:
    """The last dimension as two, the second of length `inner`; raises `LayoutError` where a box ends within a row."""
    boxes: list[Box] = []
    for box in array.boxes:
        low, digits = box.low[-1], box.steps[-1]
        divided = _divided(digits, inner) if low % inner == length(digits) % inner == 0 else None
        if divided is None:
            raise LayoutError(f"a reshape to {array.shape[-1] // inner} x {inner} cuts what lies together")
        boxes.append(replace(box, low=(*box.low[:-1], low // inner, 0), steps=(*box.steps[:-1], *divided)))
    return Array((*array.shape[:-1], array.shape[-1] // inner, inner), tuple(boxes))


def _divided(digits: Digits, inner: int) -> tuple[Digits, Digits] | None:
    """The digits as those of a row and those within it; None where a digit counts across rows."""
    outer, left = list(digits), inner
    last: list[tuple[int, int]] = []
    while left > 1:
        count, stride = outer.pop()
        if left % count == 0:
            last.insert(0, (count, stride))
            left //= count
        elif count % left == 0:
            last.insert(0, (left, stride))
            outer.append((count // left, stride * left))
            left = 1
        else:
            return None
    return tuple(outer) or ((1, 0),), tuple(last) or ((1, 0),)
