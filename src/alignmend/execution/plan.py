"""What computing an expression would do, from headers alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from alignmend.algebra.nodes import Rule, Source, Top
from alignmend.algebra.notation import Labels, notation
from alignmend.algebra.programs import (
    Dora,
    InputMatrix,
    Program,
    TokenRows,
    ablations,
    entries_of,
    matrices_of,
    projections,
    ranked_drops,
    right_products,
    row_parts,
    row_tops,
)
from alignmend.algebra.structure import Structure, TensorPlan, population, resolve, resolve_delta
from alignmend.algebra.values import Checkpoint, Delta
from alignmend.algebra.walks import rankings_of, rules_of
from alignmend.execution.input_matrices import (
    KEPT_BYTES,
    SOLVING_BYTES,
    product_bytes,
    solving_bytes,
    solving_operations,
)
from alignmend.execution.moment_checks import moment_warnings
from alignmend.execution.output_dtypes import OutputDtypes, kept_notes, output_dtypes
from alignmend.execution.same_scores import same_scores
from alignmend.execution.threads import thread_count
from alignmend.io.shards import OutputTensor, Shard, human_bytes, parse_size, plan_shards
from alignmend.io.tensors import ARITHMETIC_DTYPES

MEBIBYTE = 1 << 20
RUNTIME_BYTES = 330 * MEBIBYTE
"""Python, torch and this package with nothing to do, generously."""
BLOCK_BYTES = 4 * 262_144
THREAD_BYTES = 24 * MEBIBYTE
"""A thread's stack and scratch beyond the blocks counted per expression, generously."""
ROW_PIECE_BYTES = 4 * BLOCK_BYTES
DORA_BYTES = 32 * MEBIBYTE
"""Rows of a weight in double precision, a few at a time, while the norms of its columns are taken."""
RANKING_BYTES = 120 * MEBIBYTE
"""Sample, histogram and remembered ties of a ranking."""


@dataclass(frozen=True, repr=False)
class Plan:
    """What `save` would do. Sizes in bytes."""

    expression: str
    tensors: int
    changed: int
    """Tensors that arithmetic touches; the others are copied bit by bit."""
    elements: int
    passes: tuple[str, ...]
    bytes_read: int
    bytes_written: int
    shards: tuple[Shard, ...]
    peak_bytes: int
    """Bound on resident memory, the interpreter and torch included."""
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        """One line."""
        return (
            f"Plan({self.expression}: {self.changed:,} of {self.tensors:,} tensors change, {len(self.passes)} passes, "
            f"reads {human_bytes(self.bytes_read)}, writes {human_bytes(self.bytes_written)}, "
            f"at most {human_bytes(self.peak_bytes)} of memory)"
        )

    def __str__(self) -> str:
        """A few lines for a person."""
        files = f"{len(self.shards)} file{'s' if len(self.shards) > 1 else ''}"
        lines = [
            self.expression,
            f"  tensors   {self.tensors:,} ({self.elements:,} elements): "
            f"{self.changed:,} change, {self.tensors - self.changed:,} are copied unchanged",
            *(f"  pass {number}    {what}" for number, what in enumerate(self.passes, 1)),
            f"  read      {human_bytes(self.bytes_read)} in all passes",
            f"  write     {human_bytes(self.bytes_written)} in {files}",
            f"  memory    at most {human_bytes(self.peak_bytes)}, whatever the size of the model",
            *(f"  note      {note}" for note in self.notes),
        ]
        return "\n".join(lines)


def output_shards(structure: Structure, dtypes: OutputDtypes, max_shard_size: str | int) -> tuple[Shard, ...]:
    """The files to be written for a structure."""
    outputs = (OutputTensor(plan.name, dtypes[plan.name], plan.entry.shape) for plan in structure.tensors)
    return plan_shards(outputs, parse_size(max_shard_size))


def explain(
    checkpoint: Checkpoint,
    *,
    dtype: str | None = None,
    dtypes: Mapping[str, str] | None = None,
    max_shard_size: str | int = "5GB",
    threads: int | None = None,
    labels: Labels | None = None,
) -> Plan:
    """Say what `save` would do with the same options, from headers alone.

    Raises `MismatchError` where the operands do not fit together.
    """
    structure = resolve(checkpoint)
    matrices = _matrices(structure)
    written = output_dtypes(checkpoint, structure, dtype, dtypes)
    shards = output_shards(structure, written, max_shard_size)
    rankings = [one for one in _rankings(checkpoint) if one.scope != "row"]  # rows are ranked while writing
    populations = [population(ranking, checkpoint.root) for ranking in rankings]
    reads = [sum(stored_bytes(member.score) for member in members) for members in populations]
    rules = rules_of(checkpoint.change) if checkpoint.change is not None else ()
    fitted = [_fitting_bytes(rule, checkpoint.root) for rule in rules]
    return Plan(
        expression=notation(checkpoint, labels or {}),
        tensors=len(structure.tensors),
        changed=sum(plan.change is not None for plan in structure.tensors),
        elements=sum(plan.entry.size for plan in structure.tensors),
        passes=(
            *(_ranking_line(ranking, size) for ranking, size in zip(rankings, reads, strict=True)),
            *(_fitting_line(rule, size) for rule, size in zip(rules, fitted, strict=True)),
            *((_weighing_line(matrices),) if matrices else ()),
            "compute and write, block by block",
        ),
        bytes_read=sum(reads)
        + sum(fitted)
        + sum(_bytes_read(plan) for plan in structure.tensors)
        + _moment_bytes(matrices),
        bytes_written=sum(shard.size for shard in shards),
        shards=shards,
        peak_bytes=_peak(structure, thread_count(threads), ranked=bool(rankings)),
        notes=(
            *structure.notes,
            *same_scores(checkpoint, None),
            *moment_warnings(checkpoint, None),
            *_dtype_notes(structure),
            *kept_notes(structure, written, dtype),
        ),
    )


