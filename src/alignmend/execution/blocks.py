"""Run a program on one block of elements, in float32, in reused scratch that fits the cache.

Every operation is rounded by itself, in the order of the expression: a fused multiply-add would round once where
another machine rounds twice.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch

from alignmend.algebra.programs import (
    Above,
    AboveZero,
    Absolute,
    Along,
    And,
    Between,
    Constant,
    Differ,
    Dora,
    Elect,
    Invert,
    Keep,
    LowRank,
    MaskProgram,
    Or,
    Plus,
    Prefix,
    Program,
    Projected,
    RandomKeep,
    RankedKeep,
    Read,
    RightMultiplied,
    RowTop,
    Scattered,
    Stacked,
    Subtract,
    Times,
    TokenRows,
    Truth,
    read_counts,
    row_parts,
    whole_rows,
)
from alignmend.execution.files import Files
from alignmend.execution.patches import Tallies, Tally
from alignmend.execution.places import Places
from alignmend.execution.products import Products
from alignmend.execution.random_bits import bernoulli
from alignmend.execution.whole_rows import HeldRows
from alignmend.io.tensors import TensorEntry

BLOCK = 262_144
"""Elements per block: few enough for the cache, many enough that threads rarely wait for the interpreter."""

_LARGEST = 0x7F7F_FFFF
_TORCH_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of a safetensors dtype name that arithmetic may touch."""
    return _TORCH_DTYPES[name]


