"""Write a delta to a folder of its own: whole tensors, or only the weights that are not zero and where they stand.

The sparse form is written in two passes: the first counts what each piece keeps, so that the second knows where its
numbers go. A few threads stream both; nothing larger than a block is held.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar, get_args

import torch

from alignmend.algebra.notation import delta_notation
from alignmend.algebra.programs import Program, entries_of
from alignmend.algebra.structure import Structure, resolve
from alignmend.algebra.values import Checkpoint, Delta
from alignmend.errors import FileFormatError, NonFiniteError, ParameterError
from alignmend.execution.blocks import BLOCK, Evaluator, torch_dtype
from alignmend.execution.description import Description, output_files
from alignmend.execution.files import Files, write_all
from alignmend.execution.finding import find, finding_notes
from alignmend.execution.operands import (
    identities,
    label_all,
    opened,
    operands_of,
    read_states,
    refuse_own_input,
    versions,
)
from alignmend.execution.output_dtypes import DTYPES
from alignmend.execution.parallel import in_order
from alignmend.execution.pieces import PieceReport, cut, find_nonfinite
from alignmend.execution.rounding import sum_of_squares, to_nearest
from alignmend.execution.save import Progress
from alignmend.execution.steps import StepTable, tensor_step
from alignmend.execution.stream import outputs
from alignmend.execution.threads import thread_count
from alignmend.io.atomic import private_files
from alignmend.io.delta import DELTA_NAME, INDICES, VALUES, Form
from alignmend.io.file_state import refuse_changed
from alignmend.io.manifest import MANIFEST_NAME, Manifest, StoredDelta, write_manifest
from alignmend.io.private import is_private
from alignmend.io.shards import OutputTensor, Shard, plan_shards
from alignmend.io.staging import check_space, staging
from alignmend.io.tensors import ITEM_SIZES, TensorEntry

Done = TypeVar("Done")
_STORED = ("float32", "bfloat16")
_UNBOUNDED = 1 << 62
_LARGEST_INT32 = (1 << 31) - 1


@dataclass(frozen=True)
class SavedDelta:
    """A delta that was written."""

    path: Path
    manifest: Manifest
    bytes: int
    """Size of `delta.safetensors`."""


@dataclass(frozen=True)
class _Piece:
    """Elements `[start, stop)` of one tensor of the delta; `before` is how many were kept of those before `start`."""

    entry: TensorEntry
    program: Program
    start: int
    stop: int
    before: int = 0
    kept: int = 0


@dataclass(frozen=True)
class _Run:
    """What every pass over the pieces needs."""

    files: Files
    threads: int
    progress: Progress

    def over(
        self, pieces: Sequence[_Piece], work: Callable[[Evaluator, _Piece], Done], name: str
    ) -> Iterator[tuple[_Piece, Done]]:
        """Work on every piece; results in order."""
        found = in_order(pieces, lambda: Evaluator(self.files), work, self.threads)
        for number, (piece, done) in enumerate(found, 1):
            self.progress(name, number, len(pieces))
            yield piece, done


@dataclass(frozen=True)
class _Layout:
    """How the file holds the pieces."""

    form: Form
    dtype: str
    """A safetensors dtype name."""
    pieces: tuple[_Piece, ...]
    shard: Shard = field(repr=False)


def save_delta(
    delta: Delta,
    out: str | Path,
    *,
    target: Checkpoint,
    form: Form = "dense",
    dtype: str = "float32",
    threads: int | None = None,
    overwrite: bool = False,
    hash: bool = True,
    hash_inputs: bool = False,
    description: Description | None = None,
    progress: Progress | None = None,
) -> SavedDelta:
    """Compute `delta` and write it to the folder `out`, to be opened by `open_delta` and added to `target`.

    `form` is `dense` (every tensor that changes, whole) or `sparse` (flat indices and values; zeros of either sign are
    left out, so it is the smaller one below about half of the weights at float32). `dtype` is `float32`, in which the
    delta is exact, or `bfloat16`; the manifest says what rounding lost. The folder appears whole or not at all, and
    is marked private where an operand is. Raises what `save` raises; NaN and infinity are always refused.
    """
    _check(target, form, dtype)
    path, described, told = Path(out), description or Description(), progress or _silent
    moved = Checkpoint(target.root, delta.node)
    operands = operands_of(moved)
    refuse_own_input(path, operands)
    resolve(moved)
    private = described.private or any(is_private(opened(operand).path) for operand in operands)
    closed = private_files() if private else nullcontext()
    with closed, staging(path, key="delta", overwrite=overwrite) as stage, Files() as files:
        run = _Run(files, thread_count(threads), told)
        found = find(delta.node, target.root, files, run.threads)
        structure = resolve(moved, found)
        layout = _layout(structure, form, DTYPES[dtype], run)
        check_space(stage.path, layout.shard.size)
        steps = _write(layout, stage.path, run)
        labels = label_all(operands, described.labels)
        manifest = Manifest(
            versions=versions(),
            expression=delta_notation(delta, labels),
            parameters=dict(described.parameters),
            inputs=identities(operands, labels, content_hash=hash_inputs),
            data=dict(described.data),
            outputs=output_files(stage.path, hash=hash),
            rounding=steps.rounding("nearest", 0),
            delta=_record(layout, labels[target.root]),
            private=private,
            notes=[*described.warnings, *described.notes, *structure.notes, *finding_notes(found), *steps.warnings()],
        )
        write_manifest(stage.path / MANIFEST_NAME, manifest)
        refuse_changed(read_states(operands))
        stage.publish(overwrite)
    return SavedDelta(path, manifest, layout.shard.size)


def _silent(what: str, done: int, total: int) -> None:
    pass


def _check(target: Checkpoint, form: str, dtype: str) -> None:
    if target.change is not None:
        raise ParameterError("target= takes a checkpoint as it was opened, not the result of arithmetic")
    if form not in get_args(Form):
        raise ParameterError(f"the form of a delta is one of {', '.join(get_args(Form))}, not {form!r}")
    if dtype not in _STORED:
        raise ParameterError(f"a delta is stored as one of {', '.join(_STORED)}, not {dtype!r}")


def _layout(structure: Structure, form: Form, dtype: str, run: _Run) -> _Layout:
    """Decide every byte's place; tied copies of one weight are stored once."""
    pieces = [
        _Piece(plan.entry, plan.change, start, stop)
        for plan in structure.tensors
        if plan.change is not None and plan.stream == plan.name
        for start, stop in cut(plan.entry, plan.change)
    ]
    if form == "sparse":
        pieces = _counted(pieces, dtype, run)
    tensors = [tensor for entry, size in _sizes(pieces).items() for tensor in _tensors(entry, size, form, dtype)]
    (shard,) = plan_shards(tensors, _UNBOUNDED)
    return _Layout(form, dtype, tuple(pieces), replace(shard, file=DELTA_NAME))


