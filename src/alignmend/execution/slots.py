"""Where a stored tensor's elements go in a loaded model, which may name, group and order its parameters otherwise."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from alignmend.errors import MismatchError
from alignmend.io.architecture import follow
from alignmend.io.arrays import Array, Digits, cut, joined, length
from alignmend.io.tensors import TensorEntry

_LISTED = 3


@dataclass(frozen=True, eq=False)
class Place:
    """Elements of a stored tensor that follow each other, from `first` on, and where they are in a parameter."""

    first: int
    parameter: torch.Tensor
    offset: int
    """Of the first of them in the parameter's storage."""
    digits: Digits
    """Of their places there."""

    @property
    def stop(self) -> int:
        """One past the last of them in the stored tensor."""
        return self.first + length(self.digits)

    def views(self, start: int, stop: int) -> Iterator[tuple[int, torch.Tensor]]:
        """Views of the parameter that hold elements `[start, stop)` in order; where each begins, behind `start`."""
        for shift, digits, offset in cut(self.digits, start - self.first, stop - self.first):
            counts, strides = [count for count, _ in digits], [stride for _, stride in digits]
            yield shift, torch.as_strided(self.parameter, counts, strides, self.offset + offset)


@dataclass(frozen=True, eq=False)
class Slot:
    """A stored tensor in a loaded model."""

    places: tuple[Place, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """How many elements it has there."""
        return sum(place.stop - place.first for place in self.places)

    def put(self, start: int, values: torch.Tensor) -> None:
        """Write values [elements], from the stored tensor's element `start` on, rounded to the parameter's dtype."""
        for shift, view in self._views(start, start + values.numel()):
            view.copy_(values[shift : shift + view.numel()].view(view.shape))

    def read(self) -> torch.Tensor:
        """A copy of its elements, flat, in the order in which they are stored."""
        stop = max(place.stop for place in self.places)
        return torch.cat([view.reshape(-1) for _, view in self._views(0, stop)])

    def _views(self, start: int, stop: int) -> Iterator[tuple[int, torch.Tensor]]:
        for place in self.places:
            first, last = max(start, place.first), min(stop, place.stop)
            if first < last:
                for shift, view in place.views(first, last):
                    yield first - start + shift, view


def slots_of(model: Any, stored: Mapping[str, TensorEntry]) -> dict[str, Slot]:
    """Stored name -> where its elements are in `model`, a `transformers` model; what it does not load is left out.

    Raises `MismatchError` where the model has a parameter that the stored tensors do not fill.
    """
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    if not _unfilled(state, stored):
        return {name: _whole(state[name], stored[name]) for name in stored if name in state}
    layout = follow(model, {name: entry.shape for name, entry in stored.items()})
    filled = {name for name, array in layout.parameters.items() if array.is_whole()}
    if missing := _unfilled(state, filled):
        raise MismatchError(
            f"the loaded model has tensors that its files do not name ({', '.join(missing[:_LISTED])}): weights of "
            "this architecture cannot be switched in memory"
        )
    places: dict[str, list[Place]] = defaultdict(list)
    for name in sorted(filled):
        for source, place in _places(layout.parameters[name], state[name]):
            places[source].append(place)
    return {
        name: Slot(tuple(sorted(found, key=lambda place: place.first)), found[0].parameter.dtype)
        for name, found in places.items()
    }


def _unfilled(state: Mapping[str, torch.Tensor], names: Any) -> list[str]:
    """Tensors of the model that are not in the files, themselves or as one that shares their memory."""
    memory = {state[name].data_ptr() for name in names if name in state}
    return [name for name, tensor in state.items() if name not in names and tensor.data_ptr() not in memory]


def _whole(parameter: torch.Tensor, entry: TensorEntry) -> Slot:
    if tuple(parameter.shape) != entry.shape:
        raise MismatchError(
            f"{entry.name} is {list(parameter.shape)} in the model and {list(entry.shape)} in {entry.path.parent.name}"
        )
    digits = joined(tuple(zip(parameter.shape, parameter.stride(), strict=True)))
    return Slot((Place(0, parameter, int(parameter.storage_offset()), digits),), parameter.dtype)


def _places(array: Array, parameter: torch.Tensor) -> Iterator[tuple[str, Place]]:
    """Stored name -> the place of its elements, for every box of a parameter."""
    for box in array.boxes:
        offset = int(parameter.storage_offset())
        digits: list[tuple[int, int, int]] = []  # count, distance in the stored tensor, distance in the parameter
        for low, steps, stride in zip(box.low, box.steps, parameter.stride(), strict=True):
            offset += low * stride
            inner = length(steps)
            for count, distance in steps:
                inner //= count
                digits.append((count, distance, stride * inner))
        ordered = sorted((digit for digit in digits if digit[0] > 1), key=lambda digit: -digit[1])
        for first, where, found in _dense(box.offset, offset, ordered):
            yield box.source, Place(first, parameter, where, found)


def _dense(first: int, offset: int, digits: list[tuple[int, int, int]]) -> Iterator[tuple[int, int, Digits]]:
    """Parts of the stored tensor without gaps: where each begins, there and in the parameter, and its digits."""
    counts = [count for count, _, _ in digits]
    if all(distance == math.prod(counts[at + 1 :]) for at, (_, distance, _) in enumerate(digits)):
        yield first, offset, joined(tuple((count, stride) for count, _, stride in digits))
        return
    count, distance, stride = digits[0]
    for index in range(count):
        yield from _dense(first + index * distance, offset + index * stride, digits[1:])