class Evaluator:
    """Evaluates programs block by block. One per thread; it owns its scratch."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self._free: list[torch.Tensor] = []
        self._raw = torch.empty(BLOCK * 8, dtype=torch.uint8)
        self._raw_bytes = self._raw.numpy().data
        self._sharing: tuple[TensorEntry, ...] = ()
        self._shared: dict[TensorEntry, torch.Tensor] = {}
        self._block: tuple[int, int] | None = None
        self._products = Products(files)
        self._places = Places(files)
        self._rows = HeldRows(files)
        self._free_truths: list[torch.Tensor] = []
        self._cuts: dict[tuple[TensorEntry, int, int, int, int], torch.Tensor] = {}
        """Masks of stored scores on one block, since several combined masks hold them."""
        self._labelled: dict[str, tuple[int, torch.Tensor]] | None = None
        """By label, how many weights its mask kept, and their values; None where nobody asked."""

    def take(self, length: int) -> torch.Tensor:
        """A float32 scratch vector [length]; give it back when done."""
        whole = self._free.pop() if self._free else torch.empty(BLOCK, dtype=torch.float32)
        return whole if length == BLOCK else whole[:length]

    def give(self, vector: torch.Tensor) -> None:
        """Return scratch for reuse."""
        self._free.append(vector if vector.numel() == BLOCK else vector._base if vector._base is not None else vector)

    def prepare(self, programs: tuple[Program, ...], target: TensorEntry | None, start: int, stop: int) -> None:
        """Compute the matrix products of a piece `[start, stop)` once, for all its blocks, and see what it shares."""
        parts = dict.fromkeys(part for program in programs for part in row_parts(program))
        self._products.prepare(tuple(parts), start, stop)
        counts: Counter[TensorEntry] = Counter() if target is None else Counter([target])
        for program in programs:
            counts.update(read_counts(program))
        self._sharing = ()
        self._forget()
        self.give_truths(*self._cuts.values())
        self._cuts.clear()
        rows = dict.fromkeys(found for program in programs for found in whole_rows(program))
        self._rows.prepare(tuple(rows), start, stop, self.whole)
        self._sharing = tuple(entry for entry, count in counts.items() if count > 1)

    def whole(self, program: Program, start: int, stop: int) -> torch.Tensor:
        """The program's values on any range, in a vector of its own."""
        values = torch.empty(stop - start)
        for first in range(start, stop, BLOCK):
            found = self.run(program, first, min(first + BLOCK, stop))
            values[first - start : first - start + found.numel()] = found
            self.give(found)
        return values

    def begin_block(self, start: int, stop: int) -> None:
        """Read what the prepared programs and their target share once in this block, when it is first needed."""
        self._forget()
        self._block = start, stop

    def _share(self, entry: TensorEntry) -> torch.Tensor | None:
        if self._block is not None and entry not in self._shared and entry in self._sharing:
            start, stop = self._block
            if stop <= entry.size:
                self._shared[entry] = self.decode(entry, start, stop)
        return self._shared.get(entry)

    def _forget(self) -> None:
        self._block = None
        for vector in self._shared.values():
            self.give(vector)
        self._shared.clear()

    def target(self, entry: TensorEntry, start: int, stop: int) -> torch.Tensor:
        """The target's own values as scratch owned by the caller."""
        return self._read(entry, start, stop)

    def raw(self, entry: TensorEntry, start: int, stop: int) -> memoryview:
        """The stored bytes of elements `[start, stop)`, valid until the next read."""
        count = (stop - start) * entry.item_size
        self.files.read(entry, start, self._raw_bytes[:count])
        return self._raw_bytes[:count]

    def decode(self, entry: TensorEntry, start: int, stop: int) -> torch.Tensor:
        """Elements `[start, stop)` of a stored tensor as float32 scratch."""
        values = self.take(stop - start)
        if entry.dtype == "F32":
            self.files.read(entry, start, values.numpy().data.cast("B"))
            return values
        count = len(self.raw(entry, start, stop))
        return values.copy_(self._raw[:count].view(torch_dtype(entry.dtype)))

    def run(self, program: Program, start: int, stop: int) -> torch.Tensor:
        """The program's float32 values on `[start, stop)`, at most `BLOCK` elements, as scratch owned by the caller."""
        match program:
            case Read(entry):
                return self._read(entry, start, stop)
            case Subtract(left, right):
                return self._subtract(left, right, start, stop)
            case Scattered():
                return self._scattered(program, start, stop)
            case LowRank() | Dora() | TokenRows() | Stacked():
                return self.take(stop - start).copy_(self._products.block(program, start, stop))
            case RightMultiplied() | Projected() | RankedKeep() | Along():
                return self.take(stop - start).copy_(self._rows.product(program, start, stop))
            case Times(coefficient, operand):
                return self.run(operand, start, stop).mul_(coefficient)
            case Plus(terms):
                return self._plus(terms, start, stop)
            case Prefix(limit, operand):
                return self._prefix(limit, operand, start, stop)
            case Keep(mask, operand, label):
                return self._keep(mask, operand, label, start, stop)
            case Elect(terms):
                return self._elect(terms, start, stop)
            case Absolute(operand):
                return self.run(operand, start, stop).abs_()
            case Truth(mask):
                truths = self.mask(mask, start, stop)
                values = self.take(stop - start).copy_(truths.view(torch.uint8))
                self.give_truths(truths)
                return values

    def measured(self, program: Program, start: int, stop: int) -> tuple[torch.Tensor, Tallies]:
        """As `run`, and what the labelled masks of the program kept."""
        self._labelled = {}
        values, found = self.run(program, start, stop), self._labelled
        self._labelled = None
        vectors = [vector for _, vector in found.values()]
        tallies = tuple(
            Tally(label, kept, stop - start, tuple(float(torch.dot(vector, other)) for other in vectors[: place + 1]))
            for place, (label, (kept, vector)) in enumerate(found.items())
        )
        for vector in vectors:
            self.give(vector)
        return values, tallies

    def _read(self, entry: TensorEntry, start: int, stop: int) -> torch.Tensor:
        shared = self._share(entry)
        if shared is None:
            return self.decode(entry, start, stop)
        return self.take(stop - start).copy_(shared[: stop - start])  # a prefix of the block, or all of it

    def _subtract(self, left: Read, right: Read, start: int, stop: int) -> torch.Tensor:
        shared_left, shared_right = self._share(left.entry), self._share(right.entry)
        if shared_left is not None and shared_right is not None:
            length = stop - start  # within a prefix, less than what is shared
            return torch.sub(shared_left[:length], shared_right[:length], out=self.take(length))
        values = self._read(left.entry, start, stop)
        other = self._read(right.entry, start, stop)
        values.sub_(other)
        self.give(other)
        return values

    def _scattered(self, program: Scattered, start: int, stop: int) -> torch.Tensor:
        first, places = self._places.between(program, start, stop)
        whole = self.take(stop - start).zero_()
        if places.numel():
            found = self.decode(program.values, first, first + places.numel())
            whole[places] = found
            self.give(found)
        return whole

    def _plus(self, terms: tuple[Program, ...], start: int, stop: int) -> torch.Tensor:
        total = self.run(terms[0], start, stop)
        for term in terms[1:]:
            other = self.run(term, start, stop)
            total.add_(other)
            self.give(other)
        return total

    def _elect(self, terms: tuple[Program, ...], start: int, stop: int) -> torch.Tensor:
        """Both signs' sums and counts side by side, so that scratch does not grow with the number of terms."""
        up, down, ups, downs = (self.take(stop - start).zero_() for _ in range(4))
        scratch = self.take(stop - start)
        for term in terms:
            values = self.run(term, start, stop)
            up.add_(torch.clamp(values, min=0, out=scratch))
            ups.add_(scratch.sign_())
            down.add_(values.clamp_(max=0))
            downs.sub_(values.sign_())
            self.give(values)
        elected = torch.add(up, down, out=scratch).sign_()
        up.div_(ups.clamp_(min=1)).mul_(torch.clamp(elected, min=0, out=ups))
        down.div_(downs.clamp_(min=1)).mul_(elected.neg_().clamp_(min=0))
        up.add_(down)
        for vector in (down, ups, downs, scratch):
            self.give(vector)
        return up

    def _prefix(self, limit: int, operand: Program, start: int, stop: int) -> torch.Tensor:
        values = self.take(stop - start).zero_()
        if start < limit:
            inside = self.run(operand, start, min(stop, limit))
            values[: inside.numel()].copy_(inside)
            self.give(inside)
        return values

    def _keep(self, mask: MaskProgram, operand: Program, label: str, start: int, stop: int) -> torch.Tensor:
        values = self.run(operand, start, stop)
        factors = self.take(stop - start)
        if isinstance(mask, Above) and mask.score == Absolute(operand):
            kept = _cut(torch.abs(values, out=factors), mask, start, self._take_truths(stop - start))
        else:
            kept = self.mask(mask, start, stop)
        # Bytes become floats seven times as fast as truth values do.
        values.mul_(factors.copy_(kept.view(torch.uint8)))
        self.give(factors)
        if label and self._labelled is not None and label not in self._labelled:
            self._labelled[label] = int(torch.count_nonzero(kept)), self.take(stop - start).copy_(values)
        self.give_truths(kept)
        return values

    def mask(self, mask: MaskProgram, start: int, stop: int) -> torch.Tensor:
        """The mask on `[start, stop)` as truth values, in scratch owned by the caller."""
        truths = self._take_truths(stop - start)
        match mask:
            case RandomKeep(density, seed, name):
                return truths.copy_(torch.from_numpy(bernoulli(density, seed, name, start, stop)))
            case Above(score, bits, tie_stop):
                if score is None:
                    truths.zero_()[: max(tie_stop - start, 0)] = bits == 0
                    return truths
                if isinstance(score, Read) and score.entry.dtype == "BF16" and 0 < bits < _LARGEST:
                    return self._cut_halves(score.entry, mask, start, stop, truths)
                shared = self._share(score.entry) if isinstance(score, Read) else None
                if shared is not None:
                    return _cut(shared[: stop - start], mask, start, truths)
                values = self.run(score, start, stop).abs_()
                _cut(values, mask, start, truths)
                self.give(values)
                return truths
            case RowTop():
                return truths.copy_(self._rows.mask(mask, start, stop))
            case Constant(value):
                return truths.fill_(value)
            case And(left, right) | Or(left, right):
                join = torch.bitwise_and if isinstance(mask, And) else torch.bitwise_or
                one, other = self.mask(left, start, stop), self.mask(right, start, stop)
                join(one, other, out=truths)
                self.give_truths(one, other)
                return truths
            case Invert(operand):
                one = self.mask(operand, start, stop)
                torch.bitwise_not(one, out=truths)
                self.give_truths(one)
                return truths
            case Differ():
                return self._differing(mask, start, stop, truths)
            case AboveZero(program):
                values = self.run(program, start, stop)
                torch.gt(values, 0, out=truths)
                self.give(values)
                return truths
            case Between(ranges, columns, by_row):
                places = torch.arange(start, stop)
                places = places // columns if by_row else places % columns
                truths.zero_()
                for first, last in ranges:
                    truths.logical_or_((places >= first) & (places < last))
                return truths
        raise AssertionError(mask)

    def _differing(self, mask: Differ, start: int, stop: int, truths: torch.Tensor) -> torch.Tensor:
        left, right = (
            self.take(stop - start).zero_() if side is None else self.run(side, start, stop).sign_()
            for side in (mask.left, mask.right)
        )
        if mask.zeros:
            torch.ne(left, right, out=truths)
        else:
            torch.lt(left.mul_(right), 0, out=truths)
        self.give(left)
        self.give(right)
        return truths

    def _cut_halves(self, entry: TensorEntry, mask: Above, start: int, stop: int, truths: torch.Tensor) -> torch.Tensor:
        """As `_cut`, of bfloat16 scores as they are stored; minus zero, a negative integer, is below every cut."""
        if (known := self._cuts.get((entry, mask.bits, mask.tie_stop, start, stop))) is not None:
            return truths.copy_(known)
        if any(first != start for *_, first, _ in self._cuts):
            self.give_truths(*self._cuts.values())
            self._cuts.clear()
        halves, found = np.frombuffer(self.raw(entry, start, stop), dtype=np.int16), truths.numpy()
        cut, on_cut = np.int16(mask.bits >> 16), mask.bits & 0xFFFF == 0
        granted = min(max(mask.tie_stop - start, 0), halves.size) if on_cut else 0
        np.greater_equal(halves[:granted], cut, out=found[:granted])
        np.greater(halves[granted:], cut, out=found[granted:])
        copied = self._take_truths(stop - start).copy_(truths)
        self._cuts[entry, mask.bits, mask.tie_stop, start, stop] = copied
        return truths

    def _take_truths(self, length: int) -> torch.Tensor:
        whole = self._free_truths.pop() if self._free_truths else torch.empty(BLOCK, dtype=torch.bool)
        return whole[:length]

    def give_truths(self, *vectors: torch.Tensor) -> None:
        """Return masks for reuse."""
        self._free_truths.extend(vector if vector._base is None else vector._base for vector in vectors)


def _cut(score: torch.Tensor, mask: Above, start: int, truths: torch.Tensor) -> torch.Tensor:
    """Truths where scores lie above the cut, or on it before `tie_stop`."""
    cut, values, found = np.uint32(mask.bits).view(np.float32), score.numpy(), truths.numpy()
    granted = min(max(mask.tie_stop - start, 0), values.size)
    # numpy compares into bytes six times as fast as torch does.
    np.greater_equal(values[:granted], cut, out=found[:granted])
    np.greater(values[granted:], cut, out=found[granted:])
    return truths
