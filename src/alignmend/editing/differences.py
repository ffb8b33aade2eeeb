"""How far one tensor of a checkpoint is from another's, and the rank of what lies between."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignmend.errors import NonFiniteError
from alignmend.execution.files import Files
from alignmend.io.tensors import TensorEntry

if TYPE_CHECKING:
    import torch

_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_TORCH = {
    **_FLOATS,
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    "BOOL": "bool",
    "C64": "complex64",
}
_SPACING = {"F64": 2.0**-52, "F32": 2.0**-23, "F16": 2.0**-10, "BF16": 2.0**-7}
"""Distance from 1 to the next number: what a change of dtype may move a value by, relatively."""
VECTORS = 8
_SMALL = 1e-100
_EXPONENT = 500
"""Of two; squares of numbers below stay finite in float64."""


@dataclass(frozen=True)
class TensorChange:
    """One tensor's change: largest and total, relative to the original, and how much of it is of low rank.

    `norm` is Frobenius, `relative_norm` over the original's, `share` the part of the elements that differ. For changed
    matrices, `second_singular` is the second singular value over the first, `captured` the part of the squared norm in
    the first few singular values (at most 8, and at most a quarter of the smaller side).
    """

    name: str
    layer: int | None
    changed: bool
    dtype_changed: bool
    largest: float
    norm: float
    relative_norm: float
    share: float
    second_singular: float | None
    captured: float | None


def compare(original: TensorEntry, edited: TensorEntry, layer: int | None) -> TensorChange:
    """The change from `original` to `edited`, two tensors of one shape.

    With the same dtype any difference is a change; otherwise the original is cast to the edited's dtype first, and what
    remains must exceed one spacing of the coarser dtype. `NonFiniteError` where either holds NaN or infinity.
    """
    return compare_values(read(original), read(edited), original, edited, layer)


def compare_values(
    before: torch.Tensor, after: torch.Tensor, original: TensorEntry, edited: TensorEntry, layer: int | None
) -> TensorChange:
    """`compare` of two tensors that are read already; the entries say names and dtypes."""
    same = original.dtype == edited.dtype
    cast = before if same or edited.dtype not in _FLOATS else before.to(after.dtype)
    size, other = _size(before), _size(after)
    _check_finite((size, other), edited)
    scale = 2.0 ** max(0, math.frexp(max(size, other))[1] - _EXPONENT)
    difference = _scaled(after, scale) - _scaled(cast, scale) if after.is_floating_point() else (after != cast).double()
    largest = _unscaled(float(difference.abs().max()) if difference.numel() else 0.0, scale)
    tolerance = 0.0 if same else max(_SPACING.get(original.dtype, 0.0), _SPACING.get(edited.dtype, 0.0)) * size
    changed = largest > tolerance
    norm, whole = _norm(difference), _norm(_scaled(before, scale))
    second, captured = _ranks(difference) if changed and difference.ndim == 2 else (None, None)
    return TensorChange(
        name=edited.name,
        layer=layer,
        changed=changed,
        dtype_changed=not same,
        largest=largest,
        norm=_unscaled(norm, scale),
        relative_norm=norm / whole if whole > 0 else float(norm > 0),
        share=float((difference != 0).double().mean()) if difference.numel() else 0.0,
        second_singular=second,
        captured=captured,
    )


def _size(tensor: torch.Tensor) -> float:
    return float(tensor.double().abs().max()) if tensor.numel() else 0.0


def _scaled(tensor: torch.Tensor, scale: float) -> torch.Tensor:
    """By a power of two, so that differences and squares of the largest numbers stay finite."""
    return tensor.double() if scale == 1.0 else tensor.double() / scale


def _norm(tensor: torch.Tensor) -> float:
    """Also where the squares of all numbers are zero."""
    size = _size(tensor)
    return float(tensor.norm()) if size == 0.0 or size > _SMALL else size * float((tensor / size).norm())


def _unscaled(value: float, scale: float) -> float:
    return min(value * scale, sys.float_info.max)


def _check_finite(values: tuple[float, float], edited: TensorEntry) -> None:
    if not all(map(math.isfinite, values)):
        raise NonFiniteError(f"{edited.name} holds NaN or infinity in one of the two checkpoints ({edited.path})")


def _ranks(difference: torch.Tensor) -> tuple[float, float]:
    """By a randomised decomposition with a few vectors, seeded, so that large matrices cost seconds."""
    import torch

    difference = difference / difference.abs().max()  # neither too large nor too small for float32
    vectors = max(2, min(VECTORS, min(difference.shape) // 4)) if min(difference.shape) > 1 else 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, values, _ = torch.svd_lowrank(difference.float(), q=min(vectors + 2, *difference.shape), niter=4)
    second = float(values[1] / values[0]) if len(values) > 1 and values[0] > 0 else 0.0
    total = float(difference.norm()) ** 2
    return second, min(1.0, float((values[:vectors].double() ** 2).sum()) / total)


def read(entry: TensorEntry) -> torch.Tensor:
    """A stored tensor in its own dtype."""
    import torch

    buffer = bytearray(max(entry.bytes, 1))
    with Files() as files:
        files.read(entry, 0, memoryview(buffer)[: entry.bytes])
    dtype: torch.dtype = getattr(torch, _TORCH[entry.dtype])
    return torch.frombuffer(buffer, dtype=torch.uint8)[: entry.bytes].view(dtype).view(entry.shape)
