"""The oracle: what every operation means, slowly, in float64 and plain integers, sharing no code with the package."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array: TypeAlias = npt.NDArray[np.float64]
Arrays: TypeAlias = dict[str, Array]
"""Name -> values. A delta is zero on names that it does not have, and rankings do not count those."""
Scope = Literal["model", "tensor", "row"]
Truths: TypeAlias = dict[str, npt.NDArray[np.bool_]]


def numbers(tensors: Mapping[str, Tensor]) -> Arrays:
    """Exact values of the float tensors; buffers that are not trained are left out."""
    return {
        name: tensor.double().numpy()
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and "inv_freq" not in name
    }


def combine(left: Arrays, right: Arrays, operation: Callable[[Array, Array], Array]) -> Arrays:
    """Tensor by tensor; what one side lacks is zero."""
    zeros = {name: np.zeros_like(values) for name, values in {**left, **right}.items()}
    return {name: operation(left.get(name, zero), right.get(name, zero)) for name, zero in zeros.items()}


def add(left: Arrays, right: Arrays) -> Arrays:
    return combine(left, right, lambda a, b: a + b)


def subtract(left: Arrays, right: Arrays) -> Arrays:
    return combine(left, right, lambda a, b: a - b)


def scale(factor: float, delta: Arrays) -> Arrays:
    return {name: factor * values for name, values in delta.items()}


def by_number(name: str) -> list[tuple[bool, int, str]]:
    """Layer 2 before layer 10."""
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.findall(r"\d+|\D+", name)]


def kept_count(density: float, total: int, counting: str = "nearest") -> int:
    """Rounded, or down from the decimal number that was written."""
    return round(density * total) if counting == "nearest" else math.floor(Decimal(str(density)) * total)


def top(scores: Arrays, density: float, scope: str, counting: str = "nearest") -> Truths:
    """A stable sort: the highest first, equal ones in (name, flat index) order."""
    if scope == "row":
        return {name: _top_of_rows(values, density, counting) for name, values in scores.items()}
    names = sorted(scores, key=by_number)
    groups = [names] if scope == "model" else [[name] for name in names]
    kept: Truths = {}
    for group in groups:
        flat = np.concatenate([scores[name].ravel() for name in group])
        chosen = np.zeros(flat.size, bool)
        chosen[np.argsort(-flat, kind="stable")[: kept_count(density, flat.size, counting)]] = True
        parts = np.split(chosen, np.cumsum([scores[name].size for name in group])[:-1])
        kept |= {name: part.reshape(scores[name].shape) for name, part in zip(group, parts, strict=True)}
    return kept


def _top_of_rows(values: Array, density: float, counting: str) -> npt.NDArray[np.bool_]:
    rows = values.reshape(-1, values.shape[-1])
    found = [top({"row": row}, density, "tensor", counting)["row"] for row in rows]
    return np.stack(found).reshape(values.shape)


def elect(deltas: Sequence[Arrays]) -> Arrays:
    """Weight by weight: which sign has more mass, then the mean of the values that have it."""
    names = dict.fromkeys(name for delta in deltas for name in delta)
    found: Arrays = {}
    for name in names:
        shape = next(delta[name].shape for delta in deltas if name in delta)
        columns = zip(*(delta[name].ravel() for delta in deltas if name in delta), strict=True)
        found[name] = np.array([_elected(values) for values in columns]).reshape(shape)
    return found


def _elected(values: tuple[float, ...]) -> float:
    total = math.fsum(values)
    agreeing = [value for value in values if value * total > 0]
    return math.fsum(agreeing) / len(agreeing) if agreeing else 0.0


def where(mask: Mapping[str, npt.NDArray[np.bool_]], delta: Arrays) -> Arrays:
    """A mask is false on names that it does not have."""
    return {name: values * mask[name] if name in mask else np.zeros_like(values) for name, values in delta.items()}


def trim(delta: Arrays, density: float, scope: str) -> Arrays:
    return where(top({name: np.abs(values) for name, values in delta.items()}, density, scope), delta)


_WORD = (1 << 64) - 1


def philox_4x64(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Ten rounds of Philox 4x64 (Salmon, Moraes, Dror, Shaw: Parallel random numbers, as easy as 1, 2, 3; SC 2011)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (second >> 64) ^ c1 ^ k0, second & _WORD, (first >> 64) ^ c3 ^ k1, first & _WORD
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & _WORD, (k1 + 0xBB67AE8584CAA73B) & _WORD
    return c0, c1, c2, c3


@cache
def _stream(purpose: str, seed: int, name: str, block: int, count: int) -> list[int]:
    """The first `count` 64-bit words of one block of a tensor."""
    digest = hashlib.sha256(f"{purpose}\0{seed}\0{name}".encode()).digest()
    key = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")
    words: list[int] = []
    for step in range(1, -(-count // 4) + 1):
        words += philox_4x64((step, 0, 0, block), key)
    return words[:count]


def random_words(purpose: str, seed: int, name: str, block: int, count: int) -> list[int]:
    """The first `count` 32-bit numbers of one block of a tensor."""
    words = _stream(purpose, seed, name, block, -(-count // 2))
    return [half for word in words for half in (word & 0xFFFFFFFF, word >> 32)][:count]


def random_keep(density: float, seed: int, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Bernoulli(density) for a tensor of one block: a byte each, and 24 further bits where the byte does not decide."""
    head, rest = divmod(round(density * 2.0**32), 1 << 24)
    size = int(np.prod(shape))
    words = _stream("mask", seed, name, 0, 8192 + 1024)
    drawn = [(word >> shift) & 0xFF for word in words[:8192] for shift in range(0, 64, 8)]
    further = iter(words[8192:])
    kept = [byte < head or (byte == head and next(further) >> 40 < rest) for byte in drawn]
    return np.array(kept[:size]).reshape(shape)


