"""A loaded model whose weights follow expressions: candidates of a search are never written to disk.

Weights are computed by the executor's own pieces, from the mapped files, and copied into the model's tensors; so a
switched model has the weights that `save` would write, and switching back gives the first ones, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from alignmend.algebra.structure import TensorPlan, resolve
from alignmend.algebra.thresholds import Findings
from alignmend.algebra.values import Checkpoint
from alignmend.algebra.walks import Question, questions_of
from alignmend.errors import MismatchError
from alignmend.execution.blocks import Evaluator, torch_dtype
from alignmend.execution.files import Files
from alignmend.execution.finding import find
from alignmend.execution.held import Held, Writing
from alignmend.execution.operands import operands_of, read_states
from alignmend.execution.output_dtypes import OutputDtypes, output_dtypes
from alignmend.execution.parallel import in_order
from alignmend.execution.pieces import Piece, Sink, compute, cut
from alignmend.execution.rounding import Rounding
from alignmend.execution.slots import Slot, slots_of
from alignmend.execution.threads import thread_count
from alignmend.io.file_state import refuse_changed
from alignmend.io.tensors import ARITHMETIC_DTYPES


@dataclass(frozen=True)
class Switched:
    """What a switch did: tensors computed, and seconds."""

    tensors: int
    seconds: float


class InPlace:
    """Keeps a `transformers` model at the weights of an expression.

    `start` is what the model's weights are, or shall be, first. `dtype` is that of the output to come: weights are
    rounded to it (`round_to` says how), then take the model's own dtype. Directions are held in up to `memory` bytes,
    so that another coefficient of the same one is fast; without room for them they are computed from the files each
    time. Raises `MismatchError` where files and model do not share names.
    """

    def __init__(
        self, model: Any, start: Checkpoint, *, dtype: str | None = None, threads: int | None = None, memory: int = 0
    ) -> None:
        self.start, self.memory = start, memory
        self._dtype, self._threads = dtype, thread_count(threads)
        self._rounding: Rounding = "nearest"
        self._seed = 0
        self._dtypes: OutputDtypes = {}
        self._state = tuple(tensor.detach() for tensor in model.state_dict().values())
        stored = {plan.name: plan.entry for plan in resolve(start).tensors}
        self._shapes = {name: entry.shape for name, entry in stored.items()}
        self._slots = slots_of(model, stored)
        self._memory = Held(memory, self._threads)
        self._held: dict[str, TensorPlan] = {}
        self._found: dict[tuple[Question, ...], Findings] = {}
        self.switch(start)

    def switch(self, checkpoint: Checkpoint) -> Switched:
        """Give the model the weights of `checkpoint`; tensors that have them already are left alone.

        Raises `MismatchError` before anything changes, `NonFiniteError` where a weight is not finite: then the model
        goes back to `start`.
        """
        began = time.perf_counter()
        wanted = self._plans(checkpoint)
        self._check(wanted)
        # Two plans of one tensor hold the same values where they read and compute the same.
        changed = [plan for name, plan in wanted.items() if name in self._slots and self._held.get(name) != plan]
        try:
            self._fill(changed)
        except BaseException:
            for plan in changed:
                self._held.pop(plan.name, None)
            if checkpoint is not self.start:
                with suppress(Exception):  # the first error is the one to tell
                    self.switch(self.start)
            raise
        self._wait()
        refuse_changed(read_states(operands_of(checkpoint)))
        return Switched(len(changed), time.perf_counter() - began)

    def round_to(self, dtype: str | None, rounding: Rounding = "nearest", seed: int = 0) -> None:
        """How weights are rounded from now on: to `dtype` (None: the target's own), as `save` rounds."""
        self._dtype, self._rounding, self._seed = dtype, rounding, seed
        self._held.clear()

    def undo(self) -> Switched:
        """Switch back to `start`."""
        return self.switch(self.start)

    def differing(self) -> list[str]:
        """Names of tensors whose values were not those of `start`, bit for bit; all are afterwards.

        Reads every tensor; memory for one more at a time.
        """
        found = []
        for plan in self._plans(self.start).values():
            if plan.name in self._slots:
                before = self._slots[plan.name].read()
                self._fill([plan])
                if not _same_bits(self._slots[plan.name].read(), before):
                    found.append(plan.name)
        return found

    def pass_seconds(self) -> float:
        """One pass over the weights in memory: each is read once and written once, the median of three."""
        found = []
        with torch.no_grad():
            for _ in range(3):
                began = time.perf_counter()
                for tensor in self._state:
                    tensor.mul_(1)
                self._wait()
                found.append(time.perf_counter() - began)
        return sorted(found)[1]

    def _wait(self) -> None:
        """Until an accelerator has done what it was asked: it answers before."""
        if any(tensor.is_cuda for tensor in self._state):
            torch.cuda.synchronize()

    def _findings(self, checkpoint: Checkpoint) -> Findings | None:
        """Cuts and coefficients that the expression asks for, which do not depend on coefficients outside of them."""
        questions = questions_of(checkpoint.change) if checkpoint.change is not None else ()
        if not questions:
            return None
        if questions not in self._found:
            with Files() as files:
                self._found[questions] = find(checkpoint.change, checkpoint.root, files, self._threads)
        return self._found[questions]

    def _plans(self, checkpoint: Checkpoint) -> Mapping[str, TensorPlan]:
        structure = resolve(checkpoint, self._findings(checkpoint))
        self._dtypes = output_dtypes(checkpoint, structure, self._dtype)
        return {plan.name: plan for plan in structure.tensors}

    def _check(self, wanted: Mapping[str, TensorPlan]) -> None:
        for name, plan in wanted.items():
            shape = self._shapes.get(name)
            if name in self._slots and shape != plan.entry.shape:
                raise MismatchError(
                    f"{name} is {list(shape or ())} in the model and {list(plan.entry.shape)} in "
                    f"{plan.entry.path.parent.name}"
                )

    def _fill(self, plans: list[TensorPlan]) -> None:
        wanted = [(plan.entry, plan.change) for plan in plans]
        if self._memory.holds(wanted) and self._memory.fetch(wanted):
            self._memory.write(self._writing(plan) for plan in plans)
            self._held.update((plan.name, plan) for plan in plans)
            return
        with torch.no_grad(), Files() as files:
            jobs = (piece for plan in plans for piece in self._pieces(plan))
            for _ in in_order(jobs, lambda: Evaluator(files), self._work, self._threads):
                pass
        self._held.update((plan.name, plan) for plan in plans)

    def _writing(self, plan: TensorPlan) -> Writing:
        dtype = self._dtypes[plan.name]
        rounded = torch_dtype(dtype) if dtype in ARITHMETIC_DTYPES else None
        stream = plan.stream if self._rounding == "stochastic" and plan.change is not None else None
        return Writing(plan.entry, plan.change, rounded, self._slots[plan.name], stream, self._seed)

    def _pieces(self, plan: TensorPlan) -> Iterator[Piece]:
        dtype = self._dtypes[plan.name]
        for start, stop in cut(plan.entry, plan.change):
            yield Piece(plan.entry, plan.change, start, stop, dtype, self._rounding, self._seed, False, plan.stream)

    def _work(self, evaluator: Evaluator, piece: Piece) -> None:
        compute(piece, evaluator, _sink(self._slots[piece.entry.name], piece.dtype))


def _sink(slot: Slot, dtype: str) -> Sink:
    stored = torch_dtype(dtype) if dtype in ARITHMETIC_DTYPES else slot.dtype

    def sink(start: int, data: memoryview) -> None:
        with torch.no_grad():  # which is a thread's own setting
            slot.put(start, torch.frombuffer(data, dtype=stored))

    return sink


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8)))
