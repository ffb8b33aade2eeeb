"""Adapters as adapters: exact sums of low-rank updates, recompression. Their products are `execution.products`.

Factors follow LoRA (Hu et al., arXiv 2106.09685): delta = scale * B A with A [rank, in] and B [out, rank].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from alignmend.errors import MismatchError, ParameterError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Factors:
    """One low-rank update, `scale * (b @ a)`."""

    a: Tensor
    """Shape [rank, in]."""
    b: Tensor
    """Shape [out, rank]."""
    scale: float = 1.0

    @property
    def rank(self) -> int:
        """Number of rows of `a`."""
        return int(self.a.shape[0])


LowRankFactors: TypeAlias = Mapping[str, Factors]
"""Module name -> its update; a module that is absent is not changed."""


def concatenate(terms: Sequence[tuple[float, LowRankFactors]]) -> dict[str, Factors]:
    """The exact sum of `coefficient * scale * B A` over `terms`, as one low-rank update per module, float32.

    A* = [A_1; ...; A_n] (rows), B* = [c_1 s_1 B_1, ..., c_n s_n B_n] (columns), rank r_1 + ... + r_n, scale
    1. A module that only some terms have keeps their blocks. Signs live in B*, so factors of one term never
    meet those of another (adding A's and B's separately would add cross terms).
    Raises `MismatchError` where two terms give a module different shapes.
    """
    import torch

    blocks: dict[str, list[tuple[float, Factors]]] = {}
    for coefficient, modules in terms:
        for module, factors in modules.items():
            blocks.setdefault(module, []).append((coefficient, factors))
    summed: dict[str, Factors] = {}
    for module, parts in blocks.items():
        _check_same_shape(module, [factors for _, factors in parts])
        rows = [factors.a.float() for _, factors in parts]
        columns = [factors.b.float() * (coefficient * factors.scale) for coefficient, factors in parts]
        summed[module] = Factors(torch.cat(rows, dim=0), torch.cat(columns, dim=1))
    return summed


def _check_same_shape(module: str, parts: Sequence[Factors]) -> None:
    shapes = [(int(factors.b.shape[0]), int(factors.a.shape[1])) for factors in parts]
    if len(set(shapes)) > 1:
        raise MismatchError(
            f"{module} is {' and '.join(map(str, dict.fromkeys(shapes)))} (out, in) in the adapters to be summed",
            advice="give adapters of one base model",
        )


def recompress(factors: LowRankFactors, rank: int) -> tuple[dict[str, Factors], dict[str, float]]:
    """The best approximation of each update with at most `rank` rows, and its relative Frobenius error per
    module.

    QR of B and of A^T, then the SVD of the small core (Eckart and Young, 1936): the error is the discarded
    singular mass, sqrt(sum of squares beyond `rank` / sum of all squares). Computed in float64. B* carries
    the singular values.
    Raises `ParameterError` for a rank below one.
    """
    if rank < 1:
        raise ParameterError(f"rank is {rank}, but an adapter needs at least rank 1")
    done = {module: _truncated(update, rank) for module, update in factors.items()}
    return {module: kept for module, (kept, _) in done.items()}, {module: error for module, (_, error) in done.items()}


def _truncated(factors: Factors, rank: int) -> tuple[Factors, float]:
    import torch

    left, upper = torch.linalg.qr(factors.b.double())
    right, lower = torch.linalg.qr(factors.a.double().T)
    u, values, v = torch.linalg.svd(factors.scale * upper @ lower.T, full_matrices=False)
    total = float(values.square().sum())
    error = (float(values[rank:].square().sum()) / total) ** 0.5 if total > 0 else 0.0
    b = left @ (u[:, :rank] * values[:rank])
    return Factors((v[:rank] @ right.T).float(), b.float()), error
