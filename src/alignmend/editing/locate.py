"""Finds an edit: what differs between a checkpoint and its original, per tensor and per layer, and of what kind it is.

The area of an edit, and why it is the place to act: Safety Arithmetic (arXiv 2406.11801), eq. 11-13.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from alignmend.algebra.names import is_buffer, layer_of, natural_key
from alignmend.algebra.tying import is_tied_copy, lookup
from alignmend.editing.differences import TensorChange, compare
from alignmend.errors import MismatchError
from alignmend.io.folder import CheckpointFolder, open_checkpoint_folder
from alignmend.io.seen import Seen, seen_as
from alignmend.io.tensors import TensorEntry

if TYPE_CHECKING:
    from collections.abc import Callable

Kind = Literal["none", "rank-one", "few-layers", "low-rank", "dense"]
"""Nothing changed; one rank-one change per tensor (ROME-like); few layers at a higher rank (MEMIT-like); every layer at
a low rank (LoRA-like); every layer at full rank (fine-tuned)."""

KIND_WORDS: Mapping[Kind, str] = {
    "none": "no change",
    "rank-one": "rank one (ROME-like)",
    "few-layers": "few layers, higher rank (MEMIT-like)",
    "low-rank": "low rank in all layers (LoRA-like)",
    "dense": "dense (fine-tuned)",
}
RANK_ONE = 0.1
"""Largest second singular value, as a share of the first, that still counts as rank one: rounding leaves some."""
LOW_RANK = 0.9
"""Smallest share of a change's square that a few singular values must hold to count as low rank."""


@dataclass(frozen=True)
class EditReport:
    """What differs between `original` and `edited`.

    `layers` are the numbers of the changed layers of `count` in all, `elsewhere` changed tensors outside layers. `area`
    is eq. 11's E: the changed layers and their neighbours; empty where the change is no edit (`low-rank`, `dense`).
    """

    original: str
    edited: str
    kind: Kind
    count: int
    tensors: tuple[TensorChange, ...]
    layers: tuple[int, ...]
    elsewhere: tuple[str, ...]
    area: tuple[int, ...]
    dtype_changed: bool
    notes: tuple[str, ...] = ()
    """What only one of the two has, and that their files name tensors otherwise."""

    @property
    def by_layer(self) -> dict[int, float]:
        """Layer -> norm of its whole change, for the changed layers."""
        sums: dict[int, float] = {}
        for tensor in self.tensors:
            if tensor.changed and tensor.layer is not None:
                sums[tensor.layer] = sums.get(tensor.layer, 0.0) + tensor.norm**2
        return {layer: sums[layer] ** 0.5 for layer in sorted(sums)}


def locate(
    original: str | Path, edited: str | Path, *, progress: Callable[[int, int], None] | None = None
) -> EditReport:
    """Compare two checkpoints tensor by tensor; a few tensors are in memory at a time.

    Two layouts of one model are compared as `transformers` loads them, under the names of `original`. Raises
    `MismatchError` where they are not the same architecture.
    """
    first = open_checkpoint_folder(original)
    pairs, notes = paired(first, open_checkpoint_folder(edited))
    changes = []
    names = sorted(pairs, key=natural_key)
    for number, name in enumerate(names, start=1):
        changes.append(compare(first.tensors[name], pairs[name], layer_of(name)))
        if progress is not None:
            progress(number, len(names))
    return report(str(original), str(edited), changes, notes)


def report(original: str, edited: str, tensors: Sequence[TensorChange], notes: tuple[str, ...] = ()) -> EditReport:
    """The verdict over all tensors of a pair of checkpoints."""
    every = sorted({tensor.layer for tensor in tensors if tensor.layer is not None})
    changed = [tensor for tensor in tensors if tensor.changed]
    layers = tuple(sorted({tensor.layer for tensor in changed if tensor.layer is not None}))
    elsewhere = tuple(tensor.name for tensor in changed if tensor.layer is None)
    kind = _kind(changed, layers, len(every), elsewhere)
    area = tuple(neighbourhood(layers, every)) if kind in ("rank-one", "few-layers") else ()
    dtype_changed = any(tensor.dtype_changed for tensor in tensors)
    return EditReport(original, edited, kind, len(every), tuple(tensors), layers, elsewhere, area, dtype_changed, notes)


def neighbourhood(layers: Sequence[int], every: Sequence[int]) -> Iterator[int]:
    """The layers l of `every` for which l - 1, l or l + 1 is one of `layers` (eq. 11), ascending."""
    changed = set(layers)
    return (layer for layer in sorted(every) if changed & {layer - 1, layer, layer + 1})


def _kind(changed: Sequence[TensorChange], layers: Sequence[int], count: int, elsewhere: Sequence[str]) -> Kind:
    if not changed:
        return "none"
    matrices = [tensor for tensor in changed if tensor.second_singular is not None]
    few = not elsewhere and len(layers) <= max(1, count // 2)
    if few and len(matrices) == len(changed) and all((one.second_singular or 0.0) < RANK_ONE for one in matrices):
        return "rank-one"
    if few:
        return "few-layers"
    low = len(matrices) == len(changed) and all((one.captured or 0.0) >= LOW_RANK for one in matrices)
    return "low-rank" if low else "dense"


def paired(first: CheckpointFolder, other: CheckpointFolder) -> tuple[Mapping[str, TensorEntry], tuple[str, ...]]:
    """Each tensor of `first` -> the same one of `other`, and what to say of those that only one of them has.

    Raises `MismatchError` where they are not one architecture.
    """
    found = Seen(other)
    if first.tensors.keys() != other.tensors.keys():
        found = seen_as(other, first)
    second = found.folder
    pairs = {name: entry for name in first.tensors if (entry := lookup(second, first, name)) is not None}
    lacking = {name for name in first.tensors if name not in pairs and not is_buffer(name)} - found.absent
    spare = (name for name in second.tensors if name not in first.tensors and not is_buffer(name))
    lacked = {name for name in spare if not is_tied_copy(name, second, first)}
    for one, names, having in ((other, lacking, first), (first, lacked, other)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise MismatchError(
                f"{one.location} lacks {min(names, key=natural_key)}{more}, which {having.location} has: they are not "
                f"one architecture{f' ({found.unknown})' if found.unknown else ''}"
            )
    for name, entry in pairs.items():
        if entry.shape != first.tensors[name].shape:
            raise MismatchError(
                f"{name} is {first.tensors[name].shape} in {first.location} and {entry.shape} in {other.location}"
            )
    return pairs, found.notes
