"""The dtype that each tensor of an output is written in."""

from __future__ import annotations

from collections.abc import Mapping

from alignmend.algebra.names import matches
from alignmend.algebra.nodes import Source
from alignmend.algebra.structure import Structure, TensorPlan
from alignmend.algebra.values import Checkpoint
from alignmend.errors import ParameterError
from alignmend.execution.operands import operands_of
from alignmend.io.main_dtype import kept_wide
from alignmend.io.tensors import ARITHMETIC_DTYPES

DTYPES: Mapping[str, str] = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""Output dtypes by the names that users write."""
OutputDtypes = Mapping[str, str]
"""Tensor name -> safetensors dtype name."""


def check_dtype(dtype: str | None) -> None:
    """Raise `ParameterError` unless `dtype` names an output dtype or is None."""
    if dtype is not None and dtype not in DTYPES:
        raise ParameterError(
            f"the output dtype is one of {', '.join(DTYPES)}, or left out for the target's own, not {dtype!r}"
        )


def output_dtypes(
    checkpoint: Checkpoint, structure: Structure, dtype: str | None, named: Mapping[str, str] | None = None
) -> OutputDtypes:
    """What every tensor is written in: `dtype`, where arithmetic knows the tensor's own; its own without `dtype`.

    Tensors that a model keeps in float32 beside a narrower main dtype stay so, unless `named`, shell-style patterns
    -> dtypes, asks for another; its first pattern that fits decides. Raises `ParameterError` for an unknown dtype, and
    for a pattern that fits no tensor.
    """
    check_dtype(dtype)
    asked = dict(named or {})
    for pattern, wanted in asked.items():
        check_dtype(wanted)
        if not any(matches(plan.name, (pattern,)) for plan in structure.tensors):
            raise ParameterError(f"no tensor of the output fits the pattern {pattern!r} of its dtypes")
    kept = kept_names(checkpoint) if dtype is not None else frozenset()
    return {plan.name: _dtype(plan, dtype, asked, kept) for plan in structure.tensors}


def _dtype(plan: TensorPlan, dtype: str | None, asked: Mapping[str, str], kept: frozenset[str]) -> str:
    own = plan.entry.dtype
    if own not in ARITHMETIC_DTYPES:
        return own
    if (found := next((asked[one] for one in asked if matches(plan.name, (one,))), None)) is not None:
        return DTYPES[found]
    return own if dtype is None or (own == "F32" and plan.name in kept) else DTYPES[dtype]


def kept_names(checkpoint: Checkpoint) -> frozenset[str]:
    """Tensors that the target, or another model of the expression, keeps in float32 beside a narrower main dtype."""
    sources = [operand for operand in operands_of(checkpoint) if isinstance(operand, Source)]
    return frozenset().union(*(kept_wide(source.folder.tensors.values()) for source in sources))


def kept_notes(structure: Structure, dtypes: OutputDtypes, dtype: str | None) -> tuple[str, ...]:
    """One line on tensors that are not written in the `dtype` asked for."""
    if dtype is None:
        return ()
    kept = [plan.name for plan in structure.tensors if plan.entry.dtype == "F32" != DTYPES[dtype]]
    kept = [name for name in kept if dtypes[name] == "F32"]
    if not kept:
        return ()
    more = f" and {len(kept) - 1} more" if len(kept) > 1 else ""
    return (
        f"{kept[0]}{more}: kept in float32, as the model stores them beside its main dtype "
        "(output dtypes names those that shall take another)",
    )
