"""Directions held in memory, so that another coefficient costs little more than a pass over the weights.

A change is a sum of directions times coefficients. The directions are computed once, by the executor's own blocks, and
kept as float32; sums are then taken in the order of the expression, every operation rounded by itself, so the bits are
those that the executor writes.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch

from alignmend.algebra.programs import Plus, Program, Times
from alignmend.execution.blocks import BLOCK, Evaluator, torch_dtype
from alignmend.execution.files import Files
from alignmend.execution.parallel import in_order
from alignmend.execution.pieces import cut
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


class Held:
    """Target tensors and directions in memory, at most `budget` bytes; the least recently used go first."""

    def __init__(self, budget: int, threads: int) -> None:
        self.budget, self._threads = budget, threads
        self.bytes = 0
        self._directions: OrderedDict[tuple[TensorEntry, Program], torch.Tensor] = OrderedDict()
        self._targets: dict[TensorEntry, torch.Tensor] = {}
        self._scratch = torch.empty(STEP), torch.empty(STEP)
        self._narrow: dict[torch.dtype, torch.Tensor] = {}

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
                raw = torch.empty(entry.bytes, dtype=torch.uint8)
                files.read(entry, 0, raw.numpy().data)
                self._targets[entry] = raw
                self.bytes += entry.bytes
            jobs = ((*key, *piece) for key in missing for piece in cut(*key))
            for key in missing:
                self._directions[key] = torch.empty(key[0].size)
                self.bytes += 4 * key[0].size
            for _ in in_order(jobs, lambda: Evaluator(files), self._compute, self._threads):
                pass
        return self._all_finite(missing)

    def write(self, entry: TensorEntry, change: Program | None, dtype: str, slot: torch.Tensor) -> None:
        """Put the target's tensor plus `change`, rounded to `dtype`, into `slot` [elements], in the slot's dtype."""
        raw = self._targets[entry]
        if change is None and dtype == entry.dtype:
            slot.copy_(raw.view(torch_dtype(dtype) if dtype in ARITHMETIC_DTYPES else slot.dtype))
            return
        target, rounded = raw.view(torch_dtype(entry.dtype)), torch_dtype(dtype)
        parts = (
            [(self._directions[entry, one.direction], one.coefficients) for one in terms_of(change)] if change else []
        )
        own, other = self._scratch
        narrow = self._narrow.setdefault(rounded, torch.empty(STEP, dtype=rounded))
        for start in range(0, entry.size, STEP):
            stop = min(start + STEP, entry.size)
            values = own[: stop - start]
            for place, (direction, coefficients) in enumerate(parts):
                here = values if place == 0 else other[: stop - start]
                _scaled(direction[start:stop], coefficients, here)
                if place:
                    values.add_(here)
            if parts:
                values.add_(target[start:stop])
            else:
                values.copy_(target[start:stop])
            whole = rounded in (torch.float32, slot.dtype)
            slot[start:stop].copy_(values if whole else narrow[: stop - start].copy_(values))

    def _all_finite(self, keys: list[tuple[TensorEntry, Program]]) -> bool:
        """Directions that are not are dropped."""
        broken = [key for key in keys if not bool(torch.isfinite(self._directions[key]).all())]
        for key in broken:
            self.bytes -= 4 * self._directions.pop(key).numel()
        return not broken

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


def _scaled(direction: torch.Tensor, coefficients: tuple[float, ...], into: torch.Tensor) -> None:
    if not coefficients:
        into.copy_(direction)
        return
    torch.mul(direction, coefficients[0], out=into)
    for coefficient in coefficients[1:]:
        into.mul_(coefficient)
