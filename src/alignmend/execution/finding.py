"""Passes before the one that writes: cuts of rankings, inner products that coefficients follow from."""

from __future__ import annotations

import math

import torch

from alignmend.algebra.fitting import TensorProducts, fit
from alignmend.algebra.nodes import DeltaNode, Opposition, Rule, Source, Top
from alignmend.algebra.programs import Plus, Program
from alignmend.algebra.structure import resolve_delta
from alignmend.algebra.thresholds import Coefficients, Cuts, Findings
from alignmend.algebra.tying import tied_alias
from alignmend.algebra.values import Checkpoint, Delta
from alignmend.algebra.walks import questions_of
from alignmend.errors import MismatchError, NonFiniteError
from alignmend.execution.blocks import BLOCK, Evaluator
from alignmend.execution.files import Files
from alignmend.execution.parallel import in_order
from alignmend.execution.pieces import cut
from alignmend.execution.ranking import find_cuts
from alignmend.execution.threads import thread_count
from alignmend.io.tensors import TensorEntry


def find(node: DeltaNode | None, target: Source, files: Files, threads: int) -> Findings:
    """The answer to every question of an expression on `target`, inner ones first.

    Raises `NonFiniteError` where a score or a delta is NaN or infinite.
    """
    cuts: dict[Top, Cuts] = {}
    coefficients: dict[Rule, Coefficients] = {}
    found = Findings(cuts, coefficients)
    for question in () if node is None else questions_of(node):
        if isinstance(question, Top):
            cuts[question] = find_cuts(question, target, found, files, threads)
        else:
            coefficients[question] = _fitted(question, target, found, files, threads)
    return found


def coefficients(checkpoint: Checkpoint, *, threads: int | None = None) -> tuple[Coefficients, ...]:
    """What the rules of an expression find, tensor by tensor, inner rules first: one mapping for each; writes nothing.

    Of `closed_form(..., unit="model")` it is the one number that RESTA's coefficient may be sought around.
    """
    with Files() as files:
        found = find(checkpoint.change, checkpoint.root, files, thread_count(threads))
    return tuple(found.coefficients.values())


def _fitted(rule: Rule, target: Source, found: Findings, files: Files, threads: int) -> Coefficients:
    both = not isinstance(rule, Opposition)
    products = products_of((rule.left, rule.right), target, found, files, threads, both=both)
    if not products:
        raise MismatchError(
            f"there is nothing to fit a coefficient to: the two deltas share no weight of {target.folder.location}"
        )
    return fit(rule, products)


def products_of(
    sides: tuple[DeltaNode, DeltaNode], target: Source, found: Findings, files: Files, threads: int, *, both: bool
) -> tuple[TensorProducts, ...]:
    """Inner products tensor by tensor, in natural order of names, tied copies once; of what one or `both` speak of."""
    left, right = (resolve_delta(Delta(side), target, found) for side in sides)
    copies, wanted = tied_alias(target.folder), 2 if both else 1
    jobs = [
        (target.folder.tensors[name], left[name], right[name])
        for name in left
        if name not in copies and (left[name] is not None) + (right[name] is not None) >= wanted
    ]
    done = in_order(jobs, lambda: Evaluator(files), lambda own, job: _products(*job, own), threads)
    return tuple(result for _, result in done)


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
    return TensorProducts(entry.name, *totals, size=entry.size)


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


def merged(one: Findings, other: Findings) -> Findings:
    """What two expressions found."""
    return Findings({**one.cuts, **other.cuts}, {**one.coefficients, **other.coefficients})


def finding_notes(found: Findings) -> list[str]:
    """One line per ranking and per rule: how many weights are kept, which coefficients were found."""
    notes = []
    for ranking, cuts in found.cuts.items():
        kept, total = sum(cut.kept for cut in cuts.values()), sum(cut.total for cut in cuts.values())
        notes.append(
            f"a ranking (density {ranking.density:.6g}, scope {ranking.scope}) kept {kept:,} of {total:,} weights"
        )
    return notes + [_fit_note(rule, coefficients) for rule, coefficients in found.coefficients.items()]


def _fit_note(rule: Rule, found: Coefficients) -> str:
    values = [one.value for one in found.values()]
    taken = [one for one in found.values() if one.value != 0]
    line = (
        f"a rule ({type(rule).__name__.lower()}, by {rule.unit}) gave {len(taken)} of {len(found)} tensors a "
        f"coefficient other than zero, {min(values):.3g} to {max(values):.3g}"
    )
    ratios = [one.ratio for one in taken if one.ratio is not None]
    cosines = [one.cosine for one in found.values() if one.cosine is not None]
    if cosines:
        line += f"; cosines {min(cosines):.3g} to {max(cosines):.3g}"
    if ratios:
        line += f"; there the norms' ratio is {min(ratios):.3g} to {max(ratios):.3g}"
    return line
