"""The streaming executor: pieces of output tensors, computed by a few threads straight into preallocated files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from alignmend.algebra.programs import entries_of
from alignmend.algebra.structure import Structure, TensorPlan
from alignmend.execution.blocks import Evaluator
from alignmend.execution.files import Files, write_all
from alignmend.execution.journal import Journal, read_journal
from alignmend.execution.output_dtypes import OutputDtypes
from alignmend.execution.parallel import in_order
from alignmend.execution.patches import patch_records
from alignmend.execution.pieces import Piece, PieceReport, compute, cut
from alignmend.execution.rounding import Rounding
from alignmend.execution.steps import StepTable, tensor_step
from alignmend.execution.threads import thread_count
from alignmend.io.shards import Shard
from alignmend.io.staging import Staging
from alignmend.io.tensors import ITEM_SIZES

AHEAD = 6
"""Pieces per thread that the operating system is asked to fetch in advance."""


class WritingOptions(Protocol):
    """The part of the options that streaming needs."""

    @property
    def rounding(self) -> Rounding: ...
    @property
    def seed(self) -> int: ...
    @property
    def threads(self) -> int | None: ...
    @property
    def allow_nonfinite(self) -> bool: ...


@dataclass(frozen=True)
class Placed:
    """A piece, and where its bytes go."""

    number: int
    piece: Piece
    shard: Shard
    position: int
    """Of the first byte of the tensor in the shard."""

    @property
    def bytes(self) -> int:
        """Bytes to be written."""
        return (self.piece.stop - self.piece.start) * ITEM_SIZES[self.piece.dtype]


def stream(
    structure: Structure,
    shards: tuple[Shard, ...],
    stage: Staging,
    files: Files,
    *,
    dtypes: OutputDtypes,
    options: WritingOptions,
    progress: Callable[[str, int, int], None],
) -> StepTable:
    """Write every shard into `stage`, skipping pieces that a resumed run finished; returns the steps per tensor."""
    placed = list(place(structure, shards, dtypes, options))
    finished = read_journal(stage.work / "journal")
    reports = {number: report for number, report in finished.items() if number < len(placed)}
    remaining = [one for one in placed if one.number not in reports]
    total = sum(one.bytes for one in placed)
    done = total - sum(one.bytes for one in remaining)
    threads = thread_count(options.threads)
    with (
        outputs(shards, stage.path) as descriptors,
        _journal(stage.work / "journal", descriptors) as journal,
    ):
        work = _worker(descriptors)
        jobs = _announced(remaining, files, AHEAD * threads)
        for one, report in in_order(jobs, lambda: Evaluator(files), work, threads):
            reports[one.number] = report
            journal.finished(one.number, one.shard.file, report, one.bytes)
            done += one.bytes
            progress("write", done, total)
    return _steps(placed, reports)


def place(
    structure: Structure, shards: tuple[Shard, ...], dtypes: OutputDtypes, options: WritingOptions
) -> Iterator[Placed]:
    """All pieces of an output in the order of their bytes."""
    plans = {plan.name: plan for plan in structure.tensors}
    number = 0
    for shard in shards:
        for name, position in shard.offsets.items():
            for piece in _pieces(plans[name], dtypes[name], options):
                yield Placed(number, piece, shard, position)
                number += 1


def _pieces(plan: TensorPlan, dtype: str, options: WritingOptions) -> Iterator[Piece]:
    for start, stop in cut(plan.entry, plan.change):
        yield Piece(
            plan.entry,
            plan.change,
            start,
            stop,
            dtype,
            options.rounding,
            options.seed,
            options.allow_nonfinite,
            plan.stream,
        )


def _worker(descriptors: dict[str, int]) -> Callable[[Evaluator, Placed], PieceReport]:
    def work(evaluator: Evaluator, one: Placed) -> PieceReport:
        descriptor, size = descriptors[one.shard.file], ITEM_SIZES[one.piece.dtype]

        def sink(start: int, data: memoryview) -> None:
            write_all(descriptor, data, one.position + start * size)

        return compute(one.piece, evaluator, sink)

    return work


def _announced(jobs: list[Placed], files: Files, ahead: int) -> Iterator[Placed]:
    """The jobs in order, each after the operating system was asked to fetch those that follow."""
    for index, job in enumerate(jobs):
        for later in jobs[index + ahead : index + ahead + 1] if index else jobs[: ahead + 1]:
            _announce(later.piece, files)
        yield job


def _announce(piece: Piece, files: Files) -> None:
    for entry in {piece.entry, *(entries_of(piece.change) if piece.change is not None else ())}:
        if entry.size == piece.entry.size:
            files.will_need(entry, piece.start, piece.stop)


@contextmanager
def outputs(shards: tuple[Shard, ...], folder: Path) -> Iterator[dict[str, int]]:
    """Open every shard at its full size, its header written."""
    with ExitStack() as stack:
        descriptors = {}
        for shard in shards:
            descriptor = os.open(folder / shard.file, os.O_RDWR | os.O_CREAT, 0o644)
            stack.callback(os.close, descriptor)
            _allocate(descriptor, shard.size)
            write_all(descriptor, memoryview(shard.header), 0)
            descriptors[shard.file] = descriptor
        yield descriptors


def _allocate(descriptor: int, size: int) -> None:
    """Reserve the disk space now, where the system can, so that a full disk shows before any work."""
    if hasattr(os, "posix_fallocate") and os.fstat(descriptor).st_size < size:
        os.posix_fallocate(descriptor, 0, size)
    os.ftruncate(descriptor, size)


@contextmanager
def _journal(path: Path, descriptors: dict[str, int]) -> Iterator[Journal]:
    journal = Journal(path, descriptors)
    try:
        yield journal
    except KeyboardInterrupt:
        journal.close(flush=True)
        raise
    except BaseException:
        journal.close(flush=False)
        raise
    else:
        journal.close(flush=True)


def _steps(placed: list[Placed], reports: dict[int, PieceReport]) -> StepTable:
    """Tied copies are written as often as they are stored, but patched once."""
    by_name: dict[str, list[Placed]] = {}
    for one in placed:
        if one.piece.change is not None:
            by_name.setdefault(one.piece.entry.name, []).append(one)
    steps = tuple(
        tensor_step(name, parts[0].piece.dtype, [reports[part.number] for part in parts])
        for name, parts in by_name.items()
    )
    tallies = {
        name: [reports[part.number].patches for part in parts]
        for name, parts in by_name.items()
        if parts[0].piece.stream == name
    }
    return StepTable(steps, tuple(patch_records(tallies)))
