"""Matrices M = C_h (C_h + beta C_b + lambda I)^-1 of layers' inputs: solved once in float64, kept for all threads.

A solve uses one thread and the same steps whatever else runs, so threads never change a bit of M.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Condition
from typing import TYPE_CHECKING

from alignmend.errors import NonFiniteError, ParameterError

if TYPE_CHECKING:
    from torch import Tensor

    from alignmend.algebra.programs import InputMatrix
    from alignmend.execution.files import Files
    from alignmend.io.tensors import TensorEntry

KEPT_BYTES = 1 << 30
"""Matrices that are kept; the least recently used go first."""
SOLVING_BYTES = 2 << 30
"""Solves run side by side while their scratch stays below; a larger one runs alone."""
_COLUMNS = 1024
"""Right-hand sides at a time."""


@dataclass(frozen=True)
class Product:
    """M as float32: `left` alone, [n, n], or `left` [n, r] times `right` [r, n]."""

    left: Tensor
    right: Tensor | None = None

    @property
    def bytes(self) -> int:
        """In memory."""
        return 4 * (self.left.numel() + (0 if self.right is None else self.right.numel()))

    def after(self, rows: Tensor) -> Tensor:
        """`rows` M."""
        product = rows @ self.left
        return product if self.right is None else product @ self.right

    def before(self, columns: Tensor) -> Tensor:
        """M^T `columns`."""
        return self.left.T @ columns if self.right is None else self.right.T @ (self.left.T @ columns)


class InputMatrices:
    """Every matrix that is asked for, by any thread."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._changed = Condition()
        self._kept: OrderedDict[InputMatrix, Product] = OrderedDict()
        self._under_way: set[InputMatrix] = set()

    def of(self, matrix: InputMatrix) -> Product:
        """M, solved where it is not kept.

        Raises `NonFiniteError` for moments that are no numbers, `ParameterError` where they cannot be solved.
        """
        with self._changed:
            while matrix in self._under_way or (matrix not in self._kept and not self._has_room(matrix)):
                self._changed.wait()
            if matrix in self._kept:
                self._kept.move_to_end(matrix)
                return self._kept[matrix]
            self._under_way.add(matrix)
        try:
            made = solved(matrix, self._files)
            with self._changed:
                self._keep(matrix, made)
            return made
        finally:
            with self._changed:
                self._under_way.discard(matrix)
                self._changed.notify_all()

    def _has_room(self, matrix: InputMatrix) -> bool:
        busy = sum(map(solving_bytes, self._under_way))
        return not busy or busy + solving_bytes(matrix) <= SOLVING_BYTES

    def _keep(self, matrix: InputMatrix, made: Product) -> None:
        self._kept[matrix] = made
        total = sum(product.bytes for product in self._kept.values())
        while total > KEPT_BYTES and len(self._kept) > 1:
            total -= self._kept.popitem(last=False)[1].bytes


def is_thin(matrix: InputMatrix) -> bool:
    """Whether all moments are stored as rows, together no more than the input is wide: then M has their rank."""
    rows = [entry.shape[0] for entry in matrix.entries]
    return not matrix.positions and max(rows) < matrix.size and sum(rows) <= matrix.size


def product_bytes(matrix: InputMatrix) -> int:
    """Of M in memory."""
    return 4 * matrix.size * (2 * matrix.harmful.shape[0] if is_thin(matrix) else matrix.size)


def solving_bytes(matrix: InputMatrix) -> int:
    """Scratch of a solve, about, M itself included."""
    if is_thin(matrix):
        rows = sum(entry.shape[0] for entry in matrix.entries)
        return 24 * rows * matrix.size + 16 * rows * rows
    return 24 * matrix.size * matrix.size


def solving_operations(matrix: InputMatrix) -> int:
    """Floating-point operations of a solve, in double precision."""
    if is_thin(matrix):
        rows = sum(entry.shape[0] for entry in matrix.entries)
        return 2 * rows * rows * matrix.size + rows**3 // 3 + 2 * rows * matrix.harmful.shape[0] * matrix.size
    expanded = sum(2 * entry.shape[0] for entry in matrix.entries if entry.shape[0] < matrix.size)
    return (expanded + 2 * matrix.size) * matrix.size**2 + matrix.size**3 // 3


def solved(matrix: InputMatrix, files: Files) -> Product:
    """M of one input, by a Cholesky factorisation in float64; zero where the harmful moment is zero."""
    return _thin(matrix, files) if is_thin(matrix) else _whole(matrix, files)


