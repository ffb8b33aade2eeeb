"""Directions held in memory, so that another coefficient costs little more than a pass over the weights.

A change is a sum of directions times coefficients. The directions are computed once, by the executor's own blocks, and
kept as float32; sums are then taken in the order of the expression, every operation rounded by itself, so the bits are
those that the executor writes.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from alignmend.algebra.programs import Plus, Program, Times
from alignmend.execution.blocks import BLOCK, Evaluator, torch_dtype
from alignmend.execution.files import Files
from alignmend.execution.parallel import in_order
from alignmend.execution.pieces import PIECE, cut
from alignmend.execution.rounding import sum_of_squares, to_bfloat16_stochastic
from alignmend.execution.slots import Slot
from alignmend.io.tensors import ARITHMETIC_DTYPES, TensorEntry

STEP = 4 * BLOCK
"""Elements per operation: scratch stays in the cache."""


@dataclass(frozen=True)
class Term:
    """One summand: a direction, and the coefficients that it is multiplied with, the innermost first."""

    direction: Program
    coefficients: tuple[float, ...]


def terms_of(change: Program) -> tuple[Term, ...]:
    """A change as a sum, in its own order."""
    return tuple(_term(one) for one in (change.terms if isinstance(change, Plus) else (change,)))


def _term(program: Program) -> Term:
    coefficients: list[float] = []
    while isinstance(program, Times):
        coefficients.insert(0, program.coefficient)
        program = program.operand
    return Term(program, tuple(coefficients))


@dataclass(frozen=True)
class Writing:
    """A stored tensor in a model, its `slot`, that shall be the stored one plus `change`, rounded to `rounded`.

    `rounded` is None where the stored numbers are of another kind, and are copied. With a `stream`, bfloat16 is rounded
    stochastically, by `seed` and the random bits under that name.
    """

    entry: TensorEntry
    change: Program | None
    rounded: torch.dtype | None
    slot: Slot
    stream: str | None = None
    seed: int = 0


class _Scratch:
    """A thread's own vectors, as long as was needed."""

    def __init__(self) -> None:
        self._floats = torch.empty(0), torch.empty(0)
        self._narrow = torch.empty(0)

    def floats(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Two of float32."""
        if self._floats[0].numel() < length:
            self._floats = torch.empty(length), torch.empty(length)
        return self._floats[0][:length], self._floats[1][:length]

    def narrow(self, values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The values rounded to `dtype`."""
        if self._narrow.dtype != dtype or self._narrow.numel() < values.numel():
            self._narrow = torch.empty(values.numel(), dtype=dtype)
        return self._narrow[: values.numel()].copy_(values)


class Held:
    """Target tensors and directions in memory, at most `budget` bytes; the least recently used go first."""

    def __init__(self, budget: int, threads: int) -> None:
        self.budget, self._threads = budget, threads
        self.bytes = 0
        self._directions: OrderedDict[tuple[TensorEntry, Program], torch.Tensor] = OrderedDict()
        self._targets: dict[TensorEntry, torch.Tensor] = {}

    def holds(self, wanted: list[tuple[TensorEntry, Program | None]]) -> bool:
        """Whether all of it fits at once, beside the targets that are held already."""
        targets = sum(entry.bytes for entry, _ in wanted if entry not in self._targets)
        kept = sum(entry.bytes for entry in self._targets)
        directions = sum(4 * entry.size * len(terms_of(change)) for entry, change in wanted if change is not None)
        plain = all(entry.dtype in ARITHMETIC_DTYPES for entry, change in wanted if change is not None)
        return plain and targets + kept + directions <= self.budget

    def fetch(self, wanted: list[tuple[TensorEntry, Program | None]]) -> bool:
        """Compute what is not held yet; what was used longest ago makes room. False where something is not finite."""
        keys = [(entry, term.direction) for entry, change in wanted if change for term in terms_of(change)]
        for key in keys:
            if key in self._directions:
                self._directions.move_to_end(key)
        missing = [key for key in dict.fromkeys(keys) if key not in self._directions]
        fresh = [entry for entry in dict.fromkeys(entry for entry, _ in wanted) if entry not in self._targets]
        self._make_room(sum(4 * entry.size for entry, _ in missing) + sum(entry.bytes for entry in fresh))
        with Files() as files:
            for entry in fresh:
                raw = torch.from_numpy(np.empty(entry.bytes, dtype=np.uint8))
                files.read(entry, 0, raw.numpy().data)
                self._targets[entry] = raw
                self.bytes += entry.bytes
            jobs = ((*key, *piece) for key in missing for piece in cut(*key))
            try:
                for key in missing:
                    # numpy asks for huge pages, whose first use costs a fifth.
                    self._directions[key] = torch.from_numpy(np.empty(key[0].size, dtype=np.float32))
                    self.bytes += 4 * key[0].size
                for _ in in_order(jobs, lambda: Evaluator(files), self._compute, self._threads):
                    pass
            except BaseException:  # what is not computed whole is no direction
                self._drop(missing)
                raise
        return self._all_finite(missing)

    def write(self, jobs: Iterable[Writing]) -> None:
        """Put targets plus changes into their slots; all that they need must be held."""
        pieces = (
            (job, start, min(start + PIECE, job.entry.size))
            for job in jobs
            for start in range(0, job.entry.size, PIECE)
        )
        for _ in in_order(pieces, _Scratch, self._write, self._threads):
            pass

    def _write(self, scratch: _Scratch, piece: tuple[Writing, int, int]) -> None:
        job, first, last = piece
        entry, change, slot, rounded = job.entry, job.change, job.slot, job.rounded
        target = self._targets[entry].view(slot.dtype if rounded is None else torch_dtype(entry.dtype))
        terms = () if change is None else terms_of(change)
        with torch.no_grad():  # which is a thread's own setting
            for start in range(first, last, STEP):
                here = slice(start, min(start + STEP, last))
                if rounded is None or (change is None and target.dtype == rounded):
                    slot.put(start, target[here])
                    continue
                parts = [(self._directions[entry, one.direction][here], one.coefficients) for one in terms]
                values = _moved(target[here], parts, *scratch.floats(here.stop - start))
                if job.stream is not None and rounded == torch.bfloat16:
                    slot.put(start, to_bfloat16_stochastic(values, job.seed, job.stream, start))
                    continue
                whole = rounded in (torch.float32, slot.dtype)
                slot.put(start, values if whole else scratch.narrow(values, rounded))

    def _all_finite(self, keys: list[tuple[TensorEntry, Program]]) -> bool:
        """Directions that are not are dropped."""
        broken = [key for key in keys if not _is_finite(self._directions[key])]
        self._drop(broken)
        return not broken

    def _drop(self, keys: list[tuple[TensorEntry, Program]]) -> None:
        for key in keys:
            if (gone := self._directions.pop(key, None)) is not None:
                self.bytes -= 4 * gone.numel()

    def _make_room(self, size: int) -> None:
        while self._directions and self.bytes + size > self.budget:
            _, gone = self._directions.popitem(last=False)
            self.bytes -= 4 * gone.numel()

    def _compute(self, evaluator: Evaluator, job: tuple[TensorEntry, Program, int, int]) -> None:
        entry, program, first, last = job
        evaluator.prepare((program,), None, first, last)
        into = self._directions[entry, program]
        for start in range(first, last, BLOCK):
            stop = min(start + BLOCK, last)
            evaluator.begin_block(start, stop)
            values = evaluator.run(program, start, stop)
            into[start:stop].copy_(values)
            evaluator.give(values)


_Part = tuple[torch.Tensor, tuple[float, ...]]
"""A direction and its coefficients."""


def _moved(target: torch.Tensor, parts: list[_Part], own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The target plus the sum of the parts as float32, in one of the two scratch vectors."""
    if len(parts) < 2:
        own.copy_(target)
        return _add(*parts[0], own, other) if parts else own
    _scaled(*parts[0], own)
    for direction, coefficients in parts[1:]:
        _add(direction, coefficients, own, other)
    return own.add_(other.copy_(target))


def _is_finite(values: torch.Tensor) -> bool:
    """A sum of squares is finite where all values are, unless one overflows: then each is looked at."""
    blocks = (values[start : start + STEP] for start in range(0, values.numel(), STEP))
    return all(math.isfinite(sum_of_squares(one)) or bool(torch.isfinite(one).all()) for one in blocks)


def _add(
    direction: torch.Tensor, coefficients: tuple[float, ...], into: torch.Tensor, scratch: torch.Tensor
) -> torch.Tensor:
    if len(coefficients) == 1 and adds_products_separately():
        return into.addcmul_(direction, _ONE, value=coefficients[0])
    return into.add_(_scaled(direction, coefficients, scratch))


def _scaled(direction: torch.Tensor, coefficients: tuple[float, ...], into: torch.Tensor) -> torch.Tensor:
    if not coefficients:
        return into.copy_(direction)
    torch.mul(direction, coefficients[0], out=into)
    for coefficient in coefficients[1:]:
        into.mul_(coefficient)
    return into


_ONE = torch.ones(())


@cache
def adds_products_separately() -> bool:
    """Whether `addcmul` rounds the product before it adds, on this machine with this torch: a trial on odd lengths.

    Where it does, one operation does the work of two; a fused multiply-add would differ in a fifth of the elements.
    """
    generator = torch.Generator().manual_seed(0)
    values, direction = (torch.randn(1 << 16, generator=generator) for _ in range(2))
    return all(
        torch.equal(
            values[:length] + direction[:length] * 0.37, values[:length].addcmul(direction[:length], _ONE, value=0.37)
        )
        for length in (values.numel(), *range(1, 64))
    )
