"""C D for a weight D and a matrix C = V V^T over some number, or the projector on the leading outputs of V.

V V^T is never formed: V (V^T D). Products are float32, singular vectors float64; one thread computes one tensor whole,
so threads never change a bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch

from alignmend.algebra.nodes import Projector
from alignmend.algebra.programs import Along, Program, Projected
from alignmend.errors import NonFiniteError, ParameterError
from alignmend.execution.files import Files
from alignmend.execution.products import read_floats

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


SMALL = 1e-4
"""Share of a direction that must be left beside the spared one: less is noise."""


def along(part: Along, start: int, stop: int, operand: Operand, files: Files) -> torch.Tensor:
    """What of the operand lies along the direction, negative; elements `[start, stop)`, whole rows, flat."""
    values = operand(part.operand, start, stop).view(-1, part.columns)
    vector = _unit(part, files)
    if part.by_row:
        return torch.outer(-vector, vector @ values).reshape(-1)
    return torch.outer(values @ -vector, vector).reshape(-1)


def _unit(part: Along, files: Files) -> torch.Tensor:
    vector = read_floats(files, part.direction, 0, part.direction.size).double()
    length = float(vector.norm())
    if part.spared is not None:
        spared = read_floats(files, part.spared, 0, part.spared.size).double()
        if not 0 < float(spared.norm()) < float("inf"):
            raise ParameterError(f"the direction in {part.spared.path.name} to be spared is zero or not finite")
        vector = vector - part.strength * (vector @ spared) / (spared @ spared) * spared
    rest = float(vector.norm())
    if not 0 < length < float("inf") or rest <= SMALL * length:
        raise ParameterError(
            f"nothing is left of the direction {part.direction.name} in {part.direction.path.name}: it is zero, not "
            "finite, or the one to be spared"
        )
    return (vector / rest).float()