def _whole(matrix: InputMatrix, files: Files) -> Product:
    import torch

    harmful = _moment(matrix, 0, files)
    if not bool(harmful.any()):
        return Product(torch.zeros(matrix.size, matrix.size))
    system = harmful.to(torch.float64, copy=True)
    for index in range(1, len(matrix.entries)):
        system.add_(_moment(matrix, index, files), alpha=matrix.beta / len(matrix.harmless))
    system.diagonal().add_(matrix.ridge * float(harmful.diagonal().double().sum()) / matrix.size)
    factor = _factorised(system, matrix)
    del system
    product = torch.empty(matrix.size, matrix.size)
    for start in range(0, matrix.size, _COLUMNS):  # M^T = A^-1 C_h, by columns
        columns = harmful[:, start : start + _COLUMNS].double()
        product[start : start + _COLUMNS] = torch.cholesky_solve(columns, factor).T
    return Product(_finite(product, matrix))


def _thin(matrix: InputMatrix, files: Files) -> Product:
    """From rows Z, C_h = Z_h^T Z_h: M = Z_h^T E^T (Z Z^T + lambda I)^-1 Z, E Z = Z_h; nothing of n by n is needed."""
    import torch

    parts = [_stored(entry, files) for entry in matrix.entries]
    share = (matrix.beta / len(matrix.harmless)) ** 0.5
    stacked = torch.cat([parts[0].double(), *(share * part.double() for part in parts[1:])])
    count = len(parts[0])
    shift = matrix.ridge * float(stacked[:count].square().sum()) / matrix.size
    if not bool(parts[0].any()):
        return Product(torch.zeros(matrix.size, count), torch.zeros(count, matrix.size))
    system = stacked @ stacked.T
    system.diagonal().add_(shift)
    chosen = torch.eye(len(stacked), count, dtype=torch.float64)
    right = torch.cholesky_solve(chosen, _factorised(system, matrix)).T @ stacked
    return Product(parts[0].T.contiguous(), _finite(right.float(), matrix))


def _moment(matrix: InputMatrix, index: int, files: Files) -> Tensor:
    """C, [n, n], as it is stored or squared in float64, shrunk where that is asked for."""
    found = _stored(matrix.entries[index], files)
    if len(found) < matrix.size:
        wide = found.double()
        found = wide.T @ wide
    if matrix.positions:
        return shrunk(found, matrix.positions[index])
    return found


def shrunk(moment: Tensor, positions: int) -> Tensor:
    """(1 - rho) C + rho tr(C) / n I, rho by the oracle approximating rule for a mean over `positions`.

    Chen, Wiesel, Eldar, Hero, "Shrinkage Algorithms for MMSE Covariance Estimation", IEEE TSP 58(10), 2010, eq. 23.
    """
    size = len(moment)
    trace, squares = float(moment.diagonal().double().sum()), float(moment.double().square().sum())
    apart = squares - trace**2 / size
    above = (1 - 2 / size) * squares + trace**2
    below = (positions + 1 - 2 / size) * apart
    rho = 1.0 if below <= 0 else min(1.0, max(0.0, above / below))
    result = moment * (1 - rho)
    result.diagonal().add_(rho * trace / size)
    return result


def _stored(entry: TensorEntry, files: Files) -> Tensor:
    import torch

    found = torch.empty(entry.shape)
    files.read(entry, 0, found.numpy().data.cast("B"))
    if not bool(torch.isfinite(found).all()):
        raise NonFiniteError(
            f"{entry.name} in {entry.path} holds NaN or infinity",
            advice="make the moments anew with  alignmend moments",
        )
    return found


def _factorised(system: Tensor, matrix: InputMatrix) -> Tensor:
    import torch

    factor: Tensor
    factor, info = torch.linalg.cholesky_ex(system)
    if int(info) != 0:
        raise ParameterError(
            f"the moments {matrix.harmful.name} in {matrix.harmful.path} cannot be solved at ridge {matrix.ridge:g}",
            advice="take a larger ridge, such as 0.001, or moments of more texts",
        )
    return factor


def _finite(product: Tensor, matrix: InputMatrix) -> Tensor:
    import torch

    if not bool(torch.isfinite(product).all()):
        raise ParameterError(
            f"the moments {matrix.harmful.name} in {matrix.harmful.path} overflow at beta {matrix.beta:g} and "
            f"ridge {matrix.ridge:g}",
            advice="take a larger ridge, such as 0.001, or a smaller beta",
        )
    return product
