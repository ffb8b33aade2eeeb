"""Write the result of adapter arithmetic as an adapter again: exact, by concatenating factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from alignmend.algebra.low_rank import recompress
from alignmend.algebra.nodes import (
    AdapterDelta,
    CommonRows,
    DeltaNode,
    Fitted,
    PerLayer,
    Projected,
    Scaled,
    Selected,
    Sum,
    Weighted,
)
from alignmend.algebra.structure import resolve
from alignmend.algebra.values import Checkpoint
from alignmend.algebra.walks import adapters_of
from alignmend.errors import MismatchError
from alignmend.execution.adapter_terms import summed
from alignmend.execution.description import Description, write_records
from alignmend.execution.files import Files
from alignmend.execution.finding import find, finding_notes
from alignmend.execution.finished import finished
from alignmend.execution.moment_checks import moment_warnings
from alignmend.execution.operands import operands_of, read_states, refuse_own_input
from alignmend.execution.output_dtypes import DTYPES, check_dtype
from alignmend.execution.save import Saved
from alignmend.execution.steps import StepTable
from alignmend.execution.threads import thread_count
from alignmend.io.adapter import low_rank_parts
from alignmend.io.adapter_write import WEIGHTS_NAME, write_adapter_files
from alignmend.io.copies import copy_files, tokenizer_of
from alignmend.io.file_state import refuse_changed
from alignmend.io.manifest import Manifest
from alignmend.io.published import note_base, published_base
from alignmend.io.session import header_of
from alignmend.io.staging import settle, staging

_EXACT = "written as an adapter: the factors of all adapters concatenated, which is exact"
_RANK = "written as an adapter of rank {} at most"


def save_adapter(
    checkpoint: Checkpoint,
    out: str | Path,
    *,
    rank: int | None = None,
    dtype: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    hash: bool = True,
    hash_inputs: bool = False,
    description: Description | None = None,
) -> Saved:
    """Write `checkpoint` to the folder `out` as a PEFT adapter on its root, with its target's own tokenizer.

    Possible where the change is a weighted sum of plain low-rank adapters on one base: factors are concatenated, so
    that A* = [A_1; ...], B* = [c_1 s_1 B_1, ...] and the delta is exact, its rank the sum of ranks; or, with `rank`,
    the best approximation of at most that rank, its error told. `dtype` (default `float32`) is the factors'. `resume`
    leaves a finished one as it is; the other options are those of `save`. Raises `MismatchError` where the change is
    not low-rank, `UnsupportedFormatError` for an adapter that is not plain.
    """
    check_dtype(dtype)
    path = Path(out)
    refuse_own_input(path, operands_of(checkpoint))
    adapters = _low_rank_terms(checkpoint)
    resolve(checkpoint)
    described = description or Description()
    tokenizer = tokenizer_of(checkpoint.speaker)
    done = finished(path, checkpoint, described, {WEIGHTS_NAME: None}, tokenizer) if resume else None
    if done is not None and _is_same(path, done, rank, dtype):
        settle(path, described.sweep)
        return Saved(path, done, StepTable(()), {}, described.warnings)
    told = _told_of_moments(checkpoint)
    with Files() as files:
        found = find(checkpoint.change, checkpoint.root, files, thread_count(None))
        factors, made = summed(checkpoint, adapters, found, files), _EXACT
    if rank is not None:
        factors, errors = recompress(factors, rank)
        made = f"{_RANK.format(rank)}: {_told(errors)}"
    first = adapters[0].adapter.adapter
    base = published_base(checkpoint.root.folder.location, described.home or path)
    embeddings = [module for module in factors if _is_embedding(module, adapters)]
    with staging(path, key="adapter", overwrite=overwrite, sweep=described.sweep) as stage:
        write_adapter_files(
            stage.path,
            {module: (one.a, one.b) for module, one in factors.items()},
            first.config,
            base=base,
            base_revision=checkpoint.root.folder.revision,
            embeddings=embeddings,
            dtype=DTYPES[dtype or "float32"],
        )
        copy_files(tokenizer, stage.path)
        manifest = write_records(
            stage.path,
            checkpoint,
            described,
            out=path,
            rounding=None,
            notes=(made, *told, *finding_notes(found)),
            hash=hash,
            hash_inputs=hash_inputs,
        )
        refuse_changed(read_states(operands_of(checkpoint)))
        if base is None:
            note_base(path, checkpoint.root.folder.path)
        stage.publish(overwrite)
    return Saved(path, manifest, StepTable(()), found.cuts, (*described.warnings, *told), found.coefficients)


def _told_of_moments(checkpoint: Checkpoint) -> tuple[str, ...]:
    with Files() as files:
        return moment_warnings(checkpoint, files)


def _is_same(path: Path, done: Manifest, rank: int | None, dtype: str | None) -> bool:
    """Whether the adapter that stands at `path` has this rank and dtype."""
    same_rank = _EXACT in done.notes if rank is None else _cut_to(rank, done.notes)
    return same_rank and _dtypes(path / WEIGHTS_NAME) == {DTYPES[dtype or "float32"]}


def _cut_to(rank: int, notes: Sequence[str]) -> bool:
    return any(note.startswith(f"{_RANK.format(rank)}: ") for note in notes)


def _told(errors: Mapping[str, float]) -> str:
    worst = max(errors, key=lambda module: errors[module])
    return f"of {worst} {errors[worst]:.2%} of the norm is lost, of every other module no more"


def _dtypes(path: Path) -> set[str]:
    return {entry.dtype for entry in header_of(path).entries.values()}


def _low_rank_terms(checkpoint: Checkpoint) -> tuple[AdapterDelta, ...]:
    """The adapters of the change, checked to be on one base and to be all there is."""
    reason = None if checkpoint.change is not None else "nothing is added to the base"
    if checkpoint.change is not None:
        reason = _why_not_low_rank(checkpoint.change)
        adapters = adapters_of(checkpoint.change)
        if reason is None and not adapters:
            reason = "no adapter takes part"
    if reason is not None or checkpoint.change is None:
        raise MismatchError(f"the result is not a sum of adapters ({reason})", advice="write a full checkpoint instead")
    for adapter in adapters:
        if adapter.base not in (None, checkpoint.root):
            location = adapter.adapter.adapter.location
            raise MismatchError(
                f"the adapter {location} stands on another base than the result", advice="write a full checkpoint"
            )
    return adapters


def _why_not_low_rank(node: DeltaNode) -> str | None:
    match node:
        case AdapterDelta():
            return None
        case Scaled(operand=operand) | PerLayer(operand=operand) | Selected(operand=operand) | CommonRows(operand):
            return _why_not_low_rank(operand)
        case Weighted(operand=operand) | Fitted(operand=operand) | Projected(operand=operand):
            return _why_not_low_rank(operand)
        case Sum(terms):
            return next((reason for term in terms if (reason := _why_not_low_rank(term)) is not None), None)
        case _:
            return "a difference of full checkpoints, a trim or a drop is not low-rank"


def _is_embedding(module: str, adapters: tuple[AdapterDelta, ...]) -> bool:
    parts = [low_rank_parts(adapter.adapter.adapter).get(module) for adapter in adapters]
    return any(part is not None and part.embedding for part in parts)
