"""Signs of an ablated direction in the matrices that write to the residual stream.

Ablation replaces a writer W by W - w r r^T W: what it writes along r shrinks, and with w = 1 vanishes. Beside the
parent, the change's own strongest direction is tried for r; without it, the direction that all writers write least.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_WRITER = re.compile(
    r"(?:^|\.)(?:(?:o_proj|out_proj|down_proj|c_proj|dense_4h_to_h|fc_out|fc2|wo|w2)(?:\.weight)?|att\w*\.dense\.weight)$"
)
_TRANSPOSED = ("gpt2", "imagegpt", "openai-gpt", "decision_transformer")
"""Model types whose `c_proj` is stored (in, out)."""
ABSENT = 1e-3
"""Share of the mean energy below which a direction counts as not written: rounding to bfloat16 leaves 1e-6."""
APART = 20.0
"""How many times less than the next direction it must be written: the spectra of trained writers have no such step."""
PARALLEL = 0.9
"""Cosine between what the change takes from a direction and what was written along it; of training it is near 0."""
STRENGTH = 0.2
"""Share of a direction's writing that must have gone: weight decay takes a little from every direction alike."""
_SWEEPS = 12


def writer(name: str, values: torch.Tensor, hidden: int, model_type: str) -> torch.Tensor | None:
    """`values` as (hidden, inputs) float32 where `name` writes to the residual stream; `None` where it does not."""
    if _WRITER.search(name) is None or not values.is_floating_point():
        return None
    if values.ndim == 3:  # all experts in one
        middle, last = values.shape[1:]
        if (middle == hidden) == (last == hidden):
            return None
        values = values if middle == hidden else values.transpose(1, 2)
        return values.transpose(0, 1).reshape(hidden, -1).float()
    if values.ndim != 2:
        return None
    if name.endswith("c_proj.weight") and model_type in _TRANSPOSED:
        values = values.T
    return values.float() if values.shape[0] == hidden else None


@dataclass(frozen=True)
class LayerDirection:
    """One layer's direction, its `strength` (share of the writing along it that has gone) and how sure that is.

    `agreement` is the cosine between what has gone and what was written; 1 where the change does nothing else there.
    """

    direction: torch.Tensor
    strength: float
    agreement: float

    @property
    def is_ablation(self) -> bool:
        """Whether only an ablation explains it."""
        return self.agreement >= PARALLEL and self.strength >= STRENGTH


@dataclass(frozen=True)
class Least:
    """The direction that writers write least: its energy over the mean, and the next one's over its own."""

    direction: torch.Tensor
    energy: float
    step: float

    @property
    def is_absent(self) -> bool:
        """Whether the direction is missing."""
        return self.energy < ABSENT and self.step >= APART


@dataclass
class Directions:
    """Gathers writers layer by layer."""

    hidden: int
    model_type: str
    changed: dict[int, LayerDirection] = field(default_factory=dict)
    least: dict[int, Least] = field(default_factory=dict)
    energies: dict[int, float] = field(default_factory=dict)
    """Layer -> energy along `known` directions over the mean."""
    known: Mapping[int, torch.Tensor] = field(default_factory=dict)
    _whole: torch.Tensor | None = None
    _layer: int | None = None
    _before: list[torch.Tensor] = field(default_factory=list)
    _after: list[torch.Tensor] = field(default_factory=list)

    def add(self, name: str, layer: int | None, before: torch.Tensor | None, after: torch.Tensor) -> None:
        """One tensor; those of a layer must come one after another."""
        if layer is None:
            return
        mine = writer(name, after, self.hidden, self.model_type)
        if mine is None:
            return
        if layer != self._layer:
            self.close()
            self._layer = layer
        self._after.append(mine)
        own = None if before is None else writer(name, before, self.hidden, self.model_type)
        if own is not None:
            self._before.append(own)

    def close(self) -> None:
        """The current layer has ended."""
        if self._layer is None:
            return
        gram = sum((_gram(one) for one in self._after), start=_zeros(self.hidden))
        if sum(one.shape[1] for one in self._after) >= 2 * self.hidden:
            self.least[self._layer] = least_written(gram)
        if self._layer in self.known:
            along = self.known[self._layer].double()
            along = along / along.norm().clamp_min(1e-30)
            self.energies[self._layer] = float(along @ gram @ along / (gram.trace() / self.hidden))
        self._whole = gram if self._whole is None else self._whole + gram
        if len(self._before) == len(self._after):
            found = _taken(self._before, self._after)
            if found is not None:
                self.changed[self._layer] = found
        self._layer, self._before, self._after = None, [], []

    @property
    def missing(self) -> Least | None:
        """The direction that the writers of all layers together write least."""
        return None if self._whole is None else least_written(self._whole)


def _zeros(size: int) -> torch.Tensor:
    import torch

    return torch.zeros(size, size, dtype=torch.float64)


def _gram(values: torch.Tensor) -> torch.Tensor:
    """Of a matrix scaled to mean energy 1 per direction."""
    whole = float(values.double().square().sum())
    product = (values @ values.T).double()
    return product * (values.shape[0] / whole) if whole > 0 else product


def least_written(gram: torch.Tensor) -> Least:
    """The lowest eigenvalues of a Gram matrix by inverse iteration on a few vectors, seeded."""
    import torch

    size = gram.shape[0]
    mean = float(gram.trace()) / size
    if mean <= 0:
        return Least(torch.zeros(size), 0.0, 1.0)
    shifted = gram / mean + 1e-7 * torch.eye(size, dtype=gram.dtype)  # float32 products are no more exact
    factor, failed = torch.linalg.cholesky_ex(shifted)
    if int(failed):
        factor = torch.linalg.cholesky(shifted + 1e-5 * torch.eye(size, dtype=gram.dtype))
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(size, min(6, size), generator=generator, dtype=gram.dtype)
    for _ in range(_SWEEPS):
        basis, _ = torch.linalg.qr(torch.cholesky_solve(basis, factor))
    values, turned = torch.linalg.eigh(basis.T @ (gram / mean) @ basis)
    first = max(float(values[0]), 0.0)
    step = float(values[1]) / max(first, 1e-9) if len(values) > 1 else 1.0
    return Least((basis @ turned)[:, 0].float(), first, step)


def _taken(before: list[torch.Tensor], after: list[torch.Tensor]) -> LayerDirection | None:
    """The strongest direction of the change of a layer's writers, and what the change takes from it."""
    import torch

    scales = [1.0 / max(float(one.norm()), 1e-30) for one in before]
    old = torch.cat([one * scale for one, scale in zip(before, scales, strict=True)], dim=1)
    moved = torch.cat([one * scale for one, scale in zip(after, scales, strict=True)], dim=1) - old
    if not bool(moved.any()):
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        left, _, _ = torch.svd_lowrank(moved / moved.abs().max(), q=min(6, *moved.shape), niter=4)
    direction = left[:, 0]
    written, gone = (direction @ old).double(), (direction @ moved).double()
    energy, change = float(written.square().sum()), float(gone.square().sum())
    product = -float(written @ gone)
    if energy <= 0 or change <= 0:
        return None
    return LayerDirection(direction, product / energy, product / (energy * change) ** 0.5)