def _counted(pieces: Sequence[_Piece], dtype: str, run: _Run) -> list[_Piece]:
    """The pieces of which anything is kept, with how many numbers that is."""

    def work(evaluator: Evaluator, piece: _Piece) -> int:
        return sum(int(torch.count_nonzero(values)) for _, values, _ in _blocks(piece, dtype, evaluator))

    found: list[_Piece] = []
    before: dict[TensorEntry, int] = {}
    for piece, kept in run.over(pieces, work, "count"):
        if kept:
            found.append(replace(piece, before=before.get(piece.entry, 0), kept=kept))
            before[piece.entry] = before.get(piece.entry, 0) + kept
    return found


def _sizes(pieces: Sequence[_Piece]) -> dict[TensorEntry, int]:
    """How many numbers each tensor keeps, or all where they were not counted."""
    return {piece.entry: piece.before + piece.kept if piece.kept else piece.entry.size for piece in pieces}


def _tensors(entry: TensorEntry, size: int, form: Form, dtype: str) -> list[OutputTensor]:
    if form == "dense":
        return [OutputTensor(entry.name, dtype, entry.shape)]
    indices = "I32" if entry.size <= _LARGEST_INT32 else "I64"
    return [
        OutputTensor(entry.name + INDICES, indices, (size,)),
        OutputTensor(entry.name + VALUES, dtype, (size,)),
    ]


