"""Checkpoint, Delta, Scores, Moments and Mask: what a user holds, and the only ways to combine them.

`Checkpoint - Checkpoint = Delta`, `Checkpoint ± Delta = Checkpoint`, `Delta ± Delta = Delta`, `number * Delta = Delta`;
nothing else type-checks, and nothing else runs. Building an expression reads no weight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import overload

from alignmend.algebra.nodes import (
    Both,
    DeltaNode,
    Difference,
    Either,
    MaskNode,
    MomentsSource,
    Not,
    ScoreNode,
    Source,
    Sum,
    scaled,
    summed,
)
from alignmend.algebra.notation import delta_notation, mask_notation, notation, score_notation
from alignmend.algebra.walks import adapters_of
from alignmend.errors import ParameterError
from alignmend.io.adapter import AdapterFolder
from alignmend.io.adapter_growth import resized_for


@dataclass(frozen=True, repr=False)
class Delta:
    """A difference of two checkpoints: a vector, one value per weight."""

    node: DeltaNode

    def __repr__(self) -> str:
        """The expression, in the names of its folders."""
        return f"Delta({delta_notation(self, {})})"

    def __add__(self, other: Delta) -> Delta:
        """Sum of two deltas."""
        return Delta(summed(self.node, other.node)) if isinstance(other, Delta) else NotImplemented

    def __sub__(self, other: Delta) -> Delta:
        """Difference of two deltas."""
        return Delta(summed(self.node, scaled(-1.0, other.node))) if isinstance(other, Delta) else NotImplemented

    def __neg__(self) -> Delta:
        """The opposite direction."""
        return Delta(scaled(-1.0, self.node))

    def __mul__(self, coefficient: float) -> Delta:
        """The delta stretched by a finite number."""
        if isinstance(coefficient, bool) or not isinstance(coefficient, (int, float)):
            return NotImplemented
        return Delta(scaled(_finite(coefficient), self.node))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Delta:
        """The delta shrunk by a finite number other than zero."""
        if isinstance(divisor, bool) or not isinstance(divisor, (int, float)):
            return NotImplemented
        if divisor == 0:
            raise ParameterError("a delta cannot be divided by zero")
        return self * (1.0 / _finite(divisor))


def _finite(number: float) -> float:
    try:
        value = float(number)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise ParameterError(f"a coefficient must be finite in double precision, not {value}")
    return value


@dataclass(frozen=True, repr=False)
class Checkpoint:
    """All weights of a model: a point. `root` is on disk; `change` is what arithmetic adds to it."""

    root: Source
    change: DeltaNode | None = None
    speaker: AdapterFolder | None = field(default=None, compare=False, repr=False)
    """The adapter that made this model of its root: its tokenizer and chat template go before the root's."""

    def __repr__(self) -> str:
        """The expression, in the names of its folders."""
        return f"Checkpoint({notation(self, {})})"

    def __add__(self, other: Delta) -> Checkpoint:
        """The point moved along a delta."""
        return self._moved(other.node) if isinstance(other, Delta) else NotImplemented

    @overload
    def __sub__(self, other: Checkpoint) -> Delta: ...
    @overload
    def __sub__(self, other: Delta) -> Checkpoint: ...
    def __sub__(self, other: Checkpoint | Delta) -> Checkpoint | Delta:
        """The delta between two points, or the point moved against a delta.

        Two points that move away from one root differ by their movements alone; the root cancels exactly.
        """
        if isinstance(other, Checkpoint):
            return Delta(_difference(self, other))
        return self._moved(scaled(-1.0, other.node)) if isinstance(other, Delta) else NotImplemented

    def _moved(self, node: DeltaNode) -> Checkpoint:
        change = node if self.change is None else summed(self.change, node)
        return replace(self, root=_resized(self.root, node), change=change)


def _resized(root: Source, node: DeltaNode) -> Source:
    """The root with the vocabulary of the adapters that are trained on it."""
    for delta in adapters_of(node):
        if delta.base == root:
            root = replace(root, folder=resized_for(root.folder, delta.adapter.adapter))
    return root


def _difference(minuend: Checkpoint, subtrahend: Checkpoint) -> DeltaNode:
    terms: list[DeltaNode] = []
    if minuend.root != subtrahend.root:
        terms.append(Difference(minuend.root, subtrahend.root))
    if minuend.change is not None:
        terms.append(minuend.change)
    if subtrahend.change is not None:
        terms.append(scaled(-1.0, subtrahend.change))
    return summed(*terms) if terms else Sum(())


@dataclass(frozen=True, repr=False)
class Scores:
    """One non-negative number per weight that says how much it matters."""

    node: ScoreNode

    def __repr__(self) -> str:
        """What is scored, in the names of its folders."""
        return f"Scores({score_notation(self.node, {})})"


@dataclass(frozen=True)
class Moments:
    """Second moments of what enters the linear layers of a model, for each kind of text."""

    source: MomentsSource


@dataclass(frozen=True, repr=False)
class Mask:
    """One truth value per weight."""

    node: MaskNode

    def __repr__(self) -> str:
        """The rule, in the names of its folders."""
        return f"Mask({mask_notation(self.node, {})})"

    def __and__(self, other: Mask) -> Mask:
        """True where both are."""
        return Mask(Both(self.node, other.node)) if isinstance(other, Mask) else NotImplemented

    def __or__(self, other: Mask) -> Mask:
        """True where either is."""
        return Mask(Either(self.node, other.node)) if isinstance(other, Mask) else NotImplemented

    def __sub__(self, other: Mask) -> Mask:
        """True where this is and the other is not."""
        return Mask(Both(self.node, Not(other.node))) if isinstance(other, Mask) else NotImplemented

    def __invert__(self) -> Mask:
        """True where this is not."""
        return Mask(Not(self.node))
