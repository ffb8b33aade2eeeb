"""Selections and layer coefficients that speak of nothing are slips of the pen: found before any work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from alignmend.algebra.heads import unknown_layers
from alignmend.algebra.names import kind_of, layer_of, matches
from alignmend.algebra.nodes import DeltaNode, Heads, Masked, PerLayer, Selected, Selection
from alignmend.algebra.problems import Problems
from alignmend.algebra.walks import masks_within, parts_of
from alignmend.io.folder import CheckpointFolder


def check_selections(node: DeltaNode, target: CheckpointFolder, problems: Problems) -> None:
    """Report patterns, layers and kinds of an expression that fit no tensor of the target."""
    for found in _choosing(node):
        if isinstance(found, Masked):
            _check_heads(found, target, problems)
        elif isinstance(found, PerLayer):
            _check_layers((layer for layer, _ in found.coefficients), (), target, problems)
        else:
            _check_selection(found.selection, target, problems)


def _choosing(node: DeltaNode) -> Iterator[PerLayer | Selected | Masked]:
    return (part for part in parts_of(node) if isinstance(part, PerLayer | Selected | Masked))


def _check_heads(node: Masked, target: CheckpointFolder, problems: Problems) -> None:
    for mask in masks_within(node.mask):
        for layer in unknown_layers(mask, target) if isinstance(mask, Heads) else ():
            problems.add(f"layer {layer} of {target.location} has no output projection of attention to take heads of")


def _check_selection(selection: Selection, target: CheckpointFolder, problems: Problems) -> None:
    _check_layers(selection.layers, selection.names, target, problems)
    for pattern in selection.names:
        if not any(matches(name, (pattern,)) for name in target.tensors):
            problems.add(f"no tensor of {target.location} fits the pattern {pattern!r}")
    for kind in selection.kinds:
        if not any(kind_of(name) == kind for name in target.tensors):
            problems.add(f"no tensor of {target.location} is of the kind {kind!r}")
    if not any(selection.takes(name, len(entry.shape)) for name, entry in target.tensors.items()):
        linear = ", and is a linear layer's weight inside a decoder layer" if selection.linear else ""
        problems.add(f"no tensor of {target.location} fits all of names, layers and kinds together{linear}")


def _check_layers(
    layers: Iterable[int], patterns: tuple[str, ...], target: CheckpointFolder, problems: Problems
) -> None:
    known = sorted({layer for name in target.tensors if (layer := layer_of(name, patterns)) is not None})
    for layer in layers:
        if layer not in known:
            has = f"layers {known[0]} to {known[-1]}" if known else "no numbered layers"
            problems.add(f"there is no layer {layer}: {target.location} has {has}")
