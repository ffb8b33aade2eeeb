"""Scores as bit patterns, part by part: counted, sampled, and their ties found.

Bit patterns of non-negative float32 sort as the numbers do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from alignmend.algebra.programs import Absolute, Program, Read, entries_of, row_size
from alignmend.algebra.structure import Ranked
from alignmend.errors import AlignmendError, FileFormatError, NonFiniteError, ParameterError
from alignmend.execution.blocks import BLOCK, Evaluator
from alignmend.execution.pieces import ROW_PIECE, cut, find_nonfinite
from alignmend.io.tensors import TensorEntry

Patterns: TypeAlias = npt.NDArray[np.uint32]
Halves: TypeAlias = npt.NDArray[np.uint16]
Counts: TypeAlias = npt.NDArray[np.int64]

LARGEST = 0x7F7F_FFFF
"""Bit pattern of the largest finite float32."""
HISTOGRAM_BITS = 20
_FEW = 1 << 14
"""Patterns that are sorted faster than they are dealt to all bins."""


@dataclass(frozen=True)
class Bracket:
    """Bit patterns `[low, high]`, both inside."""

    low: int
    high: int
    finest: int = 0
    """Bits at the end of every pattern that are zero, since the scores are stored so."""

    @property
    def shift(self) -> int:
        """Patterns per histogram bin, as a power of two."""
        return max(self.finest, (self.high - self.low).bit_length() - HISTOGRAM_BITS)

    @property
    def is_exact(self) -> bool:
        """Whether each bin is a single pattern."""
        return self.shift == self.finest

    @property
    def is_everything(self) -> bool:
        """Whether no pattern lies outside."""
        return self.low == 0 and self.high == LARGEST


@dataclass(frozen=True)
class Part:
    """One piece of one ranked tensor."""

    member: Ranked
    start: int
    stop: int


def zero_bits(members: Sequence[Ranked]) -> int:
    """Bits at the end of all patterns that are zero: bfloat16 is the upper half of a float32."""
    stored = [member.score for member in members]
    return 16 if all(isinstance(score, Read) and score.entry.dtype == "BF16" for score in stored) else 0


def parts_of(member: Ranked) -> Iterator[Part]:
    """The member's pieces in order, elementwise ones divided further: what is counted in a part is held in memory."""
    for start, stop in cut(member.entry, member.score):
        step = ROW_PIECE
        if member.score is not None and row_size(member.score, member.entry.shape) is not None:
            step = stop - start
        for first in range(start, stop, step):
            yield Part(member, first, min(first + step, stop))


@dataclass(frozen=True)
class PartTally:
    """What one pass saw in one part: elements above the bracket, and the bins inside it that are not empty."""

    above: int
    bins: Patterns
    counts: Counts


def patterns_of(part: Part, evaluator: Evaluator) -> Iterator[tuple[int, Patterns]]:
    """(first element, bit patterns of the scores) block by block; the array is valid until the next one."""
    score = part.member.score
    if score is not None:
        evaluator.prepare((score,), None, part.start, part.stop)
    for start in range(part.start, part.stop, BLOCK):
        stop = min(start + BLOCK, part.stop)
        if score is None:
            yield start, np.zeros(stop - start, dtype=np.uint32)
            continue
        evaluator.begin_block(start, stop)
        values = evaluator.run(score, start, stop)
        if not isinstance(score, Absolute):
            values.add_(0.0)  # minus zero becomes zero
        patterns = values.numpy().view(np.uint32)
        if patterns.max(initial=0) > LARGEST:
            raise _unfit_score(part.member.entry, score, values, start, evaluator)
        yield start, patterns
        evaluator.give(values)


def _halves_of(part: Part, evaluator: Evaluator) -> Iterator[tuple[int, Halves]]:
    """As `patterns_of`, of stored bfloat16: the upper halves, as they are in the file."""
    score = part.member.score
    if not isinstance(score, Read):
        raise TypeError(f"score is a {type(score).__name__}")
    for start in range(part.start, part.stop, BLOCK):
        stop = min(start + BLOCK, part.stop)
        halves = np.frombuffer(evaluator.raw(score.entry, start, stop), dtype=np.uint16)
        if halves.max(initial=0) > LARGEST >> 16:  # minus zero, or what is refused
            block = Part(part.member, start, stop)
            halves = np.concatenate(
                [(found >> np.uint32(16)).astype(np.uint16) for _, found in patterns_of(block, evaluator)]
            )
        yield start, halves


def thinned(part: Part, step: int, evaluator: Evaluator) -> Patterns:
    """The patterns of every element number `step` of a part of stored bfloat16."""
    found = [halves[-start % step :: step].astype(np.uint32) for start, halves in _halves_of(part, evaluator)]
    return np.concatenate(found) << np.uint32(16)


