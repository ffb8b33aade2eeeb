"""Parts of an expression that need whole rows: adapter products and trained embedding rows, computed once per piece.

The rows of a piece depend on the tensor's shape alone, so a matrix product always has the same operands' shapes and
with them the same rounding, whatever the number of threads.
"""

from __future__ import annotations

import torch

from alignmend.algebra.programs import Dora, LowRank, RowPart, Stacked, TokenRows
from alignmend.execution.files import Files
from alignmend.io.tensors import TensorEntry

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Products:
    """Row parts of the current piece. One per thread."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._start = 0
        self._values: dict[RowPart, torch.Tensor] = {}
        self._factors: dict[TensorEntry, torch.Tensor] = {}
        self._weighed: dict[LowRank, torch.Tensor] = {}
        self._norms: dict[Dora, torch.Tensor] = {}

    def prepare(self, parts: tuple[RowPart, ...], start: int, stop: int) -> None:
        """Compute `parts` for the elements `[start, stop)`, which are whole rows."""
        needed = {entry for part in parts for entry in _factors_of(part)}
        self._factors = {entry: values for entry, values in self._factors.items() if entry in needed}
        self._norms = {part: norms for part, norms in self._norms.items() if part in parts}
        self._weighed = {part: values for part, values in self._weighed.items() if part in parts}
        self._start = start
        self._values = {part: self._rows(part, start, stop) for part in parts}

    def block(self, part: RowPart, start: int, stop: int) -> torch.Tensor:
        """Elements `[start, stop)` of a prepared part, flat; not to be written to."""
        return self._values[part][start - self._start : stop - self._start]

    def _rows(self, part: RowPart, start: int, stop: int) -> torch.Tensor:
        match part:
            case LowRank(columns=columns):
                return self._low_rank(part, start // columns, stop // columns).view(-1)
            case Dora(low_rank):
                return self._dora(part, start // low_rank.columns, stop // low_rank.columns).view(-1)
            case Stacked(columns=columns):
                return self._stacked(part, start // columns, stop // columns).view(-1)
            case TokenRows(columns=columns):
                return self._token_rows(part, start // columns, stop // columns).view(-1)

    def _low_rank(self, part: LowRank, first: int, last: int) -> torch.Tensor:
        a, b = self._right_factor(part), self._factor(part.b)
        product = a.T[first:last] @ b.T if part.transposed else b[first:last] @ a
        return product.mul_(part.scale)

    def _right_factor(self, part: LowRank) -> torch.Tensor:
        """A M, kept for the tensor's further pieces."""
        if part.matrix is None:
            return self._factor(part.a)
        if part not in self._weighed:
            self._weighed[part] = self._files.matrices.of(part.matrix).after(self._factor(part.a))
        return self._weighed[part]

    def _stacked(self, part: Stacked, first: int, last: int) -> torch.Tensor:
        """Rows `[first, last)` of the tensor, expert by expert."""
        values = torch.zeros(last - first, part.columns)
        a, b = self._factor(part.a), self._factor(part.b)
        a = a.view(part.experts, -1, a.shape[1])
        b = b.view(b.shape[0], -1, part.experts)
        rows = a.shape[2] if part.transposed else b.shape[0]
        row = max(first, part.first)
        while row < min(last, part.first + part.count):
            expert, within = divmod(row - part.first + part.start, rows)
            stop = min(row + rows - within, last, part.first + part.count)
            here = slice(within, within + stop - row)
            own, other = a[expert], b[:, :, expert]
            product = own.T[here] @ other.T if part.transposed else other[here] @ own
            values[row - first : stop - first] = product.mul_(part.scale)
            row = stop
        return values

    def _dora(self, part: Dora, first: int, last: int) -> torch.Tensor:
        weight = self._read(part.weight, first * part.low_rank.columns, last * part.low_rank.columns)
        weight = weight.view(last - first, part.low_rank.columns)
        moved = weight + self._low_rank(part.low_rank, first, last)
        magnitude = self._factor(part.magnitude).view(-1)
        if part.low_rank.transposed:
            factor = (magnitude / self._column_norms(part)).unsqueeze(0)
        else:
            factor = (magnitude[first:last] / torch.linalg.vector_norm(moved, dim=1)).unsqueeze(1)
        return moved.mul_(factor).sub_(weight)

    def _column_norms(self, part: Dora) -> torch.Tensor:
        """Norm of each column of W + scale B A, a few rows at a time, kept for the tensor's further pieces."""
        if part not in self._norms:
            columns, rows = part.low_rank.columns, part.low_rank.rows
            squares = torch.zeros(columns, dtype=torch.float64)
            step = max(1, (1 << 20) // columns)
            for first in range(0, rows, step):
                last = min(first + step, rows)
                weight = self._read(part.weight, first * columns, last * columns).view(last - first, columns)
                squares += (weight + self._low_rank(part.low_rank, first, last)).double().square().sum(dim=0)
            self._norms[part] = squares.sqrt().float()
        return self._norms[part]

    def _token_rows(self, part: TokenRows, first: int, last: int) -> torch.Tensor:
        values = torch.zeros(last - first, part.columns)
        inside = [(index, row) for index, row in enumerate(part.rows) if first <= row < last]
        for index, row in inside:
            trained = self._read(part.trained, index * part.columns, (index + 1) * part.columns)
            values[row - first] = trained - self._read(part.weight, row * part.columns, (row + 1) * part.columns)
        return values

    def _factor(self, entry: TensorEntry) -> torch.Tensor:
        if entry not in self._factors:
            self._factors[entry] = self._read(entry, 0, entry.size).view(entry.shape)
        return self._factors[entry]

    def _read(self, entry: TensorEntry, start: int, stop: int) -> torch.Tensor:
        return read_floats(self._files, entry, start, stop)


def read_floats(files: Files, entry: TensorEntry, start: int, stop: int) -> torch.Tensor:
    """Elements `[start, stop)` of a stored tensor as float32."""
    raw = torch.empty((stop - start) * entry.item_size, dtype=torch.uint8)
    files.read(entry, start, raw.numpy().data)
    return raw.view(_DTYPES[entry.dtype]).float()


def _factors_of(part: RowPart) -> tuple[TensorEntry, ...]:
    match part:
        case LowRank(a=a, b=b) | Stacked(a=a, b=b):
            return (a, b)
        case Dora(low_rank, magnitude):
            return (low_rank.a, low_rank.b, magnitude)
        case TokenRows():
            return ()
