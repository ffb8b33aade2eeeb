"""Operands of an expression seen in the layout of its target, where their tensors' names differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from alignmend.algebra.domains import one_sided
from alignmend.algebra.nodes import (
    AdapterSource,
    DeltaNode,
    DeltaSource,
    MomentsSource,
    ScoreNode,
    Selection,
    Source,
    StoredDelta,
)
from alignmend.algebra.tying import as_tied
from alignmend.algebra.walks import Leaf, leaves_of, score_leaves
from alignmend.io.seen import Seen, seen_as

Node = TypeVar("Node")
_UNTOUCHED = (AdapterSource, DeltaSource, MomentsSource, Selection, StoredDelta)
"""What has no checkpoint in it, or one whose own names matter."""


def seen_by(target: Source, node: DeltaNode) -> tuple[DeltaNode, Mapping[Source, Seen]]:
    """The node with its operands in the target's layout, and how those that had another are seen."""
    seen = _strangers(target, leaves_of(node))
    return _with(node, seen), seen


def scores_seen_by(target: Source, score: ScoreNode) -> ScoreNode:
    """The scores with their operands in the target's layout."""
    return _with(score, _strangers(target, score_leaves(score)))


def _strangers(target: Source, leaves: Iterable[Leaf]) -> Mapping[Source, Seen]:
    """Operands that lack tensors of the target, have others, or tie their embeddings otherwise."""
    found: dict[Source, Seen] = {}
    for leaf in leaves:
        source, folder = leaf.source, target.folder
        if source == target or source in found:
            continue
        if any(one_sided(leaf, folder)):
            seen = seen_as(source.folder, folder)
            found[source] = replace(seen, folder=as_tied(seen.folder, folder))
        elif folder.tied and not source.folder.tied and not leaf.partial:
            found[source] = Seen(as_tied(source.folder, folder))
    return found


def _with(value: Node, seen: Mapping[Source, Seen]) -> Node:
    if not seen:
        return value
    changed: Any = value
    if isinstance(value, Source):
        changed = replace(value, folder=seen[value].folder) if value in seen else value
    elif isinstance(value, tuple):
        changed = tuple(_with(one, seen) for one in value)
    elif is_dataclass(value) and not isinstance(value, (type, *_UNTOUCHED)):
        changed = replace(value, **{one.name: _with(getattr(value, one.name), seen) for one in fields(value)})
    found: Node = changed
    return found
