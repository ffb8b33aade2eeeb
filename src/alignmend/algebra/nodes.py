"""The nodes that an expression is made of. Frozen, comparable, and blind to bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, TypeAlias

from alignmend.algebra.names import Kind, kind_of, layer_of, matches
from alignmend.io.adapter import AdapterFolder
from alignmend.io.delta import DeltaFolder
from alignmend.io.folder import CheckpointFolder
from alignmend.io.moments import MomentsFile

Scope = Literal["tensor", "row", "model"]
"""Over what a ranking is taken: each tensor by itself, each row of its last dimension, or the whole model at once."""
Counting = Literal["nearest", "down"]
"""How a fraction of n becomes a whole number of weights."""
Shrinkage = Literal["none", "oas"]
"""What is done to moments of few texts: nothing, or shrinking towards the identity by Chen et al.'s rule."""
Projector = Literal["frob", "frob_sq", "spectral", "orthogonal"]
"""What V V^T is divided by: |V|, |V|^2, its largest eigenvalue; or the orthogonal projector on V's leading outputs."""
Law = Literal["linear", "log"]
"""How a coefficient grows with a rank."""
Unit = Literal["tensor", "layer", "model"]
"""What has one coefficient: each tensor, each decoder layer, or the whole model."""


@dataclass(frozen=True)
class Source:
    """A checkpoint on disk."""

    key: tuple[str, ...]
    """Same key, same bytes: name prefix, resolved path and header hash of every file."""
    folder: CheckpointFolder = field(compare=False, repr=False)


@dataclass(frozen=True)
class AdapterSource:
    """An adapter on disk."""

    key: tuple[str, ...]
    adapter: AdapterFolder = field(compare=False, repr=False)


@dataclass(frozen=True)
class DeltaSource:
    """A delta on disk."""

    key: tuple[str, ...]
    folder: DeltaFolder = field(compare=False, repr=False)


@dataclass(frozen=True)
class MomentsSource:
    """A file of input moments on disk."""

    key: tuple[str, ...]
    file: MomentsFile = field(compare=False, repr=False)


Operand: TypeAlias = Source | AdapterSource | DeltaSource | MomentsSource
"""What an expression reads from disk."""


@dataclass(frozen=True)
class Difference:
    """minuend - subtrahend, tensor by tensor."""

    minuend: Source
    subtrahend: Source


@dataclass(frozen=True)
class AdapterDelta:
    """What an adapter adds to `base`; `base` is read only where the adapter replaces weights."""

    adapter: AdapterSource
    base: Source | None


@dataclass(frozen=True)
class StoredDelta:
    """A stored delta, as its file has it; `target`, whose tensors it names, is read for its names and shapes alone."""

    stored: DeltaSource
    target: Source


@dataclass(frozen=True)
class Scaled:
    """coefficient * operand."""

    coefficient: float
    operand: DeltaNode


@dataclass(frozen=True)
class PerLayer:
    """Each layer's own coefficient * operand; `default` outside the layers named."""

    coefficients: tuple[tuple[int, float], ...]
    default: float
    operand: DeltaNode


@dataclass(frozen=True)
class Sum:
    """Terms added in order."""

    terms: tuple[DeltaNode, ...]


@dataclass(frozen=True)
class Selection:
    """Which tensors take part; a condition left empty holds for all."""

    names: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    kinds: tuple[Kind, ...] = ()
    linear: bool = False
    """Only weights of linear layers: two dimensions or more, inside a decoder layer."""

    def takes(self, name: str, dimensions: int) -> bool:
        """Whether the tensor `name`, which has so many dimensions, is selected."""
        return (
            (not self.names or matches(name, self.names))
            and (not self.layers or layer_of(name, self.names) in self.layers)
            and (not self.kinds or kind_of(name) in self.kinds)
            and (not self.linear or (dimensions > 1 and layer_of(name, self.names) is not None))
        )


@dataclass(frozen=True)
class Selected:
    """The operand on the selected tensors, zero elsewhere."""

    selection: Selection
    operand: DeltaNode


@dataclass(frozen=True)
class CommonRows:
    """The operand on the rows that all operands share, zero on rows that only some vocabularies have."""

    operand: DeltaNode


@dataclass(frozen=True)
class Masked:
    """The operand where the mask is true, zero elsewhere."""

    mask: MaskNode
    operand: DeltaNode
    label: str = ""
    """With a label, what is kept is counted and measured while it is written."""


@dataclass(frozen=True)
class Elected:
    """Mean of the terms that have the elected sign, the one with more mass; zero where both have as much (TIES)."""

    terms: tuple[DeltaNode, ...]


@dataclass(frozen=True)
class Weighting:
    """How much of each direction of a layer's input is kept: M = C_h (C_h + beta C_b + ridge tr(C_h) / n I)^-1.

    C_h is the moment of harmful texts, C_b the mean of those of the other kinds, each kind alike.
    """

    moments: MomentsSource
    beta: float
    ridge: float
    shrinkage: Shrinkage = "none"


@dataclass(frozen=True)
class Weighted:
    """operand M for the weights of linear layers, M that of the layer's input; the operand itself elsewhere."""

    weighting: Weighting
    operand: DeltaNode


@dataclass(frozen=True)
class Projected:
    """C operand, C of the same tensor of `basis`, for matrices; of anything else the operand is zero."""

    projector: Projector
    rank: int
    basis: DeltaNode
    operand: DeltaNode