def _unfit_score(
    entry: TensorEntry, score: Program, values: torch.Tensor, start: int, evaluator: Evaluator
) -> AlignmendError:
    stop = start + values.numel()
    if (culprit := find_nonfinite(entries_of(score), entry.size, start, stop, evaluator)) is not None:
        return NonFiniteError(
            f"{culprit.name} in {culprit.path.parent.name}/{culprit.path.name} holds NaN or infinity, which "
            "cannot be ranked",
            advice="mend the file, or select other tensors",
        )
    if bool((values < 0).any()):
        return ParameterError(f"a score of {entry.name} is negative ({float(values.min()):.4g}): scores start at zero")
    return NonFiniteError(f"a score of {entry.name} overflows float32: is a coefficient far too large?")


def tallied(part: Part, bracket: Bracket, evaluator: Evaluator) -> PartTally:
    """Count what lies above the bracket, and make a histogram of what lies inside."""
    if part.member.score is None:
        zeros = np.array([part.stop - part.start] if bracket.low == 0 else [], dtype=np.int64)
        return PartTally(0, np.zeros(zeros.size, dtype=np.uint32), zeros)
    if bracket.finest:
        return _tallied_halves(part, bracket, evaluator)
    if bracket.is_everything:
        binned = [patterns >> np.uint32(bracket.shift) for _, patterns in patterns_of(part, evaluator)]
        return PartTally(0, *_histogram(np.concatenate(binned)))
    above, zeros_seen = 0, 0
    inside: list[Patterns] = []
    low, width = np.uint32(max(1, bracket.low)), np.uint32(max(1, bracket.high) - max(1, bracket.low))
    for _, patterns in patterns_of(part, evaluator):
        above += int(np.count_nonzero(patterns > bracket.high))
        zeros_seen += patterns.size - int(np.count_nonzero(patterns)) if bracket.low == 0 else 0
        if bracket.high > 0:
            inside.append(patterns[(patterns - low) <= width])
    return _binned(inside, zeros_seen, above, bracket)


def _tallied_halves(part: Part, bracket: Bracket, evaluator: Evaluator) -> PartTally:
    """As `tallied`, of stored bfloat16, whose 32,640 patterns fit one exact histogram."""
    low, high = np.uint16(bracket.low >> 16), np.uint16(bracket.high >> 16)
    above, counts = 0, np.zeros(int(high) - int(low) + 1, dtype=np.int64)
    for _, halves in _halves_of(part, evaluator):
        inside = halves
        if not bracket.is_everything:
            above += int(np.count_nonzero(halves > high))
            shifted = halves - low
            inside = shifted[shifted <= high - low]
        dealt = np.bincount(inside)
        counts[: dealt.size] += dealt
    found = np.flatnonzero(counts)
    return PartTally(above, found.astype(np.uint32), counts[found])


def _binned(inside: list[Patterns], zeros: int, above: int, bracket: Bracket) -> PartTally:
    patterns = np.concatenate(inside) if inside else np.zeros(0, dtype=np.uint32)
    bins, counts = _histogram((patterns - np.uint32(bracket.low)) >> np.uint32(bracket.shift))
    if zeros and bins.size and bins[0] == 0:
        counts[0] += zeros
    elif zeros:
        bins, counts = np.insert(bins, 0, 0), np.insert(counts, 0, zeros)
    return PartTally(above, bins, counts)


def _histogram(bins: Patterns) -> tuple[Patterns, Counts]:
    """The values that occur, ascending, and how often each does."""
    if bins.size < _FEW:
        values, counts = np.unique(bins, return_counts=True)
        return values, counts.astype(np.int64)
    dealt = np.bincount(bins.view(np.int32))  # numpy would widen unsigned numbers by way of a slower cast
    found = np.flatnonzero(dealt)
    return found.astype(np.uint32), dealt[found].astype(np.int64)


def sampled(part: Part, length: int, evaluator: Evaluator) -> Patterns:
    """A run of `length` patterns somewhere in the part; by its size, or small tensors would bias the cut."""
    score, size = part.member.score, part.stop - part.start
    if score is None:
        return np.zeros(min(length, size), dtype=np.uint32)
    columns = row_size(score, part.member.entry.shape) or 1
    run = -(-length // columns) * columns
    offset = (part.start * 2_654_435_761) % max(1, (size - run) // columns) * columns
    first = part.start + offset
    chosen = Part(part.member, first, min(first + run, part.stop))
    return np.concatenate([found.copy() for _, found in patterns_of(chosen, evaluator)])[:length]


def tie_stop(part: Part, bits: int, quota: int, evaluator: Evaluator) -> int:
    """One past the flat index of the part's tie number `quota`."""
    for start, patterns in patterns_of(part, evaluator):
        found = np.flatnonzero(patterns == bits)
        if found.size >= quota:
            return start + int(found[quota - 1]) + 1
        quota -= found.size
    raise changed(part)


def changed(part: Part) -> FileFormatError:
    """The error that tells of an input whose scores are not what an earlier pass saw."""
    entry = part.member.entry
    return FileFormatError(f"an input changed while {entry.name} was ranked: is something else writing to it?")
