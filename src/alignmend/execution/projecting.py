"""C D for a weight D and a matrix C = V V^T over some number, or the projector on the leading outputs of V.

V V^T is never formed: V (V^T D). Products are float32, singular vectors float64; one thread computes one tensor whole,
so threads never change a bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch

from alignmend.algebra.nodes import Projector
from alignmend.algebra.programs import Program, Projected
from alignmend.errors import NonFiniteError

Operand: TypeAlias = Callable[[Program, int, int], torch.Tensor]


def projected(part: Projected, start: int, stop: int, operand: Operand) -> torch.Tensor:
    """The part on a whole tensor, elements `[start, stop)`, flat."""
    values = operand(part.operand, start, stop).view(-1, part.columns)
    basis = values if part.basis == part.operand else operand(part.basis, start, stop).view(-1, part.columns)
    if part.transposed:
        values, basis = values.T, basis.T
    found = product(basis, values, part.projector, part.rank)
    return (found.T if part.transposed else found).reshape(-1)


def product(basis: torch.Tensor, values: torch.Tensor, projector: Projector, rank: int) -> torch.Tensor:
    """C values, C [out, out] made of `basis` [out, in]; zero where the basis is."""
    if not bool(torch.isfinite(basis).all()):
        raise NonFiniteError("a delta that others are projected on holds NaN or infinity: mend the files it is made of")
    norm = float(torch.linalg.vector_norm(basis.double()))
    if norm == 0.0:
        return torch.zeros_like(values)
    if projector.startswith("frob"):
        return basis @ (basis.T @ values) / (norm if projector == "frob" else norm * norm)
    leading, largest = _outputs(basis, rank or 1)
    if projector == "orthogonal":
        return leading @ (leading.T @ values)
    return basis @ (basis.T @ values) / largest


def _outputs(basis: torch.Tensor, rank: int) -> tuple[torch.Tensor, float]:
    """The leading output directions [out, rank], as many as there are, and the largest eigenvalue of V V^T."""
    wide = basis.double()
    tall = wide.shape[0] > wide.shape[1]
    gram = wide.T @ wide if tall else wide @ wide.T
    values, vectors = torch.linalg.eigh(gram)
    keep = int((values > values[-1] * len(values) * torch.finfo(torch.float64).eps).sum())
    chosen = vectors[:, len(values) - min(rank, keep) :]
    if tall:
        chosen = torch.linalg.qr(wide @ chosen).Q
    return chosen.to(basis.dtype), float(values[-1])
