"""Numbers about deltas, streamed: norms and cosines. Each block is summed in float32 pairs, blocks in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from alignmend.algebra.nodes import DeltaNode, Source
from alignmend.algebra.programs import Plus, Program
from alignmend.algebra.structure import resolve_delta
from alignmend.algebra.tying import tied_alias
from alignmend.algebra.values import Checkpoint, Delta
from alignmend.algebra.walks import adapters_of, leaves_of, rankings_of
from alignmend.errors import MismatchError, NonFiniteError, ParameterError
from alignmend.execution.blocks import BLOCK, Evaluator
from alignmend.execution.files import Files
from alignmend.execution.parallel import in_order
from alignmend.execution.pieces import cut
from alignmend.execution.ranking import find_thresholds
from alignmend.execution.threads import thread_count
from alignmend.io.tensors import TensorEntry


@dataclass(frozen=True)
class TensorProducts:
    """Inner products of two deltas on one tensor."""

    name: str
    left: float
    """Squared norm of the left delta."""
    right: float
    product: float


def norm(delta: Delta, *, on: Checkpoint | None = None, threads: int | None = None) -> float:
    """Frobenius norm over all weights. `on` says on which checkpoint's tensors, where the delta itself does not."""
    return math.sqrt(math.fsum(one.left for one in inner_products(delta, delta, on=on, threads=threads)))


def cosine(left: Delta, right: Delta, *, on: Checkpoint | None = None, threads: int | None = None) -> float:
    """Cosine of the angle between two deltas over all weights; raises `ParameterError` where one is zero."""
    found = inner_products(left, right, on=on, threads=threads)
    norms = math.sqrt(math.fsum(one.left for one in found)) * math.sqrt(math.fsum(one.right for one in found))
    if norms == 0.0:
        raise ParameterError("the cosine with a delta that is zero everywhere is not defined")
    return math.fsum(one.product for one in found) / norms


def inner_products(
    left: Delta, right: Delta, *, on: Checkpoint | None = None, threads: int | None = None
) -> tuple[TensorProducts, ...]:
    """Squared norms and inner product of two deltas, tensor by tensor, in natural order of names; tied copies once.

    Raises `MismatchError` where the operands do not fit, `NonFiniteError` for NaN or infinity.
    """
    target = on.root if on is not None else _target_of(left.node, right.node)
    if target is None:
        return ()
    copies = tied_alias(target.folder)
    with Files() as files:
        sides = [_programs(delta, target, files, thread_count(threads)) for delta in (left, right)]
        jobs = [
            (entry, sides[0][name], sides[1][name])
            for name, entry in ((name, target.folder.tensors[name]) for name in sides[0])
            if name not in copies and (sides[0][name] is not None or sides[1][name] is not None)
        ]
        found = in_order(jobs, lambda: Evaluator(files), lambda own, job: _products(*job, own), thread_count(threads))
        return tuple(result for _, result in found)


def _target_of(*nodes: DeltaNode) -> Source | None:
    """A checkpoint that has the deltas' tensors; None where there are none."""
    for leaf in (leaf for node in nodes for leaf in leaves_of(node) if not leaf.partial):
        return leaf.source
    if any(adapters_of(node) for node in nodes):
        raise MismatchError("an adapter alone has no weight names", advice="say on which checkpoint it acts with on=")
    return None


def _programs(delta: Delta, target: Source, files: Files, threads: int) -> dict[str, Program | None]:
    thresholds = find_thresholds(rankings_of(delta.node), target, files, threads)
    return dict(resolve_delta(delta, target, thresholds))


def _products(entry: TensorEntry, left: Program | None, right: Program | None, evaluator: Evaluator) -> TensorProducts:
    programs = tuple(program for program in (left, right) if program is not None)
    sums: list[tuple[float, float, float]] = []  # per block
    for first, last in cut(entry, Plus(programs)):
        evaluator.prepare(programs, None, first, last)
        blocks = ((start, min(start + BLOCK, last)) for start in range(first, last, BLOCK))
        sums.extend(block_products(left, right, start, stop, evaluator) for start, stop in blocks)
    totals = [math.fsum(column) for column in zip(*sums, strict=True)] if sums else [0.0, 0.0, 0.0]
    if not all(math.isfinite(total) for total in totals):
        raise NonFiniteError(f"{entry.name}: the delta holds NaN or infinity, or its square overflows float32")
    return TensorProducts(entry.name, *totals)


def block_products(
    left: Program | None, right: Program | None, start: int, stop: int, evaluator: Evaluator
) -> tuple[float, float, float]:
    """Squared norms and inner product on the elements `[start, stop)`, which the evaluator is prepared for."""
    vectors = [None if program is None else evaluator.run(program, start, stop) for program in (left, right)]
    one, other = vectors
    result = (_dot(one, one), _dot(other, other), _dot(one, other))
    for vector in vectors:
        if vector is not None:
            evaluator.give(vector)
    return result


def _dot(left: torch.Tensor | None, right: torch.Tensor | None) -> float:
    return 0.0 if left is None or right is None else float(torch.dot(left.double(), right.double()))
