"""Deltas multiplied from the right by matrices of their layers' inputs: which weight meets which matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from alignmend.algebra.names import is_buffer, layer_of
from alignmend.algebra.nodes import DeltaNode, Weighted, Weighting
from alignmend.algebra.problems import Problems
from alignmend.algebra.programs import InputMatrix, LowRank, Plus, Program, RightMultiplied, Times
from alignmend.algebra.simplify import plus, times
from alignmend.algebra.walks import parts_of
from alignmend.io.folder import CheckpointFolder
from alignmend.io.moments import TextKind
from alignmend.io.tensors import TensorEntry


def input_matrix(weighting: Weighting, name: str) -> InputMatrix | None:
    """The matrix of the weight `name`; None where it has no moments, and is left as it is."""
    file = weighting.moments.file
    weight = file.record.weights.get(name)
    if weight is None:
        return None
    kinds: list[TextKind] = ["harmful", *(kind for kind in file.record.kinds if kind != "harmful")]
    harmful, *harmless = (file.entry(kind, weight.site) for kind in kinds)
    shrunk = weighting.shrinkage == "oas"
    positions = tuple(file.record.kinds[kind].positions for kind in kinds) if shrunk else ()
    return InputMatrix(harmful, tuple(harmless), weighting.beta, weighting.ridge, positions)


def weighted(weighting: Weighting, operand: Program, entry: TensorEntry) -> Program | None:
    """The program of `operand` M for the target's tensor `entry`, which was checked to fit."""
    matrix = input_matrix(weighting, entry.name)
    if matrix is None:
        return operand
    return _multiplied(operand, matrix, weighting.moments.file.record.weights[entry.name].transposed, entry.shape[1])


def _multiplied(operand: Program, matrix: InputMatrix, transposed: bool, columns: int) -> Program | None:
    match operand:
        case Times(coefficient, inner):  # outside, so that another coefficient needs no other product
            return times(coefficient, _multiplied(inner, matrix, transposed, columns))
        case LowRank(matrix=None):
            return replace(operand, matrix=matrix)
        case Plus(terms) if all(_is_low_rank(term) for term in terms):
            return plus([_multiplied(term, matrix, transposed, columns) for term in terms])
        case _:
            return RightMultiplied(operand, matrix, transposed, columns)


def _is_low_rank(program: Program) -> bool:
    return isinstance(program.operand if isinstance(program, Times) else program, LowRank)


def check_weighings(node: DeltaNode, target: CheckpointFolder, problems: Problems) -> None:
    """Report linear layers of the target that moments should speak of and do not, or have otherwise."""
    for weighting in weightings_of(node):
        file = weighting.moments.file
        known, sizes = file.record.weights, file.sizes
        for name, entry in target.tensors.items():
            if name in known:
                expected = sizes[known[name].site]
                found = entry.shape[0 if known[name].transposed else -1] if len(entry.shape) == 2 else None
                if found != expected:
                    problems.add(
                        f"{name} is {list(entry.shape)} in {target.location}, where {file.location} has moments of "
                        f"{expected} inputs: are they of another model?"
                    )
            elif _is_linear(name, entry) and name not in file.record.left_out:
                problems.add(f"{file.location} has no moments of {name}: are they of another model?")
        for name in known:
            if name not in target.tensors:
                problems.add(f"{file.location} has moments of {name}, which is not in {target.location}")


def _is_linear(name: str, entry: TensorEntry) -> bool:
    return len(entry.shape) > 1 and layer_of(name) is not None and not is_buffer(name)


def weightings_of(node: DeltaNode) -> tuple[Weighting, ...]:
    """Every weighting in an expression, each once."""
    return tuple(dict.fromkeys(one.weighting for one in parts_of(node) if isinstance(one, Weighted)))


def weighing_notes(node: DeltaNode) -> Iterator[str]:
    """What is not weighed although it is a matrix inside a layer."""
    for moments in dict.fromkeys(weighting.moments for weighting in weightings_of(node)):
        left = moments.file.record.left_out
        if left:
            yield (
                f"{len(left)} matrices inside layers have no moments (experts, or layers whose inputs are not seen), "
                f"such as {left[0]}: what is weighed elsewhere is left as it is there"
            )