def independent_keep(stream: str, density: float, seed: int, name: str, shape: tuple[int, ...]) -> Truths:
    """The draw of a named stream."""
    return {name: random_keep(density, seed, f"{stream}\0{name}", shape)}


def safe_patching(
    target: Arrays,
    patches: Mapping[str, Arrays],
    tops: Mapping[str, Truths],
    *,
    coefficients: Mapping[str, float],
    density: float,
    seed: int,
    kept: Callable[[npt.NDArray[np.bool_], npt.NDArray[np.bool_]], npt.NDArray[np.bool_]],
) -> Arrays:
    """theta + sum of coefficient * m o M o P; `kept` makes M of a patch's own top set and the other's."""
    found = {name: values.copy() for name, values in target.items()}
    for patch, other in (("safety", "over_safety"), ("over_safety", "safety")):
        for name, values in patches[patch].items():
            retained = independent_keep(patch, density, seed, name, values.shape)[name]
            found[name] += coefficients[patch] * values * kept(tops[patch][name], tops[other][name]) * retained
    return found


def drop(delta: Arrays, density: float, seed: int, *, rescale: bool = True) -> Arrays:
    masks = {name: random_keep(density, seed, name, values.shape) for name, values in delta.items()}
    return scale(1.0 / density if rescale else 1.0, where(masks, delta))


def spacing(values: Array, dtype: torch.dtype) -> Array:
    """Distance between neighbours of the dtype around each value."""
    digits, smallest = {torch.float32: (23, -126), torch.float16: (10, -14), torch.bfloat16: (7, -126)}[dtype]
    exponent = np.floor(np.log2(np.maximum(np.abs(values), 2.0**smallest)))
    return np.asarray(2.0 ** (exponent - digits), dtype=np.float64)


def weigh(delta: Arrays, moments: Mapping[str, Sequence[Array]], beta: float, ridge: float) -> Arrays:
    """D C_h (C_h + beta C_b + lambda I)^-1 where there are moments: C_h first, C_b the mean of the others."""
    found = dict(delta)
    for name, (harmful, *harmless) in moments.items():
        shift = ridge * np.trace(harmful) / len(harmful) * np.eye(len(harmful))
        system = harmful + beta * sum(harmless) / len(harmless) + shift
        found[name] = delta[name] @ harmful @ np.linalg.pinv(system, hermitian=True, rcond=1e-14)
    return found