def _blocks(piece: _Piece, dtype: str, evaluator: Evaluator) -> Iterator[tuple[int, torch.Tensor, PieceReport]]:
    """Where each block begins, its values as they are stored (until the next one), and what rounding loses."""
    evaluator.prepare((piece.program,), None, piece.start, piece.stop)
    for start in range(piece.start, piece.stop, BLOCK):
        stop = min(start + BLOCK, piece.stop)
        evaluator.begin_block(start, stop)
        values = evaluator.run(piece.program, start, stop)
        size = sum_of_squares(values)
        rounded = values if dtype == "F32" else to_nearest(values, torch_dtype(dtype))
        if not bool(torch.isfinite(rounded).all()):
            raise _nonfinite(piece, values, start, dtype, evaluator)
        error = 0.0 if dtype == "F32" else sum_of_squares(rounded.float().sub_(values))
        # A square may overflow where the number itself does not.
        yield start, rounded, PieceReport(size, error) if math.isfinite(size + error) else PieceReport(0.0, 0.0)
        evaluator.give(values)


def _nonfinite(piece: _Piece, values: torch.Tensor, start: int, dtype: str, evaluator: Evaluator) -> NonFiniteError:
    name, stop = piece.entry.name, start + values.numel()
    culprit = find_nonfinite(entries_of(piece.program), piece.entry.size, start, stop, evaluator)
    if culprit is not None:
        return NonFiniteError(f"{culprit.name} in {culprit.path} holds NaN or infinity", advice="mend that file")
    if bool(torch.isfinite(values).all()):
        return NonFiniteError(f"{name}: the delta is too large for {dtype}", advice="write float32")
    return NonFiniteError(f"{name}: the arithmetic overflows float32: is a coefficient far too large?")


def _write(layout: _Layout, folder: Path, run: _Run) -> StepTable:
    reports: dict[str, list[PieceReport]] = {}
    with outputs((layout.shard,), folder) as descriptors:
        descriptor = descriptors[layout.shard.file]

        def work(evaluator: Evaluator, piece: _Piece) -> PieceReport:
            return _write_piece(piece, layout, descriptor, evaluator)

        for piece, report in run.over(layout.pieces, work, "write"):
            reports.setdefault(piece.entry.name, []).append(report)
    return StepTable(tuple(tensor_step(name, layout.dtype, parts) for name, parts in reports.items()))


def _write_piece(piece: _Piece, layout: _Layout, descriptor: int, evaluator: Evaluator) -> PieceReport:
    offsets, name, done = layout.shard.offsets, piece.entry.name, 0
    size = ITEM_SIZES[layout.dtype]
    step = error = 0.0
    for start, values, report in _blocks(piece, layout.dtype, evaluator):
        step, error = step + report.step, error + report.error
        if layout.form == "dense":
            _put(descriptor, values, offsets[name] + start * size)
            continue
        places = torch.nonzero(values).view(-1)
        if done + places.numel() > piece.kept:
            break
        indices = (places + start).to(torch.int32 if piece.entry.size <= _LARGEST_INT32 else torch.int64)
        _put(descriptor, indices, offsets[name + INDICES] + (piece.before + done) * indices.element_size())
        _put(descriptor, values[places], offsets[name + VALUES] + (piece.before + done) * size)
        done += places.numel()
    if done != piece.kept:
        raise FileFormatError(f"{name}: an input changed between two passes: is something else writing to it?")
    return PieceReport(step, error)


def _put(descriptor: int, values: torch.Tensor, position: int) -> None:
    write_all(descriptor, values.view(torch.uint8).numpy().data, position)


def _record(layout: _Layout, target: str) -> StoredDelta:
    sizes = _sizes(layout.pieces)
    return StoredDelta(form=layout.form, target=target, tensors=len(sizes), values=sum(sizes.values()))