def _rankings(checkpoint: Checkpoint) -> tuple[Top, ...]:
    return rankings_of(checkpoint.change) if checkpoint.change is not None else ()


def stored_bytes(program: Program | None) -> int:
    """Bytes of every stored tensor that a program reads, each once."""
    return 0 if program is None else sum(entry.bytes for entry in entries_of(program))


def _bytes_read(plan: TensorPlan) -> int:
    read = set() if plan.change is None else set(entries_of(plan.change))
    return sum(entry.bytes for entry in read | {plan.entry})


def _ranking_line(ranking: Top, size: int) -> str:
    kept = f"keep exactly {ranking.density:.4g} of each {ranking.scope}"
    return f"rank the weights by score ({human_bytes(size)} read), {kept}"


def _fitting_bytes(rule: Rule, target: Source) -> int:
    sides = [resolve_delta(Delta(side), target) for side in (rule.left, rule.right)]
    read = {entry for side in sides for one in side.values() if one is not None for entry in entries_of(one)}
    return sum(entry.bytes for entry in read)


def _fitting_line(rule: Rule, size: int) -> str:
    return f"inner products of two deltas ({human_bytes(size)} read) for a coefficient by {rule.unit}"


def _matrices(structure: Structure) -> tuple[InputMatrix, ...]:
    changes = [plan.change for plan in structure.tensors if plan.change is not None]
    return tuple(dict.fromkeys(matrix for change in changes for matrix in matrices_of(change)))


def _moment_bytes(matrices: tuple[InputMatrix, ...]) -> int:
    return sum(entry.bytes for entry in {entry for matrix in matrices for entry in matrix.entries})


def _weighing_line(matrices: tuple[InputMatrix, ...]) -> str:
    sizes = sorted(matrix.size for matrix in matrices)
    width = f"{sizes[0]:,}" if sizes[0] == sizes[-1] else f"{sizes[0]:,} to {sizes[-1]:,}"
    operations = sum(map(solving_operations, matrices))
    return (
        f"solve the weighing of {len(matrices)} inputs {width} wide, each when it is first needed "
        f"({human_bytes(_moment_bytes(matrices))} of moments read, {operations / 1e9:,.3g} billion operations in "
        f"double precision, at most {human_bytes(max(map(solving_bytes, matrices)))} of memory for one)"
    )


def _matrix_bytes(matrices: tuple[InputMatrix, ...], threads: int) -> int:
    """Matrices that are kept or in use, and the scratch of those that are solved."""
    if not matrices:
        return 0
    kept, largest = sum(map(product_bytes, matrices)), max(map(product_bytes, matrices))
    solving = max(map(solving_bytes, matrices))
    return min(kept, KEPT_BYTES + (threads + 1) * largest) + max(solving, min(threads * solving, SOLVING_BYTES))


def _peak(structure: Structure, threads: int, *, ranked: bool) -> int:
    changes = [plan.change for plan in structure.tensors if plan.change is not None]
    blocks = max((len(entries_of(change)) for change in changes), default=0)
    rows = max(
        (_row_bytes(plan.change, plan.entry.size) for plan in structure.tensors if plan.change is not None), default=0
    )
    headers = 4096 * len(structure.tensors)
    return (
        RUNTIME_BYTES
        + headers
        + threads * (THREAD_BYTES + blocks * BLOCK_BYTES + rows)
        + (RANKING_BYTES if ranked else 0)
        + _matrix_bytes(_matrices(structure), threads)
    )


def _row_bytes(change: Program, size: int) -> int:
    """Float32 factors and products that a thread holds for one piece, intermediate copies included."""
    parts = row_parts(change)
    products = [part.low_rank if isinstance(part, Dora) else part for part in parts if not isinstance(part, TokenRows)]
    factors = {entry: 4 * entry.size for part in products for entry in (part.a, part.b)}
    columns = max((part.columns for part in (*products, *parts) if not isinstance(part, Dora)), default=0)
    rescaled = sum(isinstance(part, Dora) for part in parts)
    norms = rescaled * (DORA_BYTES + 16 * columns)
    ranked = row_tops(change)
    norms += (3 + len(ranked)) * max(ROW_PIECE_BYTES, 4 * max(one.columns for one in ranked)) if ranked else 0
    for product in right_products(change):  # the operand's rows, and the product
        norms += 3 * (4 * size if product.transposed else max(ROW_PIECE_BYTES, 4 * product.columns))
    for drop in ranked_drops(change):  # values, order, ranks, chances in double precision
        norms += 10 * max(ROW_PIECE_BYTES, 4 * drop.columns)
    for along in ablations(change):
        norms += 3 * (4 * size if along.by_row else max(ROW_PIECE_BYTES, 4 * along.columns))
    for projection in projections(change):  # operand, basis and product, and the smaller of the two square matrices
        side = min(projection.columns, size // max(1, projection.columns))
        norms += 4 * 4 * size + (4 if projection.projector.startswith("frob") else 48) * side * side
    return 2 * sum(factors.values()) + 3 * (len(parts) + rescaled) * max(ROW_PIECE_BYTES, 4 * columns) + norms


def _dtype_notes(structure: Structure) -> tuple[str, ...]:
    mixed = {
        (plan.entry.dtype, entry.dtype)
        for plan in structure.tensors
        if plan.change is not None
        for entry in entries_of(plan.change)
        if entry.dtype in ARITHMETIC_DTYPES
    }
    names = sorted({read for own, read in mixed if read != own})
    return (
        (f"operands have other dtypes than the target ({', '.join(names)}): computed in float32, rounded once",)
        if names
        else ()
    )
