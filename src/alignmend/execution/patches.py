"""What labelled masks kept: counted and measured while the weights are written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from alignmend.io.manifest import Patch, PatchTensor


@dataclass(frozen=True)
class Tally:
    """One labelled part of a change, on some elements."""

    label: str
    kept: int
    weights: int
    """Out of how many."""
    products: tuple[float, ...]
    """Inner products with the labelled parts up to this one, in order; the last is with itself."""


Tallies = tuple[Tally, ...]
ByTensor = Mapping[str, Sequence[Tallies]]
"""What the pieces of each tensor came to."""


def added(parts: Sequence[Tallies]) -> Tallies:
    """The tallies of several ranges of one tensor together; the same labels occur in all."""
    return tuple(
        Tally(
            same[0].label,
            sum(one.kept for one in same),
            sum(one.weights for one in same),
            tuple(math.fsum(column) for column in zip(*(one.products for one in same), strict=True)),
        )
        for same in zip(*parts, strict=True)
    )


def patch_records(tensors: ByTensor) -> list[Patch]:
    """What the manifest tells of each label, over all tensors and tensor by tensor."""
    whole = {name: added(parts) for name, parts in tensors.items()}
    labels = dict.fromkeys(tally.label for tallies in whole.values() for tally in tallies)
    return [_patch(label, whole) for label in labels]


def _patch(label: str, tensors: Mapping[str, Tallies]) -> Patch:
    mine = {name: one for name, tallies in tensors.items() for one in tallies if one.label == label}
    return Patch(
        label=label,
        kept=sum(one.kept for one in mine.values()),
        weights=sum(one.weights for one in mine.values()),
        norm=_digits(_norm(label, tensors.values())),
        cosines=_cosines(label, tensors.values()),
        tensors=[
            PatchTensor(
                name=name,
                kept=one.kept,
                weights=one.weights,
                norm=_digits(_norm(label, [tensors[name]])),
                cosines=_cosines(label, [tensors[name]]),
            )
            for name, one in mine.items()
        ],
    )


def _norm(label: str, tensors: Iterable[Tallies]) -> float:
    return math.sqrt(_product(label, label, tensors))


def _product(left: str, right: str, tensors: Iterable[Tallies]) -> float:
    found = []
    for tallies in tensors:
        places = {one.label: place for place, one in enumerate(tallies)}
        if left in places and right in places:
            first, last = sorted((places[left], places[right]))
            found.append(tallies[last].products[first])
    return math.fsum(found)


def _cosines(label: str, tensors: Iterable[Tallies]) -> dict[str, float | None]:
    """With the labels before this one; None where one of the two is zero."""
    tensors = list(tensors)
    others: dict[str, None] = {}
    for tallies in tensors:
        names = [one.label for one in tallies]
        others |= dict.fromkeys(names[: names.index(label)] if label in names else [])
    found: dict[str, float | None] = {}
    for other in others:
        size = _norm(label, tensors) * _norm(other, tensors)
        found[other] = _digits(_product(label, other, tensors) / size) if size > 0 else None
    return found


def _digits(value: float) -> float:
    return float(f"{value:.6g}")
