"""Parts that are computed of whole rows, once per piece: rankings by row, products from the right, projections."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from alignmend.algebra.programs import Along, Program, Projected, RankedKeep, RightMultiplied, RowTop, WholeRows
from alignmend.execution.files import Files
from alignmend.execution.projecting import along, projected
from alignmend.execution.random_bits import random_bits
from alignmend.execution.row_ranking import highest_in_rows, unfit_row

Operand = Callable[[Program, int, int], torch.Tensor]
"""The values of a program on `[start, stop)`, a float32 vector of the caller's own."""


class HeldRows:
    """What such parts are on the current piece. One per thread."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._start = 0
        self._masks: dict[RowTop, torch.Tensor] = {}
        self._products: dict[WholeRows, torch.Tensor] = {}

    def prepare(self, parts: tuple[WholeRows, ...], start: int, stop: int, operand: Operand) -> None:
        """Compute `parts`, inner ones first, for the elements `[start, stop)`, which are whole rows."""
        self._start, self._masks, self._products = start, {}, {}
        for part in parts:
            if isinstance(part, RowTop):
                self._masks[part] = _ranked(part, start, stop, operand)
            elif isinstance(part, RankedKeep):
                self._products[part] = _dropped(part, start, stop, operand)
            elif isinstance(part, Along):
                self._products[part] = along(part, start, stop, operand, self._files)
            elif isinstance(part, Projected):
                self._products[part] = projected(part, start, stop, operand)
            else:
                self._products[part] = self._multiplied(part, operand(part.operand, start, stop))

    def mask(self, part: RowTop, start: int, stop: int) -> torch.Tensor:
        """Truths on `[start, stop)`; not to be written to."""
        return self._masks[part][start - self._start : stop - self._start]

    def product(self, part: WholeRows, start: int, stop: int) -> torch.Tensor:
        """Values on `[start, stop)`; not to be written to."""
        return self._products[part][start - self._start : stop - self._start]

    def _multiplied(self, part: RightMultiplied, values: torch.Tensor) -> torch.Tensor:
        matrix = self._files.matrices.of(part.matrix)
        rows = values.view(-1, part.columns)
        return (matrix.before(rows) if part.transposed else matrix.after(rows)).reshape(-1)


def _dropped(part: RankedKeep, start: int, stop: int, operand: Operand) -> torch.Tensor:
    values = operand(part.operand, start, stop).numpy()
    rows = np.abs(values).reshape(-1, part.columns)
    order = np.argsort(rows, axis=1, kind="stable")  # equal ones in order of their index
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(part.columns)[None, :], axis=1)
    share = ranks / (part.columns - 1) if part.columns > 1 else np.full(ranks.shape, 0.5)
    chance = (part.density - part.window + 2 * part.window * share).reshape(-1)
    kept = random_bits("mask", part.seed, part.name, start, stop) < np.rint(chance * 2.0**32)
    return torch.from_numpy(np.where(kept, values / chance if part.rescale else values, 0.0).astype(np.float32))


def _ranked(ranking: RowTop, start: int, stop: int, operand: Operand) -> torch.Tensor:
    if ranking.score is None:
        scores = np.zeros(stop - start, dtype=np.float32)
    else:
        scores = operand(ranking.score, start, stop).numpy()
        if (problem := unfit_row(ranking, scores)) is not None:
            raise problem
    kept = highest_in_rows(scores.reshape(-1, ranking.columns), ranking.count)
    return torch.from_numpy(kept.reshape(-1))
