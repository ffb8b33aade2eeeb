"""What is found out before anything is computed: cuts of rankings, coefficients of rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from alignmend.algebra.names import natural_key
from alignmend.algebra.nodes import Rule, Top


@dataclass(frozen=True)
class Cut:
    """Elements above `bits` are in; elements equal to it are in up to (`last_name`, `tie_stop`) in ranking order."""

    bits: int
    """Float32 bit pattern of the score at the cut; bit patterns of non-negative floats sort as the floats do."""
    last_name: str
    tie_stop: int
    """Flat index in the tensor `last_name` before which ties are in."""
    kept: int
    """How many elements are in."""
    total: int
    """Out of how many."""

    def tie_stop_in(self, name: str, size: int) -> int:
        """How far ties are in within the tensor `name` of `size` elements."""
        if name == self.last_name:
            return self.tie_stop
        return size if natural_key(name) < natural_key(self.last_name) else 0


Cuts: TypeAlias = Mapping[str | None, Cut]
"""One cut per tensor name (scope `tensor`), or one under None (scope `model`)."""

Thresholds: TypeAlias = Mapping[Top, Cuts]


@dataclass(frozen=True)
class Coefficient:
    """What a rule found for one tensor: its coefficient, and how the rule's two deltas lie there."""

    name: str
    value: float
    cosine: float | None
    """None where one of them is zero."""
    ratio: float | None
    """Norm of the rule's left delta over that of its right one; None where the right one is zero."""


Coefficients: TypeAlias = Mapping[str, Coefficient]
"""By tensor name."""


@dataclass(frozen=True)
class Findings:
    """The answers to an expression's questions."""

    cuts: Thresholds = field(default_factory=dict)
    coefficients: Mapping[Rule, Coefficients] = field(default_factory=dict)
