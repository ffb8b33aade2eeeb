"""The factors of a change that is a weighted sum of adapters: how each enters it, weight by weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from alignmend.algebra.low_rank import Factors, concatenate
from alignmend.algebra.names import is_input_first, layer_of
from alignmend.algebra.nodes import (
    AdapterDelta,
    CommonRows,
    DeltaNode,
    Fitted,
    PerLayer,
    Projected,
    Scaled,
    Selected,
    Source,
    Sum,
    Weighted,
    Weighting,
)
from alignmend.algebra.structure import resolve_delta
from alignmend.algebra.thresholds import Findings
from alignmend.algebra.values import Checkpoint, Delta
from alignmend.algebra.weighing import input_matrix
from alignmend.errors import MismatchError, NonFiniteError
from alignmend.execution.blocks import Evaluator
from alignmend.execution.files import Files
from alignmend.execution.products import read_floats
from alignmend.execution.projecting import product
from alignmend.io.adapter import AdapterFolder, LowRankPart, low_rank_parts


@dataclass(frozen=True)
class _Occurrence:
    """How an adapter enters the change of one weight: coefficient * ... C_2 C_1 B A M_1 M_2 ..."""

    coefficient: float
    weightings: tuple[Weighting, ...] = ()
    projections: tuple[Projected, ...] = ()


@dataclass(frozen=True)
class _Reading:
    """What the factors of the change are made from."""

    root: Source
    found: Findings
    files: Files


def summed(
    checkpoint: Checkpoint, adapters: tuple[AdapterDelta, ...], found: Findings, files: Files
) -> dict[str, Factors]:
    """Every module's concatenated factors; modules whose coefficients are all zero are left out."""
    if checkpoint.change is None:
        raise TypeError("change is None")
    reading = _Reading(checkpoint.root, found, files)
    terms: list[tuple[float, dict[str, Factors]]] = []
    for adapter in adapters:
        for module, factors in _loaded(adapter.adapter.adapter, files).items():
            name = f"{module}.weight"
            for one in _occurrences(checkpoint.change, adapter, name, found):
                if one.coefficient != 0.0:
                    weighed = _weighed(factors, one.weightings, name, files)
                    terms.append((one.coefficient, {module: _projected(weighed, one.projections, name, reading)}))
    if not terms:
        raise MismatchError("every coefficient is zero, so nothing is added to the base: there is no adapter to write")
    return concatenate(terms)


def _projected(factors: Factors, projections: Sequence[Projected], name: str, reading: _Reading) -> Factors:
    """C B A as (C B) A: only B changes."""
    b = factors.b
    for one in projections:
        entry = reading.root.folder.tensors[name]
        basis = resolve_delta(Delta(one.basis), reading.root, reading.found)[name]
        if basis is None:
            b = torch.zeros_like(b)
            continue
        evaluator = Evaluator(reading.files)
        evaluator.prepare((basis,), None, 0, entry.size)
        whole = evaluator.whole(basis, 0, entry.size).view(entry.shape)
        transposed = is_input_first(name, reading.root.folder.config.get("model_type"))
        b = product(whole.T if transposed else whole, b, one.projector, one.rank)
    return replace(factors, b=b)


def _weighed(factors: Factors, weightings: Sequence[Weighting], name: str, files: Files) -> Factors:
    """B A M as B (A M): only A changes."""
    a = factors.a
    for weighting in weightings:
        if (matrix := input_matrix(weighting, name)) is not None:
            a = files.matrices.of(matrix).after(a)
    return replace(factors, a=a)


def _occurrences(node: DeltaNode, adapter: AdapterDelta, name: str, found: Findings) -> list[_Occurrence]:
    """How `adapter` enters the change of the weight `name`; what is weighed and projected alike is added up."""
    match node:
        case AdapterDelta():
            return [_Occurrence(1.0)] if node == adapter else []
        case Scaled(coefficient, operand):
            return _times(coefficient, _occurrences(operand, adapter, name, found))
        case PerLayer(coefficients, default, operand):
            layer = layer_of(name)
            factor = default if layer is None else dict(coefficients).get(layer, default)
            return _times(factor, _occurrences(operand, adapter, name, found))
        case Fitted(rule, operand):
            fitted = found.coefficients[rule].get(name)
            return [] if fitted is None else _times(fitted.value, _occurrences(operand, adapter, name, found))
        case Selected(selection, operand):
            return _occurrences(operand, adapter, name, found) if selection.takes(name, dimensions=2) else []
        case CommonRows(operand):
            return _occurrences(operand, adapter, name, found)
        case Weighted(weighting, operand):
            inner = _occurrences(operand, adapter, name, found)
            return [replace(one, weightings=(*one.weightings, weighting)) for one in inner]
        case Projected(operand=operand):
            inner = _occurrences(operand, adapter, name, found)
            return [replace(one, projections=(*one.projections, node)) for one in inner]
        case Sum(terms):
            totals: dict[_Occurrence, float] = {}
            for term in terms:
                for one in _occurrences(term, adapter, name, found):
                    alike = replace(one, coefficient=1.0)
                    totals[alike] = totals.get(alike, 0.0) + one.coefficient
            return [replace(alike, coefficient=total) for alike, total in totals.items()]
        case _:
            raise AssertionError(node)


def _times(factor: float, found: list[_Occurrence]) -> list[_Occurrence]:
    return [replace(one, coefficient=factor * one.coefficient) for one in found]


def _loaded(adapter: AdapterFolder, files: Files) -> dict[str, Factors]:
    return {
        module: Factors(_finite(part, "a", files), _finite(part, "b", files), part.scale)
        for module, part in low_rank_parts(adapter).items()
    }


def _finite(part: LowRankPart, which: str, files: Files) -> Tensor:
    entry = part.a if which == "a" else part.b
    values = read_floats(files, entry, 0, entry.size).view(entry.shape)
    if not bool(values.isfinite().all()):
        raise NonFiniteError(
            f"{entry.name} in {entry.path.parent.name}/{entry.path.name} holds NaN or infinity: mend the file"
        )
    return values
