"""RESTA with a safety vector that is weighed by the inputs it meets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from alignmend.algebra import operations
from alignmend.algebra.names import Kind
from alignmend.algebra.nodes import Shrinkage
from alignmend.algebra.values import Checkpoint, Moments
from alignmend.errors import ParameterError

Direction = Literal["aligned-finetuned", "aligned-unaligned", "harm-vector"]


def resta_weighted(
    *,
    finetuned: Checkpoint,
    aligned: Checkpoint,
    moments: Moments,
    unaligned: Checkpoint | None = None,
    harmful: Checkpoint | None = None,
    direction: Direction = "aligned-finetuned",
    coefficient: float = 1.2,
    beta: float = 1.0,
    ridge: float = 1e-3,
    shrinkage: Shrinkage = "none",
    density: float = 0.1,
    names: Sequence[str] = (),
    layers: Sequence[int] = (),
    kinds: Sequence[Kind] = (),
) -> Checkpoint:
    """Add a safety vector where harmful inputs lead, and little of it where harmless ones do.

    Origin: this project, no paper; evidence and limits are in docs/weighted.md
    Equation: theta_hat = theta_f + g * S * C_h (C_h + beta * C_b + lambda * I)^-1 for each linear layer, lambda =
    ridge * tr(C_h) / n; S = theta_b - theta_f, theta_b - theta_u or -tau_H'; all other tensors stay theta_f

    | argument | symbol | meaning |
    | --- | --- | --- |
    | finetuned | theta_f | the fine-tuned model whose safety is to be restored |
    | aligned | theta_b | the aligned model that it was fine-tuned from |
    | moments | C_h, C_b | of the fine-tune's inputs on harmful and harmless texts: a file of `alignmend moments` |
    | unaligned | theta_u | the aligned model after its safety was trained away, for `aligned-unaligned` |
    | harmful | theta_H | the aligned model after fine-tuning on harmful answers, for `harm-vector` |
    | direction | S | `aligned-finetuned`, `aligned-unaligned`, or minus the trimmed harm vector: `harm-vector` |
    | coefficient | g | length of the step; 0.75 to 1.8 at beta 1 to 3, longer for a larger beta |
    | beta | beta | how much the outputs on harmless inputs count against those on harmful ones; 1, then 3 |
    | ridge | lambda | added to the diagonal, as a share of the harmful moment's mean diagonal |
    | shrinkage | - | for few texts: `oas` shrinks each moment towards the identity by the oracle approximating rule |
    | density | k | fraction of the harm vector that is kept by magnitude, over the whole model |
    | names | - | shell-style patterns: only these linear layers change; all if left out |
    | layers | - | only these decoder layers change, counted from 0 |
    | kinds | - | only these kinds change: `attention`, `mlp` |
    """
    match direction:
        case "aligned-finetuned":
            vector = aligned - finetuned
        case "aligned-unaligned":
            vector = aligned - _given(unaligned, "unaligned")
        case "harm-vector":
            vector = -operations.trim(_given(harmful, "harmful") - aligned, density=density)
        case _:
            raise ParameterError(f"direction is one of {', '.join(get_args(Direction))}, not {direction!r}")
    chosen = operations.select(vector, names=names or None, layers=layers or None, kinds=kinds or None, linear=True)
    return finetuned + coefficient * operations.weigh(chosen, moments, beta=beta, ridge=ridge, shrinkage=shrinkage)


def _given(model: Checkpoint | None, role: str) -> Checkpoint:
    if model is None:
        raise ParameterError(f"the direction needs the {role} model", advice="name it, or choose another direction")
    return model
