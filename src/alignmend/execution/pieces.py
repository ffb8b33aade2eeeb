"""The unit of work: one range of one output tensor, as a picklable value, and the function that computes it.

Where pieces begin and end depends on the tensor's shape alone, never on threads, shards or memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from alignmend.algebra.programs import Program, entries_of, row_size
from alignmend.errors import NonFiniteError
from alignmend.execution.blocks import BLOCK, Evaluator, torch_dtype
from alignmend.execution.patches import Tallies, added
from alignmend.execution.rounding import Rounding, sum_of_squares, to_bfloat16_stochastic, to_nearest
from alignmend.execution.sparse import SparseReader, keeps_of
from alignmend.io.tensors import ARITHMETIC_DTYPES, TensorEntry

PIECE = 16 * BLOCK
"""Elements of an elementwise piece: enough work for a thread between two looks at the queue."""
ROW_PIECE = 4 * BLOCK
"""Elements, about, of a piece with whole-row parts, whose product is held in float32."""


@dataclass(frozen=True)
class Piece:
    """Elements `[start, stop)` of one output tensor: where they come from, and how they are rounded."""

    entry: TensorEntry
    """The target's tensor."""
    change: Program | None
    """What is added to it; None copies."""
    start: int
    stop: int
    dtype: str
    """The output's safetensors dtype name."""
    rounding: Rounding
    seed: int
    allow_nonfinite: bool
    stream: str
    """The name under which random bits are drawn."""


@dataclass(frozen=True)
class PieceReport:
    """What rounding made of a piece's step: sums of squares over its elements."""

    step: float
    """Of the intended change."""
    error: float
    """Of the realised change minus the intended one."""
    patches: Tallies = ()
    """What labelled masks kept."""


class Sink(Protocol):
    """Takes output bytes, beginning with those of element `start`."""

    def __call__(self, start: int, data: memoryview) -> None:
        """Store them."""


