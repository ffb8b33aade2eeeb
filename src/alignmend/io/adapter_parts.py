"""What an adapter contributes to one weight: entries and constants, no bytes and no arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from alignmend.io.tensors import TensorEntry


@dataclass(frozen=True, slots=True)
class LowRankPart:
    """LoRA (Hu et al., arXiv 2106.09685): the delta is `scale * (B @ A)`, or its transpose where
    `transposed`.
    """

    a: TensorEntry
    """A, shape [rank, in]."""
    b: TensorEntry
    """B, shape [out, rank]."""
    scale: float
    """alpha / rank, or alpha / sqrt(rank) for rsLoRA (arXiv 2312.03732)."""
    transposed: bool
    """The weight is stored as [in, out]: `Conv1D` of GPT-2, and every embedding."""
    embedding: bool = False
    """A and B are `lora_embedding_A` and `lora_embedding_B`."""


@dataclass(frozen=True, slots=True)
class DoraPart:
    """DoRA (Liu et al., arXiv 2402.09353): the delta is `m * V / norm(V) - W` with `V = W + scale * (B @ A)`.

    The norm is taken per output feature over the inputs, in the [out, in] orientation. Not additive: the
    delta depends on the base weight.
    """

    a: TensorEntry
    """A, shape [rank, in]."""
    b: TensorEntry
    """B, shape [out, rank]."""
    scale: float
    """As in `LowRankPart`."""
    magnitude: TensorEntry
    """m, shape [out]."""
    transposed: bool
    """As in `LowRankPart`."""
    embedding: bool = False
    """As in `LowRankPart`."""
    on: TensorEntry | None = None
    """W, where the adapter has a copy of its own; else it is the base's."""


@dataclass(frozen=True, slots=True)
class ParameterPart:
    """LoRA of a parameter that PEFT targets by itself (`target_parameters`), such as the stacked weights of experts.

    Which parameter of the module it is, and how many experts there are, the base says.
    """

    a: TensorEntry
    """A, shape [rank * experts, in], expert by expert."""
    b: TensorEntry
    """B, shape [out, rank * experts], the experts of each rank together."""
    depth: int
    """Wrappers around this one: the parameter that PEFT wrapped first has the most."""


@dataclass(frozen=True, slots=True)
class BlockPart:
    """Rows of a weight, seen as a matrix with its last dimension as columns, that get rows of stacked products.

    The products `scale * (B_e @ A_e)`, or their transposes, stand one below the other: rows `[start, start + count)` of
    them are added to rows `[first, first + count)` of the weight.
    """

    a: TensorEntry
    """As in `ParameterPart`."""
    b: TensorEntry
    """As in `ParameterPart`."""
    scale: float
    transposed: bool
    experts: int
    first: int
    count: int
    start: int


@dataclass(frozen=True, slots=True)
class ReplacedPart:
    """A tensor that was trained as a whole (`modules_to_save`, trained biases): the delta is `saved - base`."""

    saved: TensorEntry
    """The new tensor, in the layout and shape of the weight."""


@dataclass(frozen=True, slots=True)
class TokenRowsPart:
    """Single rows of an embedding that were trained (`trainable_token_indices`): the delta is `trained -
    base` there.
    """

    trained: TensorEntry
    """The new rows, shape [len(rows), columns]."""
    rows: tuple[int, ...]
    """The row of the weight that each trained row replaces; all different."""
    on: TensorEntry | None = None
    """The weight that is changed, where the adapter has a copy of its own; else it is the base's."""


FactoredPart = LowRankPart | DoraPart
"""The parts that hold A and B."""

AdapterPart = LowRankPart | DoraPart | ReplacedPart | TokenRowsPart | ParameterPart | BlockPart
"""Everything that an adapter can contribute to one weight; the parts of one weight add up."""
