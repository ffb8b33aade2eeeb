"""What an expression means for one tensor: a small picklable program over byte ranges of files.

A program yields float32 values for any element range of its tensor. `resolve` (structure.py) makes programs from
expressions, `execution.blocks` runs them.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TypeAlias

from alignmend.algebra.nodes import Projector
from alignmend.io.tensors import TensorEntry


@dataclass(frozen=True)
class Read:
    """The stored values."""

    entry: TensorEntry


@dataclass(frozen=True)
class Subtract:
    """left - right."""

    left: Read
    right: Read


@dataclass(frozen=True)
class Scattered:
    """`values` at the flat `indices`, which increase, in a tensor of `size` elements; zero elsewhere."""

    indices: TensorEntry
    values: TensorEntry
    size: int


@dataclass(frozen=True)
class InputMatrix:
    """M = C_h (C_h + beta C_b + ridge tr(C_h) / n I)^-1, [n, n], of one input; C_b is the mean of `harmless`.

    Each moment is stored as C, [n, n], or as fewer rows R with R^T R = C.
    """

    harmful: TensorEntry
    harmless: tuple[TensorEntry, ...]
    beta: float
    ridge: float
    positions: tuple[int, ...] = ()
    """To shrink by: over how many positions each moment is a mean, the harmful one first; none where they stay."""

    @property
    def size(self) -> int:
        """Width n of the input."""
        return self.harmful.shape[1]

    @property
    def entries(self) -> tuple[TensorEntry, ...]:
        """All moments."""
        return (self.harmful, *self.harmless)


@dataclass(frozen=True)
class LowRank:
    """scale * B A M (or its transpose): [rows, columns] in the weight's own layout. A is [r, in], B is [out, r]."""

    a: TensorEntry
    b: TensorEntry
    scale: float
    transposed: bool
    rows: int
    columns: int
    matrix: InputMatrix | None = None
    """M; the identity where left out."""


@dataclass(frozen=True)
class Dora:
    """magnitude * (W + scale B A) / norm(W + scale B A) - W, the norm taken over each output row."""

    low_rank: LowRank
    magnitude: TensorEntry
    weight: TensorEntry


@dataclass(frozen=True)
class TokenRows:
    """trained - weight on the `rows` of an embedding that were trained, zero elsewhere; trained is [rows, columns]."""

    trained: TensorEntry
    rows: tuple[int, ...]
    weight: TensorEntry
    columns: int


@dataclass(frozen=True)
class Stacked:
    """Rows of stacked products `scale * (B_e A_e)`, or of their transposes, of as many experts; zero elsewhere.

    The tensor is seen as a matrix of `columns`: its rows `[first, first + count)` are the stack's rows from `start` on.
    A is [r * experts, in], expert by expert; B is [out, r * experts], the experts of each rank together.
    """

    a: TensorEntry
    b: TensorEntry
    scale: float
    transposed: bool
    experts: int
    first: int
    count: int
    start: int
    columns: int


RowPart: TypeAlias = LowRank | Dora | TokenRows | Stacked
"""Parts that are computed for whole rows at a time."""


@dataclass(frozen=True)
class Times:
    """coefficient * operand."""

    coefficient: float
    operand: Program


@dataclass(frozen=True)
class Plus:
    """Terms added in order; at least one."""

    terms: tuple[Program, ...]


@dataclass(frozen=True)
class Prefix:
    """The operand on the first `stop` elements, zero after."""

    stop: int
    operand: Program


@dataclass(frozen=True)
class Keep:
    """The operand where the mask is true, zero elsewhere."""

    mask: MaskProgram
    operand: Program
    label: str = ""
    """With a label, what is kept is counted and measured."""


@dataclass(frozen=True)
class RightMultiplied:
    """operand M for a weight of rows of `columns` elements, [out, in]; M^T operand where it is stored [in, out]."""

    operand: Program
    matrix: InputMatrix
    transposed: bool
    columns: int


@dataclass(frozen=True)
class Projected:
    """C operand, C made of `basis` [rows, columns] on the output side; operand C where weights are stored [in, out].

    C is `basis basis^T` over its Frobenius norm, that norm squared or its spectral norm squared, or the orthogonal
    projector on the `rank` leading output directions of `basis`.
    """

    operand: Program
    basis: Program
    projector: Projector
    rank: int
    transposed: bool
    columns: int


