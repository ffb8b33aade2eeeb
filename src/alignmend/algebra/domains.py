"""Which tensors an expression speaks of: those that must be there, and the population of a ranking."""

from __future__ import annotations

from collections.abc import Iterator

from alignmend.algebra.names import is_buffer
from alignmend.algebra.nodes import (
    Ablated,
    AdapterDelta,
    DeltaNode,
    Difference,
    Indicator,
    ScoreNode,
    Selected,
    SelectedScores,
    StoredDelta,
    StoredScores,
)
from alignmend.algebra.problems import Problems
from alignmend.algebra.tying import check_tying, is_tied_copy, lookup, tied_alias, tying_hint
from alignmend.algebra.walks import Leaf, operands_of
from alignmend.io.folder import CheckpointFolder
from alignmend.io.seen import Seen
from alignmend.io.tensors import ARITHMETIC_DTYPES


def check_leaf(leaf: Leaf, target: CheckpointFolder, problems: Problems, seen: Seen | None = None) -> None:
    """Report tensors that only one of target and source has, and embeddings that only one of them ties.

    `seen` is the source as the target stores it, where that was looked at.
    """
    folder = leaf.source.folder
    if not leaf.partial:
        check_tying(target, folder, problems)
    absent = frozenset() if seen is None else seen.absent
    for name, having, lacking in one_sided(leaf, target):
        if name not in absent:
            problems.add(_missing(name, having, lacking))
            if seen is not None:
                problems.advise(f"{_UNKNOWN.format(seen.unknown) if seen.unknown else _KNOWN}, such as  {_NAMES}")


_KNOWN = (
    "these are trained weights; where they shall stay as they are, the parameter names of a recipe selects the others"
)
_UNKNOWN = (
    "{}, so whether the model runs without such tensors cannot be told; where it does, the parameter names of a recipe "
    "selects the others"
)
_NAMES = "names: ['model.*', 'lm_head.*']"


def one_sided(leaf: Leaf, target: CheckpointFolder) -> Iterator[tuple[str, CheckpointFolder, CheckpointFolder]]:
    """Each tensor that only one of target and source has: its name, who has it, who lacks it."""
    folder = leaf.source.folder
    for name, entry in () if leaf.partial else target.tensors.items():
        if leaf.takes(name, len(entry.shape)) and not is_buffer(name) and not lookup(folder, target, name):
            yield name, target, folder
    for name, entry in folder.tensors.items():
        expected = leaf.takes(name, len(entry.shape)) and not is_buffer(name)
        if expected and name not in target.tensors and not is_tied_copy(name, folder, target):
            yield name, folder, target


def _missing(name: str, having: CheckpointFolder, lacking: CheckpointFolder) -> str:
    return f"{name} is in {having.location} but not in {lacking.location}{tying_hint(name, having, lacking)}"


def ranked_names(node: ScoreNode, target: CheckpointFolder) -> frozenset[str]:
    """The population of a ranking: the target's float tensors that the score speaks of, tied copies once."""
    alias = tied_alias(target)
    names = frozenset(
        name
        for name, entry in target.tensors.items()
        if entry.dtype in ARITHMETIC_DTYPES and not is_buffer(name) and name not in alias
    )
    return frozenset(name for name in names if _scored(node, target, name))


def _scored(node: ScoreNode, target: CheckpointFolder, name: str) -> bool:
    dimensions = len(target.tensors[name].shape)
    match node:
        case SelectedScores(selection, operand):
            return selection.takes(name, dimensions) and _scored(operand, target, name)
        case StoredScores(source):
            return lookup(source.folder, target, name) is not None
        case _:
            return _speaks_of(node.operand, target, name, dimensions)


def _speaks_of(node: DeltaNode, target: CheckpointFolder, name: str, dimensions: int) -> bool:
    if isinstance(node, Difference):
        return all(lookup(side.folder, target, name) is not None for side in (node.minuend, node.subtrahend))
    if isinstance(node, AdapterDelta | StoredDelta | Indicator | Ablated):
        return True
    taken = node.selection.takes(name, dimensions) if isinstance(node, Selected) else True
    return taken and any(_speaks_of(operand, target, name, dimensions) for operand in operands_of(node))
