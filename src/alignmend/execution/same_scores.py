"""Scores that ought to differ and do not: top sets of equal scores are nested, and their difference degenerates."""

from __future__ import annotations

from itertools import combinations

from alignmend.algebra.nodes import Source
from alignmend.algebra.values import Checkpoint
from alignmend.algebra.walks import masks_of, stored_source, tops_of
from alignmend.execution.files import Files
from alignmend.execution.kinship import spread
from alignmend.io.tensors import TensorEntry

BLOCK = 4096
"""Bytes compared of each sampled tensor: scores that differ at all differ nearly everywhere."""


def same_scores(checkpoint: Checkpoint, files: Files | None) -> tuple[str, ...]:
    """A warning for each pair of score files within one mask that hold the same numbers.

    Without `files` only files that are one and the same are found; with them a few blocks are compared.
    """
    pairs = dict.fromkeys(
        (left, right)
        for masked in (masks_of(checkpoint.change) if checkpoint.change is not None else ())
        for left, right in combinations([stored_source(top.score) for top in tops_of(masked.mask)], 2)
        if left is not None and right is not None
    )
    equal = dict.fromkeys(
        tuple(sorted((left.folder.location, right.folder.location)))
        for left, right in pairs
        if left == right or (files is not None and _equal(left, right, files))
    )
    return tuple(
        f"the scores {first} and {second} are the same: their top sets lie within one another, so a difference of them "
        "is empty or takes from one side only; score each patched model at its own weights"
        for first, second in equal
    )


def _equal(left: Source, right: Source, files: Files) -> bool:
    ours, theirs = left.folder.tensors, right.folder.tensors
    if {name: (one.dtype, one.shape) for name, one in ours.items()} != {
        name: (one.dtype, one.shape) for name, one in theirs.items()
    }:
        return False
    return all(_middle(ours[name], files) == _middle(theirs[name], files) for name in spread(list(ours)))


def _middle(entry: TensorEntry, files: Files) -> bytes:
    count = min(BLOCK // entry.item_size, entry.size)
    buffer = bytearray(count * entry.item_size)
    files.read(entry, (entry.size - count) // 2, memoryview(buffer))
    return bytes(buffer)
