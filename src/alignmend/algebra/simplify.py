"""Programs put together with what is provably zero or constant left out."""

from __future__ import annotations

from dataclasses import replace

from alignmend.algebra.programs import (
    And,
    Constant,
    Differ,
    Elect,
    Invert,
    Keep,
    MaskProgram,
    Or,
    Plus,
    Program,
    Projected,
    Times,
)


def times(coefficient: float, operand: Program | None) -> Program | None:
    """Coefficient * operand."""
    if operand is None or coefficient == 0.0:
        return None
    if isinstance(operand, Times):
        return times(coefficient * operand.coefficient, operand.operand)
    return operand if coefficient == 1.0 else Times(coefficient, operand)


def plus(terms: list[Program | None]) -> Program | None:
    """The sum of the terms in order."""
    found = tuple(term for term in terms if term is not None)
    return None if not found else found[0] if len(found) == 1 else Plus(found)


def elect(terms: list[Program | None]) -> Program | None:
    """The disjoint mean of the terms; zeros take no part in it, so one term alone is its own."""
    found = tuple(term for term in terms if term is not None)
    return None if not found else found[0] if len(found) == 1 else Elect(found)


def projected(part: Projected) -> Program | None:
    """The projection with its operand's coefficient outside, so that another one needs no other product."""
    if isinstance(part.operand, Times):
        return times(part.operand.coefficient, projected(replace(part, operand=part.operand.operand)))
    return part


def keep(mask: MaskProgram, operand: Program, label: str = "") -> Program | None:
    """The operand under a mask; with a label also a mask that is true everywhere stays, to be counted."""
    if isinstance(mask, Constant) and not (mask.value and label):
        return operand if mask.value else None
    return Keep(mask, operand, label)


def both(left: MaskProgram, right: MaskProgram) -> MaskProgram:
    """Left and right."""
    for one, other in ((left, right), (right, left)):
        if isinstance(one, Constant):
            return other if one.value else one
    return And(left, right)


def either(left: MaskProgram, right: MaskProgram) -> MaskProgram:
    """Left or right."""
    for one, other in ((left, right), (right, left)):
        if isinstance(one, Constant):
            return one if one.value else other
    return Or(left, right)


def invert(operand: MaskProgram) -> MaskProgram:
    """Not operand."""
    return Constant(not operand.value) if isinstance(operand, Constant) else Invert(operand)


def differ(left: Program | None, right: Program | None, *, zeros: bool) -> MaskProgram:
    """Where the signs of left and right differ."""
    silent = (left is None and right is None) if zeros else (left is None or right is None)
    return Constant(False) if silent else Differ(left, right, zeros)
