"""Walks through an expression: its stored operands, its adapters, its rankings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from alignmend.algebra.nodes import (
    Ablated,
    AdapterDelta,
    Both,
    Conflict,
    DeltaNode,
    Difference,
    Either,
    Elected,
    Fitted,
    Indicator,
    Magnitude,
    Masked,
    MaskNode,
    Not,
    Positive,
    Projected,
    Rule,
    ScoreNode,
    Selected,
    SelectedScores,
    Selection,
    Source,
    StoredDelta,
    StoredScores,
    Sum,
    Top,
)


@dataclass(frozen=True)
class Leaf:
    """One stored operand of an expression and the selections it stands under."""

    source: Source
    selections: tuple[Selection, ...]
    partial: bool
    """Scores may cover only some tensors; checkpoints may not."""

    def takes(self, name: str, dimensions: int) -> bool:
        """Whether the tensor `name`, which has so many dimensions, passes every selection."""
        return all(selection.takes(name, dimensions) for selection in self.selections)


def operands_of(node: DeltaNode) -> tuple[DeltaNode, ...]:
    """What a node is made of; what a mask, a rule or a projection looks at is not among it."""
    match node:
        case Difference() | AdapterDelta() | StoredDelta() | Indicator():
            return ()
        case Ablated(change=change):
            return () if change is None else (change,)
        case Sum(terms) | Elected(terms):
            return terms
        case _:
            return (node.operand,)


def beside(node: DeltaNode) -> tuple[DeltaNode, ...]:
    """What a node looks at on the same tensor beside its operands: signs of a mask, the basis of a projection."""
    match node:
        case Projected(basis=basis):
            return (basis,)
        case Masked(mask=mask) | Indicator(mask=mask):
            return _compared(mask)
        case _:
            return ()


def _compared(mask: MaskNode) -> tuple[DeltaNode, ...]:
    found = [one for one in masks_within(mask) if isinstance(one, Conflict)]
    return tuple(side for one in found for side in (one.left, one.right))


def masks_within(mask: MaskNode) -> tuple[MaskNode, ...]:
    """The mask, or those that it is put together from."""
    match mask:
        case Both(left, right) | Either(left, right):
            return masks_within(left) + masks_within(right)
        case Not(operand):
            return masks_within(operand)
        case _:
            return (mask,)


def _stored_masks(mask: MaskNode) -> tuple[Source, ...]:
    return tuple(one.source for one in masks_within(mask) if isinstance(one, Positive))


def ranked_delta(score: ScoreNode) -> DeltaNode | None:
    """The delta whose magnitude is ranked; None for scores that are stored."""
    match score:
        case SelectedScores(operand=operand):
            return ranked_delta(operand)
        case Magnitude(delta):
            return delta
        case _:
            return None


def stored_source(score: ScoreNode) -> Source | None:
    """The score file that is ranked; None for magnitudes."""
    match score:
        case SelectedScores(operand=operand):
            return stored_source(operand)
        case StoredScores(source):
            return source
        case _:
            return None


def leaves_of(node: DeltaNode) -> tuple[Leaf, ...]:
    """Every checkpoint and score file in an expression, each once per set of selections."""
    return tuple(dict.fromkeys(_leaves(node, ())))


def score_leaves(score: ScoreNode) -> tuple[Leaf, ...]:
    """Every checkpoint and score file that scores are taken from."""
    return tuple(dict.fromkeys(_score_leaves(score, ())))


def _leaves(node: DeltaNode, selections: tuple[Selection, ...]) -> Iterator[Leaf]:
    match node:
        case Difference(minuend, subtrahend):
            yield Leaf(minuend, selections, partial=False)
            yield Leaf(subtrahend, selections, partial=False)
        case AdapterDelta(base=base) if base is not None:
            yield Leaf(base, selections, partial=False)
        case StoredDelta(target=target):
            yield Leaf(target, selections, partial=False)
        case Ablated(root=root):
            yield Leaf(root, selections, partial=True)
        case Selected(selection):
            selections = (*selections, selection)
        case Masked(mask=mask) | Indicator(mask=mask):
            yield from (Leaf(source, selections, partial=True) for source in _stored_masks(mask))
    for operand in (*operands_of(node), *beside(node)):
        yield from _leaves(operand, selections)
    for question in _questions_here(node):
        if isinstance(question, Top):
            yield from _score_leaves(question.score, ())
        else:
            for side in (question.left, question.right):
                yield from _leaves(side, ())


def _score_leaves(score: ScoreNode, selections: tuple[Selection, ...]) -> Iterator[Leaf]:
    """A ranking sees every tensor that its score speaks of, whatever is selected from its result."""
    match score:
        case SelectedScores(selection, operand):
            yield from _score_leaves(operand, (*selections, selection))
        case StoredScores(source):
            yield Leaf(source, selections, partial=True)
        case Magnitude(delta):
            yield from _leaves(delta, selections)


def adapters_of(node: DeltaNode) -> tuple[AdapterDelta, ...]:
    """Every adapter in an expression, each once."""
    return tuple(dict.fromkeys(found for found in parts_of(node) if isinstance(found, AdapterDelta)))


def stored_deltas_of(node: DeltaNode) -> tuple[StoredDelta, ...]:
    """Every stored delta in an expression, each once."""
    return tuple(dict.fromkeys(found for found in parts_of(node) if isinstance(found, StoredDelta)))


def directions_of(node: DeltaNode) -> tuple[Source, ...]:
    """Every file of directions in an expression, each once."""
    found = [part for part in parts_of(node) if isinstance(part, Ablated)]
    sides = [side for part in found for side in (part.direction, part.spared)]
    return tuple(dict.fromkeys(side for side in sides if side is not None))


def parts_of(node: DeltaNode) -> Iterator[DeltaNode]:
    """The node and all that it is made of, what its masks and rules look at included."""
    yield node
    for operand in (*operands_of(node), *beside(node)):
        yield from parts_of(operand)
    for question in _questions_here(node):
        for asked in _asked(question):
            yield from parts_of(asked)


def _asked(question: Question) -> tuple[DeltaNode, ...]:
    """The deltas that a ranking or a rule looks at over the whole model."""
    if isinstance(question, Top):
        ranked = ranked_delta(question.score)
        return () if ranked is None else (ranked,)
    return (question.left, question.right)


Question: TypeAlias = Top | Rule
"""What must be found out over all tensors before any can be computed."""


def questions_of(node: DeltaNode) -> tuple[Question, ...]:
    """Every ranking and rule in an expression, inner ones first, each once."""
    return tuple(dict.fromkeys(_questions(node)))


def rankings_of(node: DeltaNode) -> tuple[Top, ...]:
    """Every ranking in an expression, inner ones first, each once."""
    return tuple(question for question in questions_of(node) if isinstance(question, Top))


def rules_of(node: DeltaNode) -> tuple[Rule, ...]:
    """Every rule in an expression, inner ones first, each once."""
    return tuple(question for question in questions_of(node) if not isinstance(question, Top))


def _questions(node: DeltaNode) -> Iterator[Question]:
    for operand in (*operands_of(node), *beside(node)):
        yield from _questions(operand)
    for question in _questions_here(node):
        for asked in _asked(question):
            yield from _questions(asked)
        yield question


def _questions_here(node: DeltaNode) -> tuple[Question, ...]:
    """Those of the node's own mask or rule."""
    match node:
        case Masked(mask=mask) | Indicator(mask=mask):
            return tops_of(mask)
        case Fitted(rule=rule):
            return (rule,)
        case _:
            return ()


def masks_of(node: DeltaNode) -> Iterator[Masked]:
    """Every masked part of an expression, outer ones first; those inside of scores are not among them."""
    if isinstance(node, Masked):
        yield node
    for operand in operands_of(node):
        yield from masks_of(operand)


def tops_of(mask: MaskNode) -> tuple[Top, ...]:
    """The rankings that a mask is put together from, each as often as it occurs."""
    return tuple(one for one in masks_within(mask) if isinstance(one, Top))