@dataclass(frozen=True)
class Along:
    """-w w^T operand for a weight whose rows, or (-operand w) w^T for one whose columns are the residual stream's.

    w is `direction` less `strength` times its part along `spared`, over its length.
    """

    operand: Program
    direction: TensorEntry
    spared: TensorEntry | None
    strength: float
    by_row: bool
    columns: int


@dataclass(frozen=True)
class RankedKeep:
    """The operand where a draw, keyed by (seed, name, block), says so: by rank of magnitude in rows of `columns`."""

    operand: Program
    density: float
    window: float
    seed: int
    name: str
    rescale: bool
    columns: int


@dataclass(frozen=True)
class Absolute:
    """|operand|."""

    operand: Program


@dataclass(frozen=True)
class Truth:
    """1 where the mask is true, 0 elsewhere."""

    mask: MaskProgram


@dataclass(frozen=True)
class Elect:
    """Mean of the terms that have the sign with more mass, zero where both have as much; at least two terms."""

    terms: tuple[Program, ...]


Program: TypeAlias = (
    Read
    | Subtract
    | Scattered
    | RowPart
    | Times
    | Plus
    | Prefix
    | Keep
    | Absolute
    | Elect
    | Truth
    | RightMultiplied
    | Projected
    | RankedKeep
    | Along
)


@dataclass(frozen=True)
class RandomKeep:
    """Bernoulli(density), keyed by (seed, name, block of 65,536 elements)."""

    density: float
    seed: int
    name: str


@dataclass(frozen=True)
class Above:
    """True where the score's float32 bit pattern exceeds `bits`, and on elements equal to it before `tie_stop`.

    A score of None is zero everywhere.
    """

    score: Program | None
    bits: int
    tie_stop: int


@dataclass(frozen=True)
class RowTop:
    """True on the `count` highest scores of each row of `columns` elements, ties in order of index; None is zero."""

    score: Program | None
    count: int
    columns: int


@dataclass(frozen=True)
class Constant:
    """The same truth value everywhere."""

    value: bool


@dataclass(frozen=True)
class And:
    """left and right."""

    left: MaskProgram
    right: MaskProgram


@dataclass(frozen=True)
class Or:
    """left or right."""

    left: MaskProgram
    right: MaskProgram


@dataclass(frozen=True)
class Invert:
    """not operand."""

    operand: MaskProgram


@dataclass(frozen=True)
class Differ:
    """True where the signs differ; None is zero. With `zeros`, zero differs from either sign."""

    left: Program | None
    right: Program | None
    zeros: bool


@dataclass(frozen=True)
class AboveZero:
    """True where the stored number is above zero."""

    values: Program


@dataclass(frozen=True)
class Between:
    """True where a coordinate of a matrix of `columns`, its column or its row, lies in one of the ranges."""

    ranges: tuple[tuple[int, int], ...]
    columns: int
    by_row: bool


MaskProgram: TypeAlias = RandomKeep | Above | RowTop | Constant | And | Or | Invert | Differ | AboveZero | Between


def parts_within(program: Program | MaskProgram) -> tuple[Program | MaskProgram, ...]:
    """What a program is put together from, in reading order; leaves have none."""
    match program:
        case Subtract(left, right) | And(left, right) | Or(left, right):
            return (left, right)
        case Keep(mask, operand):
            return (mask, operand)
        case Differ(left, right):
            return tuple(side for side in (left, right) if side is not None)
        case Projected(operand, basis):
            return (operand,) if operand == basis else (operand, basis)
        case Times(operand=operand) | Prefix(operand=operand) | Absolute(operand) | Invert(operand):
            return (operand,)
        case RightMultiplied(operand=operand) | RankedKeep(operand=operand) | Along(operand=operand):
            return (operand,)
        case Truth(mask):
            return (mask,)
        case AboveZero(values):
            return (values,)
        case Plus(terms) | Elect(terms):
            return terms
        case Above(score=score) | RowTop(score=score) if score is not None:
            return (score,)
        case _:
            return ()


def entries_of(program: Program | MaskProgram) -> tuple[TensorEntry, ...]:
    """Every stored tensor that the program reads, each once, in reading order."""
    return tuple(dict.fromkeys(_entries(program)))


def read_counts(program: Program | MaskProgram) -> Counter[TensorEntry]:
    """How often the program reads each stored tensor element by element."""
    match program:
        case Read(entry):
            return Counter([entry])
        case Keep(Above(score=score), operand) if score == Absolute(operand):
            return read_counts(operand)  # evaluated once for both
        case RightMultiplied() | RowTop() | Projected() | RankedKeep() | Along():  # evaluated before, for whole rows
            return Counter()
        case _:
            return sum((read_counts(part) for part in parts_within(program)), Counter())


