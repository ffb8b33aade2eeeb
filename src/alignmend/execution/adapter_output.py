"""Write the result of adapter arithmetic as an adapter again: exact, by concatenating factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from alignmend.algebra.low_rank import Factors, concatenate, recompress
from alignmend.algebra.names import layer_of
from alignmend.algebra.nodes import (
    AdapterDelta,
    CommonRows,
    DeltaNode,
    PerLayer,
    Scaled,
    Selected,
    Sum,
    Weighted,
    Weighting,
)
from alignmend.algebra.structure import resolve
from alignmend.algebra.values import Checkpoint
from alignmend.algebra.walks import adapters_of
from alignmend.algebra.weighing import input_matrix
from alignmend.errors import MismatchError, NonFiniteError
from alignmend.execution.description import Description, write_records
from alignmend.execution.files import Files
from alignmend.execution.finished import finished
from alignmend.execution.moment_checks import moment_warnings
from alignmend.execution.operands import operands_of, read_states, refuse_own_input
from alignmend.execution.output_dtypes import DTYPES, check_dtype
from alignmend.execution.products import read_floats
from alignmend.execution.save import Saved
from alignmend.execution.steps import StepTable
from alignmend.io.adapter import AdapterFolder, LowRankPart, low_rank_parts
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
    change = checkpoint.change
    adapters = _low_rank_terms(checkpoint)
    resolve(checkpoint)
    described = description or Description()
    tokenizer = tokenizer_of(checkpoint.speaker)
    done = finished(path, checkpoint, described, {WEIGHTS_NAME: None}, tokenizer) if resume else None
    if done is not None and _is_same(path, done, rank, dtype):
        settle(path, described.sweep)
        return Saved(path, done, StepTable(()), {}, described.warnings)
    told = _told_of_moments(checkpoint)
    factors, made = _summed(change, adapters), _EXACT
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
            notes=(made, *told),
            hash=hash,
            hash_inputs=hash_inputs,
        )
        refuse_changed(read_states(operands_of(checkpoint)))
        if base is None:
            note_base(path, checkpoint.root.folder.path)
        stage.publish(overwrite)
    return Saved(path, manifest, StepTable(()), {}, (*described.warnings, *told))


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
        case Weighted(operand=operand):
            return _why_not_low_rank(operand)
        case Sum(terms):
            return next((reason for term in terms if (reason := _why_not_low_rank(term)) is not None), None)
        case _:
            return "a difference of full checkpoints, a trim or a drop is not low-rank"


@dataclass(frozen=True)
class _Occurrence:
    """How an adapter enters the change of one weight: coefficient * B A M_1 M_2 ..."""

    coefficient: float
    weightings: tuple[Weighting, ...] = ()


def _summed(change: DeltaNode | None, adapters: tuple[AdapterDelta, ...]) -> dict[str, Factors]:
    """Every module's concatenated factors; modules whose coefficients are all zero are left out."""
    if change is None:
        raise TypeError("change is None")
    terms: list[tuple[float, dict[str, Factors]]] = []
    with Files() as files:
        for adapter in adapters:
            for module, factors in _loaded(adapter.adapter.adapter, files).items():
                name = f"{module}.weight"
                for found in _occurrences(change, adapter, name):
                    if found.coefficient != 0.0:
                        weighed = _weighed(factors, found.weightings, name, files)
                        terms.append((found.coefficient, {module: weighed}))
    if not terms:
        raise MismatchError("every coefficient is zero, so nothing is added to the base: there is no adapter to write")
    return concatenate(terms)


def _weighed(factors: Factors, weightings: Sequence[Weighting], name: str, files: Files) -> Factors:
    """B A M as B (A M): only A changes."""
    a = factors.a
    for weighting in weightings:
        if (matrix := input_matrix(weighting, name)) is not None:
            a = files.matrices.of(matrix).after(a)
    return replace(factors, a=a)


def _occurrences(node: DeltaNode, adapter: AdapterDelta, name: str) -> list[_Occurrence]:
    """How `adapter` enters the change of the weight `name`; what is weighed alike is added up."""
    match node:
        case AdapterDelta():
            return [_Occurrence(1.0)] if node == adapter else []
        case Scaled(coefficient, operand):
            return _times(coefficient, _occurrences(operand, adapter, name))
        case PerLayer(coefficients, default, operand):
            layer = layer_of(name)
            factor = default if layer is None else dict(coefficients).get(layer, default)
            return _times(factor, _occurrences(operand, adapter, name))
        case Selected(selection, operand):
            return _occurrences(operand, adapter, name) if selection.takes(name, dimensions=2) else []
        case CommonRows(operand):
            return _occurrences(operand, adapter, name)
        case Weighted(weighting, operand):
            inner = _occurrences(operand, adapter, name)
            return [replace(one, weightings=(*one.weightings, weighting)) for one in inner]
        case Sum(terms):
            totals: dict[tuple[Weighting, ...], float] = {}
            for term in terms:
                for one in _occurrences(term, adapter, name):
                    totals[one.weightings] = totals.get(one.weightings, 0.0) + one.coefficient
            return [_Occurrence(total, weightings) for weightings, total in totals.items()]
        case _:
            raise AssertionError(node)


def _times(factor: float, found: list[_Occurrence]) -> list[_Occurrence]:
    return [replace(one, coefficient=factor * one.coefficient) for one in found]


def _loaded(adapter: AdapterFolder, files: Files) -> dict[str, Factors]:
    return {
        module: Factors(_finite(part, "a", files), _finite(part, "b", files), part.scale)
        for module, part in low_rank_parts(adapter).items()
    }


def _finite(part: LowRankPart, which: str, files: Files) -> Tensor:
    entry = part.a if which == "a" else part.b
    values = read_floats(files, entry, 0, entry.size).view(entry.shape)
    if not bool(values.isfinite().all()):
        raise NonFiniteError(
            f"{entry.name} in {entry.path.parent.name}/{entry.path.name} holds NaN or infinity", advice="mend the file"
        )
    return values


def _is_embedding(module: str, adapters: tuple[AdapterDelta, ...]) -> bool:
    parts = [low_rank_parts(adapter.adapter.adapter).get(module) for adapter in adapters]
    return any(part is not None and part.embedding for part in parts)
