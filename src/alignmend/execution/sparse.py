"""Blocks of which masks keep little: only the weights that are kept are computed, all others are copied as bytes.

The result is bit for bit that of the whole block, which is computed wherever that could fail: where something stored is
not finite or near the largest numbers. A target of minus zero counts as kept, since adding zero can change its sign.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from alignmend.algebra.programs import And, Keep, MaskProgram, Or, Plus, Program, RandomKeep, Subtract, Times
from alignmend.execution.blocks import Evaluator
from alignmend.execution.patches import Tallies, Tally
from alignmend.io.tensors import TensorEntry

MOST = 8
"""Beyond one kept weight in so many, computing all of them is as fast."""
_EXPONENT, _NEAR_LARGEST, _MINUS_ZERO = np.uint16(0x7F80), np.uint16(0x7F00), np.uint16(0x8000)

Halves = npt.NDArray[np.uint16]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class SparseBlock:
    """What is kept of a block of a bfloat16 target."""

    stored: Halves
    """The target's bytes, to be changed at `places`."""
    places: Places
    values: torch.Tensor
    """The target there, float32."""
    step: torch.Tensor
    """The change there; zero elsewhere."""
    tallies: Tallies


def keeps_of(change: Program) -> tuple[Keep, ...]:
    """The masked parts that a change is a sum of, each thinned below one in `MOST`; none where it is another sum."""
    parts = _parts(change)
    return tuple(dict.fromkeys(parts)) if parts is not None and all(_may_be_thin(one.mask) for one in parts) else ()


def _parts(change: Program) -> list[Keep] | None:
    match change:
        case Keep(_, operand):
            return [change] if _is_stored(operand) else None
        case Times(_, operand):
            return _parts(operand)
        case Plus(terms):
            found = [_parts(term) for term in terms]
            return None if any(part is None for part in found) else [one for part in found for one in part or ()]
        case _:
            return None


def _is_stored(operand: Program) -> bool:
    return isinstance(operand, Subtract) and {operand.left.entry.dtype, operand.right.entry.dtype} == {"BF16"}


def _may_be_thin(mask: MaskProgram) -> bool:
    match mask:
        case RandomKeep(density=density):
            return density * MOST < 1
        case And(left, right):
            return _may_be_thin(left) or _may_be_thin(right)
        case Or(left, right):
            return _may_be_thin(left) and _may_be_thin(right)
        case _:
            return hasattr(mask, "score")


class SparseReader:
    """Computes the kept weights of one piece."""

    def __init__(self, keeps: tuple[Keep, ...], target: TensorEntry, evaluator: Evaluator) -> None:
        self.keeps, self.target, self.evaluator = keeps, target, evaluator
        subtractions = [keep.operand for keep in keeps if isinstance(keep.operand, Subtract)]
        reads = (read.entry for one in subtractions for read in (one.left, one.right))
        self.entries = tuple(dict.fromkeys((target, *reads)))

    def block(self, change: Program, start: int, stop: int) -> SparseBlock | None:
        """The block `[start, stop)`, or None where all of it must be computed."""
        kept = {keep: self.evaluator.mask(keep.mask, start, stop) for keep in self.keeps}
        try:
            return self._block(change, {keep: truths.numpy() for keep, truths in kept.items()}, start, stop)
        finally:
            self.evaluator.give_truths(*kept.values())

    def _block(
        self, change: Program, kept: dict[Keep, npt.NDArray[np.bool_]], start: int, stop: int
    ) -> SparseBlock | None:
        stored = {entry: self._halves(entry, start, stop) for entry in self.entries}
        if any(halves is None for halves in stored.values()):
            return None
        read = {entry: halves for entry, halves in stored.items() if halves is not None}
        somewhere = read[self.target] == _MINUS_ZERO
        for truths in kept.values():
            somewhere |= truths
        places = np.flatnonzero(somewhere)
        if places.size * MOST > stop - start:
            return None
        at = {entry: _floats(halves.take(places)) for entry, halves in read.items()}
        parts = {keep: self._part(keep, at, truths.take(places)) for keep, truths in kept.items()}
        step = _run(change, parts)
        counts = {keep: int(np.count_nonzero(truths)) for keep, truths in kept.items()}
        return SparseBlock(read[self.target], places, at[self.target], step, _tallies(parts, counts, stop - start))

    def _halves(self, entry: TensorEntry, start: int, stop: int) -> Halves | None:
        """The stored numbers; None where one is not finite or so large that a difference could overflow."""
        halves = np.frombuffer(self.evaluator.raw(entry, start, stop), dtype=np.uint16).copy()
        return halves if (halves & _EXPONENT).max(initial=0) < _NEAR_LARGEST else None

    def _part(self, keep: Keep, at: dict[TensorEntry, torch.Tensor], kept: npt.NDArray[np.bool_]) -> torch.Tensor:
        operand = keep.operand
        if not isinstance(operand, Subtract):
            raise TypeError(f"operand is a {type(operand).__name__}")
        return torch.sub(at[operand.left.entry], at[operand.right.entry]).mul_(torch.from_numpy(kept).float())


def _floats(halves: Halves) -> torch.Tensor:
    return torch.from_numpy(halves).view(torch.bfloat16).float()


def _run(change: Program, parts: dict[Keep, torch.Tensor]) -> torch.Tensor:
    match change:
        case Keep():
            return parts[change].clone()
        case Times(coefficient, operand):
            return _run(operand, parts).mul_(coefficient)
        case Plus(terms):
            total = _run(terms[0], parts)
            for term in terms[1:]:
                total.add_(_run(term, parts))
            return total
    raise AssertionError(change)


def _tallies(parts: dict[Keep, torch.Tensor], counts: dict[Keep, int], weights: int) -> Tallies:
    first: dict[str, Keep] = {}
    for keep in parts:
        if keep.label:
            first.setdefault(keep.label, keep)
    vectors = [parts[keep] for keep in first.values()]
    return tuple(
        Tally(label, counts[keep], weights, tuple(float(torch.dot(parts[keep], one)) for one in vectors[: place + 1]))
        for place, (label, keep) in enumerate(first.items())
    )
