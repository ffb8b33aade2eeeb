"""Second moments of what enters a model's linear layers: the mean of x x^T over the counted tokens of texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from alignmend.errors import MismatchError, NonFiniteError
from alignmend.training.loop import TokenRow
from alignmend.training.moment_settings import Positions
from alignmend.training.sites import Site, by_position, forward

Tick = Callable[[], None]


def counted_from(row: TokenRow, positions: Positions) -> int:
    """The first token of a row that counts; all that follow do."""
    return row.answer_start - 1 if positions == "last" else 0


def positions_in(rows: Sequence[TokenRow], positions: Positions) -> int:
    """How many tokens of the rows count."""
    return sum(len(row.tokens) - counted_from(row, positions) for row in rows)


def stored_shape(width: int, count: int) -> tuple[int, int]:
    """Of a moment over `count` positions: R with R^T R = C where that has at most half as many rows, else C."""
    return (count, width) if 2 * count <= width else (width, width)


def observe(
    network: Any,
    rows: Sequence[TokenRow],
    sites: Sequence[Site],
    *,
    positions: Positions = "last",
    batch_size: int = 8,
    tick: Tick = lambda: None,
) -> dict[str, Tensor]:
    """The moment of each site by name, float32, in the shape that `stored_shape` says.

    The model sees rows padded on the right; padding is never counted, and sums are taken in float64 over fixed numbers
    of positions, so `batch_size` changes nothing beyond the rounding of the model's own products.
    Raises `MismatchError` for a layer that sees only some tokens, `NonFiniteError`.
    """
    counted: list[Tensor] = []
    sums = {site.name: _Sum(site.width) for site in sites}
    with torch.no_grad(), ExitStack() as hooks:
        for site in sites:
            module = site.targets[0].module
            hooks.callback(module.register_forward_pre_hook(_observing(site, sums[site.name], counted)).remove)
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            counted[:] = [_mask(batch, positions)]
            forward(network, batch)
            for _ in batch:
                tick()
    count = positions_in(rows, positions)
    found = {}
    for site in sites:
        if sums[site.name].count != count:
            raise MismatchError(f"{site.name} did not see every token of every text: its moments cannot be taken")
        found[site.name] = sums[site.name].mean()
        if not bool(torch.isfinite(found[site.name]).all()):
            raise NonFiniteError(f"the inputs of {site.name} hold NaN or infinity: is the model broken?")
    return found


class _Sum:
    """Of x x^T, rows of x kept until there are as many as they are wide."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self._width = width
        self._waiting: list[Tensor] = []
        self._rows = 0
        self._total: Tensor | None = None

    def add(self, rows: Tensor) -> None:
        """Rows [n, width], float32."""
        self.count += len(rows)
        while len(rows):
            part, rows = rows[: self._width - self._rows], rows[self._width - self._rows :]
            self._waiting.append(part)
            self._rows += len(part)
            if self._rows == self._width:
                self._fold()

    def mean(self) -> Tensor:
        """C = sum of x x^T / count, or R with R^T R = C."""
        if stored_shape(self._width, self.count)[0] < self._width:
            return (torch.cat(self._waiting).double() / math.sqrt(self.count)).float()
        self._fold()
        if self._total is None:
            raise TypeError("self._total is None")
        return (self._total / self.count).float()

    def _fold(self) -> None:
        if self._total is None:
            self._total = torch.zeros(self._width, self._width, dtype=torch.float64)
        if self._waiting:
            rows = torch.cat(self._waiting).double()
            self._total.addmm_(rows.T, rows)
        self._waiting, self._rows = [], 0


def _observing(site: Site, total: _Sum, counted: Sequence[Tensor]) -> Callable[[Any, Any], None]:
    def observe_one(module: Any, given: tuple[Tensor, ...]) -> None:
        mask = counted[0]
        entering = by_position(site.name, given[0], *mask.shape)
        if entering is None:
            raise MismatchError(
                f"{site.name} sees {list(given[0].shape)}, not every token in its place: its moments cannot be taken"
            )
        total.add(entering[mask.to(entering.device)].float().cpu())

    return observe_one


def _mask(batch: Sequence[TokenRow], positions: Positions) -> Tensor:
    mask = torch.zeros(len(batch), max(len(row.tokens) for row in batch), dtype=torch.bool)
    for index, row in enumerate(batch):
        mask[index, counted_from(row, positions) : len(row.tokens)] = True
    return mask
