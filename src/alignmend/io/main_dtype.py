"""A checkpoint's main dtype, and what it keeps in float32 beside it: router biases, norms, state-space decays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from alignmend.io.tensors import ARITHMETIC_DTYPES, TensorEntry

WIDEST = "F32"


def main_dtype(entries: Iterable[TensorEntry]) -> str | None:
    """The float dtype of most weights; the narrower one where two hold as many, None without floats."""
    sizes: Counter[str] = Counter()
    for entry in entries:
        if entry.dtype in ARITHMETIC_DTYPES:
            sizes[entry.dtype] += entry.size
    return max(sizes, key=lambda dtype: (sizes[dtype], dtype != WIDEST, dtype), default=None)


def kept_wide(entries: Iterable[TensorEntry]) -> frozenset[str]:
    """Names of tensors that a checkpoint of a narrower main dtype keeps in float32."""
    found = tuple(entries)
    if main_dtype(found) == WIDEST:
        return frozenset()
    return frozenset(entry.name for entry in found if entry.dtype == WIDEST)
