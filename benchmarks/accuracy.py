"""How far an output is from the same arithmetic in float64, in units of one bfloat16 rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from math import inf, prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.recipes import TRIM
from benchmarks.synthetic import ADAPTER, ADAPTER_ALPHA, ADAPTER_RANK, Family
from benchmarks.tensorfile import StoredTensor, stored_tensors

Values = NDArray[np.float64]
Reference = Callable[[str, int, int], tuple[Values, ...]]
"""(tensor name, flat start, flat stop) -> the terms of the sum, in float64."""
SAMPLE = 1 << 16
TRIM_REFERENCE_LIMIT = 10**8
MANTISSA_BITS, SMALLEST_EXPONENT = 7, -126
TWO_FLOAT32_ROUNDINGS = 2.0**-15
RESTA = ("alignmend-resta", "load-add-save", "mergekit-linear", "mergekit-task-arithmetic")
ADAPTER_MERGES = ("alignmend-adapter", "peft-merge")
TRIMS = {"alignmend-trim": "unaligned", "alignmend-hdr": "unaligned", "alignmend-trim-sparse": "sparse"}


@dataclass(frozen=True)
class Accuracy:
    """Of `elements` sampled ones: the largest error in units of the bfloat16 spacing at the exact value (0.5 is
    perfect rounding), and the share that equals the correctly rounded exact value.

    Where the terms cancel so far that this spacing is below two float32 roundings of the largest term, those are the
    unit: no float32 sum can do better there.
    """

    contender: str
    elements: int
    largest_error: float
    correctly_rounded: float

    def as_record(self) -> dict[str, object]:
        return asdict(self)


def check(family: Family, name: str, output: Path, coefficient: float) -> Accuracy | None:
    """The accuracy of what contender `name` wrote to `output`; None where there is no reference for it.

    An output with other tensors or shapes than the inputs has an infinite error.
    """
    reference = _reference(family, name.removesuffix("-hashed"), coefficient)
    if reference is None:
        return None
    written, expected = stored_tensors(output), family.shape.tensors()
    if {key: tensor.shape for key, tensor in written.items()} != expected:
        return Accuracy(name, 0, inf, 0.0)
    return _compare(name, written, reference)


def _compare(name: str, written: Mapping[str, StoredTensor], reference: Reference) -> Accuracy:
    largest, right, elements = 0.0, 0, 0
    for key, tensor in written.items():
        for start, stop in _samples(tensor):
            terms, seen = reference(key, start, stop), tensor.values(start, stop)
            exact = np.sum(terms, axis=0)
            spacing = bfloat16_spacing(exact)
            reachable = TWO_FLOAT32_ROUNDINGS * bfloat16_spacing(np.max(np.abs(terms), axis=0))
            largest = max(largest, float(np.max(np.abs(seen - exact) / np.maximum(spacing, reachable))))
            right += int(np.count_nonzero(seen == np.rint(exact / spacing) * spacing))
            elements += seen.size
    return Accuracy(name, elements, largest, right / elements)


def bfloat16_spacing(values: Values) -> Values:
    """The distance between neighbouring bfloat16 numbers at each of `values`."""
    exponents = np.where(values == 0, SMALLEST_EXPONENT, np.frexp(values)[1] - 1)
    exponents = np.maximum(exponents, SMALLEST_EXPONENT) - MANTISSA_BITS
    spacing: Values = np.ldexp(np.ones_like(values), exponents)
    return spacing


def _samples(tensor: StoredTensor) -> Iterator[tuple[int, int]]:
    """Whole rows at the start, the middle and the end, as flat ranges."""
    width = tensor.shape[-1]
    rows = tensor.size // width
    count = min(rows, max(1, SAMPLE // width))
    for first in sorted({0, (rows - count) // 2, rows - count}):
        yield first * width, (first + count) * width


def _reference(family: Family, name: str, coefficient: float) -> Reference | None:
    if name in RESTA:
        return _resta(family, coefficient)
    if name in ADAPTER_MERGES:
        return _adapter_merge(family)
    if name in TRIMS and family.shape.byte_count() <= TRIM_REFERENCE_LIMIT:
        return _trim(family, TRIMS[name], coefficient)
    return None


def _resta(family: Family, coefficient: float) -> Reference:
    finetuned, aligned, unaligned = (
        stored_tensors(family.path(role)) for role in ("finetuned", "aligned", "unaligned")
    )

    def terms(name: str, start: int, stop: int) -> tuple[Values, ...]:
        step = aligned[name].values(start, stop) - unaligned[name].values(start, stop)
        return finetuned[name].values(start, stop), coefficient * step

    return terms


def _adapter_merge(family: Family) -> Reference:
    base, factors = stored_tensors(family.path("aligned")), stored_tensors(family.path(ADAPTER))

    def terms(name: str, start: int, stop: int) -> tuple[Values, ...]:
        values = base[name].values(start, stop)
        prefix = "base_model.model." + name.removesuffix("weight")
        if (first := factors.get(f"{prefix}lora_A.weight")) is None:
            return (values,)
        second, width = factors[f"{prefix}lora_B.weight"], first.shape[1]
        left = second.values(start // width * ADAPTER_RANK, stop // width * ADAPTER_RANK)
        right = first.values(0, prod(first.shape)).reshape(first.shape)
        product: Values = left.reshape(-1, ADAPTER_RANK) @ right
        return values, ADAPTER_ALPHA / ADAPTER_RANK * product.reshape(-1)

    return terms


def _trim(family: Family, harmful: str, coefficient: float) -> Reference:
    """The exact model-wide trim by a full sort; ties in the order of (tensor name, flat index), layer 2 before 10."""
    target, base, other = (stored_tensors(family.path(role)) for role in ("finetuned", "aligned", harmful))
    names = sorted(target, key=lambda name: [(part.zfill(8) if part.isdigit() else part) for part in name.split(".")])
    steps = {name: _all(other[name]) - _all(base[name]) for name in names}
    joined = np.concatenate([steps[name] for name in names])
    kept = np.zeros(joined.size, bool)
    kept[np.argsort(-np.abs(joined), kind="stable")[: round(TRIM * joined.size)]] = True
    ends = np.cumsum([steps[name].size for name in names])[:-1]
    masks = dict(zip(names, np.split(kept, ends), strict=True))

    def terms(name: str, start: int, stop: int) -> tuple[Values, ...]:
        kept_step = np.where(masks[name], steps[name], 0.0)[start:stop]
        return target[name].values(start, stop), -coefficient * kept_step

    return terms


def _all(tensor: StoredTensor) -> Values:
    return tensor.values(0, tensor.size)
