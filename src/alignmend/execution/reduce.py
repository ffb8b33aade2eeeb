"""Numbers about deltas, streamed: norms and cosines. Each block is summed in float32 pairs, blocks in float64."""

from __future__ import annotations

import math

from alignmend.algebra.fitting import TensorProducts
from alignmend.algebra.nodes import DeltaNode, Source
from alignmend.algebra.values import Checkpoint, Delta
from alignmend.algebra.walks import adapters_of, leaves_of
from alignmend.errors import MismatchError, ParameterError
from alignmend.execution.files import Files
from alignmend.execution.finding import find, merged, products_of
from alignmend.execution.threads import thread_count


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
    count = thread_count(threads)
    with Files() as files:
        found = merged(*(find(delta.node, target, files, count) for delta in (left, right)))
        return products_of((left.node, right.node), target, found, files, count, both=False)


def _target_of(*nodes: DeltaNode) -> Source | None:
    """A checkpoint that has the deltas' tensors; None where there are none."""
    for leaf in (leaf for node in nodes for leaf in leaves_of(node) if not leaf.partial):
        return leaf.source
    if any(adapters_of(node) for node in nodes):
        raise MismatchError("an adapter alone has no weight names", advice="say on which checkpoint it acts with on=")
    return None