def cut(entry: TensorEntry, change: Program | None) -> Iterator[tuple[int, int]]:
    """The ranges of a tensor's pieces, in order; an empty tensor has none."""
    step = PIECE
    if change is not None and (columns := row_size(change, entry.shape)) is not None:
        step = max(1, ROW_PIECE // columns) * columns
    for start in range(0, entry.size, step):
        yield start, min(start + step, entry.size)


def compute(piece: Piece, evaluator: Evaluator, sink: Sink) -> PieceReport:
    """Compute a piece block by block and hand its bytes to `sink`.

    Raises `NonFiniteError` for NaN or infinity in what is read or made, unless the piece allows them.
    """
    evaluator.prepare(() if piece.change is None else (piece.change,), piece.entry, piece.start, piece.stop)
    step = error = 0.0
    tallies: list[Tallies] = []
    sparse = _sparse(piece, evaluator)
    for start in range(piece.start, piece.stop, BLOCK):
        stop = min(start + BLOCK, piece.stop)
        if piece.change is None and piece.dtype == piece.entry.dtype:
            _copied_block(piece, evaluator, sink, start, stop)
        else:
            found = None if sparse is None else _sparse_block(piece, sparse, sink, start, stop)
            sparse = None if found is None else sparse
            report = found or _float_block(piece, evaluator, sink, start, stop)
            step, error = step + report.step, error + report.error
            tallies.append(report.patches)
    return PieceReport(step, error, added(tallies))


def _copied_block(piece: Piece, evaluator: Evaluator, sink: Sink, start: int, stop: int) -> None:
    """The stored bytes as they are, NaN payloads included."""
    data = evaluator.raw(piece.entry, start, stop)
    if piece.entry.dtype in ARITHMETIC_DTYPES and not piece.allow_nonfinite:
        stored = torch.frombuffer(data, dtype=torch_dtype(piece.entry.dtype))
        if not bool(torch.isfinite(stored).all()):
            raise nonfinite_in(piece.entry)
    sink(start, data)


def _sparse(piece: Piece, evaluator: Evaluator) -> SparseReader | None:
    """For pieces of which little changes, if rounding leaves the rest as it is stored."""
    keeps = keeps_of(piece.change) if piece.change is not None else ()
    plain = piece.rounding == "nearest" and {piece.dtype, piece.entry.dtype} == {"BF16"}
    return SparseReader(keeps, piece.entry, evaluator) if keeps and plain else None


def _sparse_block(piece: Piece, sparse: SparseReader, sink: Sink, start: int, stop: int) -> PieceReport | None:
    """None, and nothing written, where the whole block must be computed."""
    if piece.change is None:
        raise TypeError("piece.change is None")
    if (found := sparse.block(piece.change, start, stop)) is None:
        return None
    values = found.values + found.step
    rounded = to_nearest(values, torch.bfloat16)
    size, error = sum_of_squares(found.step), sum_of_squares(rounded.float().sub_(values))
    if not math.isfinite(size + error):
        return None
    found.stored[found.places] = rounded.view(torch.uint16).numpy()
    sink(start, found.stored.view(np.uint8).data)
    return PieceReport(size, error, found.tallies)


def _float_block(piece: Piece, evaluator: Evaluator, sink: Sink, start: int, stop: int) -> PieceReport:
    tallies: Tallies = ()
    if piece.change is None:
        values = evaluator.decode(piece.entry, start, stop)
        size = 0.0
    else:
        evaluator.begin_block(start, stop)
        step, tallies = evaluator.measured(piece.change, start, stop)
        size = sum_of_squares(step)
        values = evaluator.target(piece.entry, start, stop).add_(step)
        evaluator.give(step)
    rounded = _rounded(piece, values, start)
    error = _error(piece, values, rounded, evaluator)
    if not math.isfinite(size + error):
        _check_finite(piece, evaluator, values, rounded, start)
        size, error = 0.0, 0.0
    sink(start, rounded.view(torch.uint8).numpy().data)
    evaluator.give(values)
    return PieceReport(size, error, tallies)


def _rounded(piece: Piece, values: torch.Tensor, start: int) -> torch.Tensor:
    if piece.dtype == "F32":
        return values
    if piece.rounding == "stochastic" and piece.change is not None:
        return to_bfloat16_stochastic(values, piece.seed, piece.stream, start)
    return to_nearest(values, torch_dtype(piece.dtype))


def _error(piece: Piece, values: torch.Tensor, rounded: torch.Tensor, evaluator: Evaluator) -> float:
    """Sum of squares of what rounding changed; not finite where the result is not."""
    if piece.dtype == "F32":
        return 0.0 * sum_of_squares(values)
    back = evaluator.take(values.numel()).copy_(rounded)
    error = sum_of_squares(back.sub_(values))
    evaluator.give(back)
    return error


def _check_finite(piece: Piece, evaluator: Evaluator, values: torch.Tensor, rounded: torch.Tensor, start: int) -> None:
    """Raise `NonFiniteError` that names what is not finite, unless that is allowed or only a square overflowed."""
    if piece.allow_nonfinite or bool(torch.isfinite(rounded).all()):
        return
    entries = (piece.entry, *(entries_of(piece.change) if piece.change is not None else ()))
    if (culprit := find_nonfinite(entries, piece.entry.size, start, start + values.numel(), evaluator)) is not None:
        raise nonfinite_in(culprit)
    name = piece.entry.name
    if bool(torch.isfinite(values).all()):
        wider = "float32" if piece.dtype == "BF16" else "bfloat16 or float32"
        raise NonFiniteError(f"{name}: a result is too large for the output's {piece.dtype}", advice=f"write {wider}")
    raise NonFiniteError(f"{name}: the arithmetic overflows float32: is a coefficient far too large?")


def nonfinite_in(entry: TensorEntry) -> NonFiniteError:
    """The error that names a stored tensor with NaN or infinity in it."""
    return NonFiniteError(
        f"{entry.name} in {entry.path.parent.name}/{entry.path.name} holds NaN or infinity",
        advice="mend the file, or pass allow_nonfinite (--allow-nonfinite) to carry such values through",
    )


def find_nonfinite(
    entries: tuple[TensorEntry, ...], size: int, start: int, stop: int, evaluator: Evaluator
) -> TensorEntry | None:
    """The first stored tensor that is not finite on `[start, stop)`, or anywhere where it is smaller than `size`."""
    for entry in (entry for entry in entries if entry.dtype in ARITHMETIC_DTYPES):
        first, last = (start, stop) if entry.size >= size else (0, entry.size)
        if _holds_nonfinite(entry, first, last, evaluator):
            return entry
    return None


def _holds_nonfinite(entry: TensorEntry, first: int, last: int, evaluator: Evaluator) -> bool:
    for start in range(first, last, BLOCK):
        values = evaluator.decode(entry, start, min(start + BLOCK, last))
        finite = bool(torch.isfinite(values).all())
        evaluator.give(values)
        if not finite:
            return True
    return False
