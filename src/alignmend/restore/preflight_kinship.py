"""Preflight of the weights: is the aligned model the parent, and where did the fine-tune move?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from alignmend.algebra.names import layer_of
from alignmend.algebra.operations import select
from alignmend.algebra.values import Checkpoint
from alignmend.execution.files import Files
from alignmend.execution.kinship import Kinship, kinship, nonfinite
from alignmend.io.seen import seen_as
from alignmend.io.tensors import TensorEntry
from alignmend.recipes.relations import DISTANT, STRANGERS, describe_vectors, readings, relations
from alignmend.restore.preflight_findings import Finding, note, ok, problem

_RUNS, _RUN = 4, 4096
"""Of each tensor so many runs of so many elements are compared, where nothing differed before."""
_MOST = 0.9
"""Share of the squared change that says where a change is."""
_FEW = 8
"""A change that lies in one layer of so many is concentrated."""
Tensors = Mapping[str, TensorEntry]


@dataclass(frozen=True)
class Moved:
    """How far each decoder layer has moved, sampled: of whole models a share of its norm, of adapters a norm."""

    by_layer: Mapping[int, float]

    @property
    def farthest(self) -> int:
        """The layer that has moved farthest."""
        return max(self.by_layer, key=lambda layer: self.by_layer[layer])

    @property
    def few(self) -> tuple[int, ...]:
        """The fewest layers that hold nine tenths of the squared change."""
        squares = {layer: length**2 for layer, length in self.by_layer.items()}
        ordered = sorted(squares, key=lambda layer: -squares[layer])
        whole, so_far = sum(squares.values()), 0.0
        for count, layer in enumerate(ordered, 1):
            so_far += squares[layer]
            if so_far >= _MOST * whole:
                return tuple(sorted(ordered[:count]))
        return ()

    def __str__(self) -> str:
        """One clause."""
        few, count = self.few, len(self.by_layer)
        if len(few) <= max(1, count // _FEW) and count > 1:
            return f"concentrated: nine tenths of it in layer {', '.join(map(str, few))} of {count}, as after an edit"
        return f"spread over {count} layers, the largest change in layer {self.farthest}"


def look_at_weights(models: Mapping[str, Checkpoint], *, allow_unrelated: bool) -> Iterator[Finding]:
    """Whether the models stem from each other, from a few blocks of each; nothing where they do not open together."""
    if not models:
        return
    for role, model in models.items():
        if (broken := nonfinite(model.root.folder.tensors)) is not None:
            told = f"{broken} of the {role} model holds NaN or infinity, in {model.root.folder.location}"
            yield problem("finite", told, "give a file that is whole: restore that checkpoint, or train it again")
    tuned, aligned = models["finetuned"], models["aligned"]
    yield _descent("is it the parent", "the fine-tune", tuned, aligned, allow_unrelated)
    if "unaligned" in models:
        yield _descent("unaligned from aligned", "the unaligned model", models["unaligned"], aligned, allow_unrelated)
        yield from _vectors(models)


def _descent(check: str, what: str, model: Checkpoint, parent: Checkpoint, allow_unrelated: bool) -> Finding:
    if model.change is not None and model.root == parent.root:
        return _of_adapter(check, what, model, parent)
    theirs = parent.root.folder.tensors
    ours = seen_as(model.root.folder, parent.root.folder).folder.tensors
    found = kinship(ours, theirs)
    if found is None:
        return note(check, "no matrix of one shape in both: nothing to tell it from")
    if found.distance == 0 and same_weights(ours, theirs):
        return _same(check, what)
    if found.cosine < STRANGERS:
        told = f"{what} does not look like a descendant of the aligned model: {_numbers(found)}"
        remedy = "give the right --aligned, or --allow-unrelated to go on all the same"
        return note(check, told, "--allow-unrelated was given") if allow_unrelated else problem(check, told, remedy)
    moved = moved_layers(ours, theirs)
    told = f"{_numbers(found)}; {moved}" if moved is not None else _numbers(found)
    if found.cosine < DISTANT:
        return note(check, told, "fine-tuning hardly turns weights so far: make sure that it is the parent")
    return ok(check, told)


def _same(check: str, what: str) -> Finding:
    return problem(
        check,
        f"{what} is the aligned model: no sampled weight differs",
        "give the model as it is after its training, and as --aligned the one before it "
        "(alignmend diff A B compares every weight)",
    )


def _numbers(found: Kinship) -> str:
    return f"cosine {found.cosine:.4f}, distance {found.distance:.2g} of the norm ({found.sampled:,} sampled weights)"


def moved_layers(model: Tensors, parent: Tensors) -> Moved | None:
    """Relative distance of each decoder layer of two whole checkpoints; `None` where there are no layers."""
    names: dict[int, list[str]] = defaultdict(list)
    for name in model:
        if (layer := layer_of(name)) is not None and name in parent:
            names[layer].append(name)
    found = {layer: kinship({name: model[name] for name in own}, parent) for layer, own in sorted(names.items())}
    distances = {layer: one.distance for layer, one in found.items() if one is not None}
    return Moved(distances) if any(distances.values()) else None


def _of_adapter(check: str, what: str, model: Checkpoint, parent: Checkpoint) -> Finding:
    """An adapter stems from what it stands on; whether it changes anything is another question."""
    norms = _adapter_norms(model, parent)
    if not any(norms.values()):
        return problem(
            check,
            f"{what} is an adapter that changes no sampled weight",
            "give the adapter as it is after its training: its B factors are zero before the first step",
        )
    return ok(check, f"it stands on it; the change is {Moved(norms)}")


def _adapter_norms(model: Checkpoint, parent: Checkpoint) -> Mapping[int, float]:
    from alignmend.execution.vectors import sampled_vectors

    layers = sorted({layer for name in parent.root.folder.tensors if (layer := layer_of(name)) is not None})
    norms: dict[int, float] = {}
    for layer in layers:
        part = select(model - parent, layers=(layer,))
        found = sampled_vectors(part, part, model)
        norms[layer] = 0.0 if found is None else found.task_norm
    return norms


def same_weights(model: Tensors, parent: Tensors) -> bool:
    """Whether no sampled byte of any tensor differs; a tensor of another dtype or shape, or that only the model has, is
    a difference.
    """
    if not model.keys() <= parent.keys():
        return False
    with Files() as files:
        return all(_same_tensor(files, model[name], parent[name]) for name in model)


def _same_tensor(files: Files, one: TensorEntry, other: TensorEntry) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    length = min(_RUN, one.size)
    starts = {(one.size - length) * run // (_RUNS - 1) for run in range(_RUNS)}
    return all(_bytes(files, one, start, length) == _bytes(files, other, start, length) for start in starts)


def _bytes(files: Files, entry: TensorEntry, start: int, length: int) -> bytes:
    buffer = bytearray(length * entry.item_size)
    files.read(entry, start, memoryview(buffer))
    return bytes(buffer)


def _vectors(models: Mapping[str, Checkpoint]) -> Iterator[Finding]:
    """Lengths and angle of task delta and safety vector, and what they say against the roles."""
    found = relations(models, allow_unrelated=True)
    if found.vectors is None:
        return
    told = describe_vectors(found.vectors)
    refused, _ = readings(models)
    against = [one for one in found.warnings if one not in refused and "look like a descendant" not in one]
    yield (
        note("vectors", f"{told}; {'; '.join(against)}", "check which model has which role")
        if against
        else ok("vectors", told)
    )