@dataclass(frozen=True)
class Opposition:
    """A coefficient per unit: max(0, -<left, right> / <right, right>), what of `right` makes left + it orthogonal."""

    left: DeltaNode
    right: DeltaNode
    unit: Unit = "tensor"


@dataclass(frozen=True)
class Similar:
    """A coefficient per unit: 1 where the cosine of left and right is low, 0 where it is not.

    Low is at most `limit` (below it if `strict`); with a `number`, the so many lowest, ties by name. By layer,
    `outside` is the coefficient beyond the layers.
    """

    left: DeltaNode
    right: DeltaNode
    limit: float = 0.0
    strict: bool = False
    number: int | None = None
    unit: Unit = "tensor"
    outside: float = 0.0


@dataclass(frozen=True)
class Ranked:
    """A coefficient per decoder layer that falls with the cosine of left and right; `outside` beyond the layers.

    Of L layers the one of rank r, 0 the most similar, has r / (L - 1), or log(1 + r) / log(L).
    """

    left: DeltaNode
    right: DeltaNode
    law: Law = "linear"
    outside: float = 0.0
    unit: Unit = "layer"


@dataclass(frozen=True)
class Share:
    """A coefficient per tensor: the inverse of the mean of `left`, an indicator; 0 where it is zero everywhere."""

    left: DeltaNode
    right: DeltaNode
    """The same."""
    unit: Unit = "tensor"


Rule: TypeAlias = Opposition | Similar | Ranked | Share
"""How coefficients follow from inner products of two deltas."""


@dataclass(frozen=True)
class Fitted:
    """Each tensor's own coefficient, by a rule, * operand; zero where the rule speaks of nothing."""

    rule: Rule
    operand: DeltaNode


@dataclass(frozen=True)
class Indicator:
    """1 where the mask is true, 0 elsewhere."""

    mask: MaskNode


@dataclass(frozen=True)
class RankedDrop:
    """The operand, each weight kept by a chance that grows with its magnitude's rank in its row, divided by it.

    The chance goes from density - window for the smallest to density + window for the largest.
    """

    density: float
    window: float
    seed: int
    rescale: bool
    operand: DeltaNode


@dataclass(frozen=True)
class Ablated:
    """-w w^T (root + change) for what writes into the residual stream, w of length 1; zero for all else.

    w is `layer`'s vector of `direction`, less `strength` times its part along that of `spared`.
    """

    root: Source
    change: DeltaNode | None
    direction: Source
    spared: Source | None
    layer: int
    strength: float


DeltaNode: TypeAlias = (
    Difference
    | AdapterDelta
    | StoredDelta
    | Scaled
    | PerLayer
    | Sum
    | Selected
    | CommonRows
    | Masked
    | Elected
    | Weighted
    | Projected
    | Fitted
    | Indicator
    | RankedDrop
    | Ablated
)


@dataclass(frozen=True)
class Magnitude:
    """|delta|, element by element."""

    operand: DeltaNode


@dataclass(frozen=True)
class StoredScores:
    """One score per weight, read from disk."""

    source: Source


@dataclass(frozen=True)
class SelectedScores:
    """The operand's scores of the selected tensors; the others have none."""

    selection: Selection
    operand: ScoreNode


ScoreNode: TypeAlias = Magnitude | StoredScores | SelectedScores


@dataclass(frozen=True)
class Top:
    """True on exactly density * n elements, rounded: the highest scores; ties go by (tensor name, flat index)."""

    score: ScoreNode
    density: float
    scope: Scope
    counting: Counting = "nearest"

    def count(self, total: int) -> int:
        """How many of `total` weights are kept; rounded down, the density counts as the decimal that it was written."""
        if self.counting == "down":
            return math.floor(Fraction(repr(self.density)) * total)
        return round(self.density * total)


@dataclass(frozen=True)
class Random:
    """True with probability `density`, from Philox keyed by (seed, stream, tensor name, block)."""

    density: float
    seed: int
    stream: str = ""


@dataclass(frozen=True)
class Both:
    """left and right."""

    left: MaskNode
    right: MaskNode


@dataclass(frozen=True)
class Either:
    """left or right."""

    left: MaskNode
    right: MaskNode


@dataclass(frozen=True)
class Not:
    """not operand."""

    operand: MaskNode


@dataclass(frozen=True)
class Conflict:
    """True where the signs of left and right differ; with `zeros`, zero differs from either sign."""

    left: DeltaNode
    right: DeltaNode
    zeros: bool = True


@dataclass(frozen=True)
class Positive:
    """True where a stored number is above zero; false on tensors that are not stored."""

    source: Source


@dataclass(frozen=True)
class Heads:
    """True on the columns of attention's output projections that belong to the heads, by layer."""

    heads: tuple[tuple[int, tuple[int, ...]], ...]


MaskNode: TypeAlias = Top | Random | Both | Either | Not | Conflict | Positive | Heads


def scaled(coefficient: float, node: DeltaNode) -> DeltaNode:
    """Coefficient * node, with nested factors multiplied out and a factor of one left away."""
    if isinstance(node, Scaled) and math.isfinite(coefficient * node.coefficient):
        return scaled(coefficient * node.coefficient, node.operand)
    return node if coefficient == 1.0 else Scaled(coefficient, node)


def summed(*nodes: DeltaNode) -> DeltaNode:
    """The nodes added in order, nested sums flattened."""
    terms: list[DeltaNode] = []
    for node in nodes:
        terms.extend(node.terms if isinstance(node, Sum) else (node,))
    return terms[0] if len(terms) == 1 else Sum(tuple(terms))