def _entries(program: Program | MaskProgram) -> list[TensorEntry]:
    match program:
        case Read(entry):
            return [entry]
        case Scattered(indices, values, _):
            return [indices, values]
        case Along(operand, direction, spared):
            return [*_entries(operand), direction, *([] if spared is None else [spared])]
        case LowRank(a=a, b=b) | Stacked(a=a, b=b):
            return [a, b]
        case Dora(low_rank, magnitude, weight):
            return [*_entries(low_rank), magnitude, weight]
        case TokenRows(trained=trained, weight=weight):
            return [trained, weight]
        case _:
            return [entry for part in parts_within(program) for entry in _entries(part)]


def row_parts(program: Program | MaskProgram) -> tuple[RowPart, ...]:
    """The parts that need whole rows, each once; they decide how the tensor is cut into pieces."""
    return tuple(dict.fromkeys(_row_parts(program)))


def _row_parts(program: Program | MaskProgram) -> list[RowPart]:
    match program:
        case LowRank() | Dora() | TokenRows() | Stacked():
            return [program]
        case _:
            return [found for part in parts_within(program) for found in _row_parts(part)]


WholeRows: TypeAlias = RowTop | RightMultiplied | Projected | RankedKeep | Along
"""Parts whose operand is evaluated for whole rows before they are computed."""


def whole_rows(program: Program | MaskProgram) -> tuple[WholeRows, ...]:
    """Rankings and drops by rank within rows, products from the right, projections: each once, inner ones first."""
    return tuple(dict.fromkeys(_whole_rows(program)))


def _whole_rows(program: Program | MaskProgram) -> list[WholeRows]:
    found = [one for part in parts_within(program) for one in _whole_rows(part)]
    return [*found, program] if isinstance(program, WholeRows) else found


def row_tops(program: Program | MaskProgram) -> tuple[RowTop, ...]:
    """The rankings within rows, each once, inner ones first."""
    return tuple(found for found in whole_rows(program) if isinstance(found, RowTop))


def right_products(program: Program | MaskProgram) -> tuple[RightMultiplied, ...]:
    """The products from the right, each once, inner ones first."""
    return tuple(found for found in whole_rows(program) if isinstance(found, RightMultiplied))


def ranked_drops(program: Program | MaskProgram) -> tuple[RankedKeep, ...]:
    """The drops by rank, each once, inner ones first."""
    return tuple(found for found in whole_rows(program) if isinstance(found, RankedKeep))


def ablations(program: Program | MaskProgram) -> tuple[Along, ...]:
    """What is taken out along directions, each once, inner ones first."""
    return tuple(found for found in whole_rows(program) if isinstance(found, Along))


def projections(program: Program | MaskProgram) -> tuple[Projected, ...]:
    """The projections of outputs, each once, inner ones first."""
    return tuple(found for found in whole_rows(program) if isinstance(found, Projected))


def matrices_of(program: Program | MaskProgram) -> tuple[InputMatrix, ...]:
    """The matrices that something is multiplied with, each once; their moments are not among `entries_of`."""
    parts = [part.low_rank if isinstance(part, Dora) else part for part in row_parts(program)]
    factors = [part for part in parts if isinstance(part, LowRank)]
    found = [part.matrix for part in factors] + [part.matrix for part in right_products(program)]
    return tuple(dict.fromkeys(matrix for matrix in found if matrix is not None))


def row_size(program: Program | MaskProgram, shape: tuple[int, ...]) -> int | None:
    """Elements that a piece of a tensor of this shape must hold whole; None where it may be cut anywhere."""
    size = math.prod(shape)
    parts = row_parts(program)
    sizes = [
        size if _needs_all(found) else max(1, found.columns)
        for found in (*whole_rows(program), *(part for part in parts if isinstance(part, Stacked)))
    ]
    if any(not isinstance(part, Stacked) for part in parts):
        sizes.append(max(1, size // max(1, shape[0])) if shape else 1)
    return max(sizes, default=None)


def _needs_all(part: WholeRows | Stacked) -> bool:
    """Whether it is computed of the whole tensor at once."""
    if isinstance(part, Along):
        return part.by_row
    return isinstance(part, Projected) or (isinstance(part, RightMultiplied) and part.transposed)
