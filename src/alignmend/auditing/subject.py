"""What is audited, opened: a checkpoint beside its parent, or a delta on it, as pairs of tensors before and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from alignmend.algebra.names import is_buffer, kind_of, layer_of, natural_key
from alignmend.algebra.opening import open_adapter, open_checkpoint, open_delta
from alignmend.algebra.programs import Program
from alignmend.algebra.structure import resolve_delta
from alignmend.algebra.values import Checkpoint
from alignmend.editing.differences import TensorChange, compare_values, read
from alignmend.editing.locate import paired
from alignmend.errors import MismatchError, ParameterError
from alignmend.execution.blocks import BLOCK, Evaluator
from alignmend.execution.files import Files
from alignmend.execution.pieces import cut
from alignmend.io.delta import is_delta_folder
from alignmend.io.folder import CheckpointFolder, is_adapter_folder
from alignmend.io.hub import find
from alignmend.io.tensors import ARITHMETIC_DTYPES, TensorEntry

if TYPE_CHECKING:
    import torch

What = Literal["checkpoint", "adapter", "delta", "steering vector"]


@dataclass(frozen=True)
class Pair:
    """One tensor, in its own dtype, before (`None` without a parent) and after, and the change between."""

    name: str
    layer: int | None
    before: torch.Tensor | None
    after: torch.Tensor
    change: TensorChange | None


@dataclass(frozen=True)
class Subject:
    """A model or delta, headers only."""

    location: str
    what: What
    folder: CheckpointFolder
    """Whose configuration and tensors tell the architecture: the model's, or the parent's where a delta is audited."""
    before: Mapping[str, TensorEntry]
    after: Mapping[str, TensorEntry]
    programs: Mapping[str, Program | None]
    """Of a delta: what is added to each tensor of the parent."""
    extra_biases: tuple[str, ...] = ()
    """Biases that the parent does not have."""
    grown: Mapping[str, int] | None = None
    """Embedding -> rows that only one of the two has."""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.after)

    def pairs(self) -> Iterator[Pair]:
        """Every tensor but buffers, layer by layer; one is in memory at a time."""
        with Files() as files:
            evaluator = Evaluator(files)
            for name in sorted(self.after, key=natural_key):
                yield self._pair(name, evaluator)

    def _pair(self, name: str, evaluator: Evaluator) -> Pair:
        layer, entry = layer_of(name), self.after[name]
        if name not in self.before:
            return Pair(name, layer, None, read(entry), None)
        own = self.before[name]
        before = read(own)
        if self.what == "checkpoint":
            after = read(entry)
            return Pair(name, layer, before, after, compare_values(before, after, own, entry, layer))
        program = self.programs.get(name)
        if program is None:
            return Pair(name, layer, before, before, compare_values(before, before, own, own, layer))
        before = before.float()
        after = before + whole(entry, program, evaluator).view(before.shape)
        return Pair(name, layer, before, after, compare_values(before, after, own, own, layer))


def whole(entry: TensorEntry, program: Program, evaluator: Evaluator) -> torch.Tensor:
    """All values of `program` on one tensor, float32, flat."""
    import torch

    values = torch.empty(entry.size)
    for first, last in cut(entry, program):
        evaluator.prepare((program,), None, first, last)
        for start in range(first, last, BLOCK):
            stop = min(start + BLOCK, last)
            evaluator.begin_block(start, stop)
            found = evaluator.run(program, start, stop)
            values[start:stop].copy_(found)
            evaluator.give(found)
    return values


def kind_at(location: str | Path) -> What:
    """What lies at a location, judged by its files; a hub id is fetched."""
    path = find(location).path
    if path.is_file() and path.suffix == ".safetensors" and _is_steering(path):
        return "steering vector"
    if is_delta_folder(path):
        return "delta"
    return "adapter" if is_adapter_folder(path) else "checkpoint"


def _is_steering(path: Path) -> bool:
    from alignmend.activations.files import FORMAT
    from alignmend.io.header import read_header

    return read_header(path).metadata.get("format") == FORMAT


def open_subject(location: str | Path, parent: str | Path | None) -> Subject:
    """Open what is to be audited; raises `MismatchError` where it is of another architecture than `parent`."""
    what = kind_at(location)
    if what in ("adapter", "delta"):
        if parent is None:
            raise ParameterError(f"{location} is a {what}: give --parent, the model that it is added to")
        return _delta(location, what, open_checkpoint(parent))
    folder = open_checkpoint(location).root.folder
    if parent is None:
        kept = {name: entry for name, entry in folder.tensors.items() if not is_buffer(name)}
        return Subject(str(location), what, folder, {}, kept, {}, notes=folder.notes)
    first = open_checkpoint(parent).root.folder
    biases = tuple(sorted(name for name in folder.tensors if name.endswith(".bias") and name not in first.tensors))
    same = replace(folder, tensors={name: one for name, one in folder.tensors.items() if name not in biases})
    own, other, grown = _same_rows(first, same)
    pairs, notes = paired(own, other)
    before = {name: own.tensors[name] for name in pairs if not is_buffer(name)}
    after = {name: pairs[name] for name in before} | {name: folder.tensors[name] for name in biases}
    return Subject(str(location), what, folder, before, after, {}, biases, grown, (*folder.notes, *notes))


def delta_on(location: str | Path, target: Checkpoint) -> Mapping[str, Program | None]:
    """The programs of an adapter or stored delta on `target`."""
    what = kind_at(location)
    if what not in ("adapter", "delta"):
        raise ParameterError(f"{location} is a {what}, and a vector is needed: an adapter or what diff --save writes")
    is_adapter = what == "adapter"
    delta = open_adapter(location, base=target) if is_adapter else open_delta(location, target=target)
    moved = target + delta
    if moved.root != target.root:
        raise MismatchError(
            f"{location} adds tokens to the vocabulary: merge it first (alignmend apply), audit the result"
        )
    return resolve_delta(delta, target.root)


def _delta(location: str | Path, what: What, target: Checkpoint) -> Subject:
    programs = delta_on(location, target)
    folder = target.root.folder
    kept = {name: one for name, one in folder.tensors.items() if not is_buffer(name) and one.dtype in ARITHMETIC_DTYPES}
    return Subject(str(location), what, folder, kept, kept, programs)


def _same_rows(
    first: CheckpointFolder, other: CheckpointFolder
) -> tuple[CheckpointFolder, CheckpointFolder, Mapping[str, int]]:
    """Both with the rows of embeddings that both have, and how many further ones there are."""
    mine, theirs, grown = dict(first.tensors), dict(other.tensors), {}
    for name in mine.keys() & theirs.keys():
        shapes = mine[name].shape, theirs[name].shape
        if kind_of(name) == "embedding" and shapes[0][1:] == shapes[1][1:] and shapes[0] != shapes[1]:
            rows = min(shapes[0][0], shapes[1][0])
            grown[name] = shapes[1][0] - shapes[0][0]
            mine[name], theirs[name] = (_rows(one, rows) for one in (mine[name], theirs[name]))
    return replace(first, tensors=mine), replace(other, tensors=theirs), grown


def _rows(entry: TensorEntry, rows: int) -> TensorEntry:
    size = rows * entry.size // entry.shape[0] * entry.item_size
    return replace(entry, shape=(rows, *entry.shape[1:]), stop=entry.start + size)
