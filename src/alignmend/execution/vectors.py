"""How long the two vectors of a realignment are, and the angle between them: sampled before any work, or exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from alignmend.algebra.fitting import TensorProducts
from alignmend.algebra.nodes import Source
from alignmend.algebra.programs import Program, row_size
from alignmend.algebra.structure import resolve_delta
from alignmend.algebra.tying import tied_alias
from alignmend.algebra.values import Checkpoint, Delta
from alignmend.execution.blocks import Evaluator
from alignmend.execution.files import Files
from alignmend.execution.finding import block_products
from alignmend.execution.kinship import spread
from alignmend.execution.parallel import in_order
from alignmend.execution.reduce import inner_products
from alignmend.io.manifest import TensorVectors, Vectors
from alignmend.io.tensors import TensorEntry

SAMPLE = 16_384
"""Elements read of each sampled matrix."""
RUNS = 4
"""Places of a tensor that are read: neighbouring rows of an embedding are not like the others."""

Job = tuple[TensorEntry, Program | None, Program | None]


def exact_vectors(task: Delta, safety: Delta, target: Checkpoint, *, threads: int | None = None) -> Vectors | None:
    """Norms and cosine of two deltas on `target` from every weight, tensor by tensor too; None where one is zero.

    One pass over what they read. Raises `MismatchError` and `NonFiniteError`.
    """
    found = inner_products(task, safety, on=target, threads=threads)
    sizes = [target.root.folder.tensors[one.name].size for one in found]
    tensors = [
        TensorVectors(
            name=one.name,
            task_norm=_rounded(math.sqrt(one.left)),
            safety_norm=_rounded(math.sqrt(one.right)),
            cosine=_cosine(one.left, one.right, one.product),
        )
        for one in found
    ]
    return _vectors(found, [1.0] * len(found), sum(sizes), sum(sizes), tensors)


def sampled_vectors(task: Delta, safety: Delta, target: Checkpoint) -> Vectors | None:
    """The same, estimated from a few runs of a few matrices, always the same ones; None also where a sample is zero.

    Blocks that are not finite are left out. Raises `MismatchError`.
    """
    jobs = _jobs(task, safety, target.root)
    chosen = [jobs[name] for name in spread(list(jobs))]
    with Files() as files:
        # One thread: blocks are so small that several would wait for the interpreter.
        done = in_order(chosen, lambda: Evaluator(files), lambda own, job: _sample(job, own), threads=1)
        found = [(entry.size, *result) for (entry, _, _), result in done]
    found = [one for one in found if one[1] and all(map(math.isfinite, (one[2].left, one[2].right, one[2].product)))]
    if not found:
        return None
    weights = sum(entry.size for entry, _, _ in jobs.values())
    scale = weights / sum(size for size, _, _ in found)
    shares = [scale * size / sampled for size, sampled, _ in found]
    return _vectors([products for _, _, products in found], shares, sum(one[1] for one in found), weights, [])


def _jobs(task: Delta, safety: Delta, target: Source) -> dict[str, Job]:
    """Every matrix that one of the deltas touches, tied copies once."""
    sides = [resolve_delta(delta, target) for delta in (task, safety)]
    entries, copies = target.folder.tensors, tied_alias(target.folder)
    return {
        name: (entries[name], sides[0][name], sides[1][name])
        for name in sides[0]
        if name not in copies
        and len(entries[name].shape) > 1
        and (sides[0][name] is not None or sides[1][name] is not None)
    }


def _sample(job: Job, evaluator: Evaluator) -> tuple[int, TensorProducts]:
    """How many elements were sampled, and their products."""
    entry, left, right = job
    programs = tuple(program for program in (left, right) if program is not None)
    columns = max((row_size(program, entry.shape) or 1 for program in programs), default=1)
    count, sums = 0, []
    for start, stop in _runs(entry.size):
        evaluator.prepare(programs, None, start // columns * columns, -(-stop // columns) * columns)
        sums.append(block_products(left, right, start, stop, evaluator))
        count += stop - start
    return count, TensorProducts(entry.name, *(math.fsum(column) for column in zip(*sums, strict=True)))


def _runs(size: int) -> Iterator[tuple[int, int]]:
    """Where a tensor of `size` elements is read: all of it where it is small, else evenly spaced runs."""
    if size <= SAMPLE:
        yield 0, size
        return
    length = SAMPLE // RUNS
    for index in range(RUNS):
        start = (2 * index + 1) * size // (2 * RUNS) - length // 2
        yield start, start + length


def _vectors(
    found: Sequence[TensorProducts], shares: Sequence[float], sampled: int, weights: int, tensors: list[TensorVectors]
) -> Vectors | None:
    columns = ((one.left, one.right, one.product) for one in found)
    scaled = ([share * value for value in column] for share, column in zip(shares, columns, strict=True))
    left, right, product = map(math.fsum, zip(*scaled, strict=True)) if found else (0.0, 0.0, 0.0)
    cosine = _cosine(left, right, product)
    if cosine is None:
        return None
    return Vectors(
        task_norm=_rounded(math.sqrt(left)),
        safety_norm=_rounded(math.sqrt(right)),
        cosine=cosine,
        sampled=sampled,
        weights=weights,
        tensors=tensors,
    )


def _cosine(left: float, right: float, product: float) -> float | None:
    norms = math.sqrt(left) * math.sqrt(right)
    return _rounded(product / norms) if norms > 0 else None


def _rounded(value: float) -> float:
    """Six digits: further ones depend on how a machine adds, and the manifest should not."""
    return float(f"{value:.6g}")
