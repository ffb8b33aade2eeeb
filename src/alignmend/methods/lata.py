"""LATA: task arithmetic with a weight for each layer, small where the task vector is the instruction vector again."""

from __future__ import annotations

from typing import Literal, get_args

from alignmend.algebra import relatives
from alignmend.algebra.nodes import Unit
from alignmend.algebra.values import Checkpoint
from alignmend.errors import ParameterError

Weights = Literal["linear", "log", "threshold"]


def lata(
    *,
    target: Checkpoint,
    task: Checkpoint,
    base: Checkpoint,
    instruct: Checkpoint,
    coefficient: float = 1.0,
    weights: Weights = "linear",
    threshold: float = 0.9,
    unit: Unit = "layer",
    outside: float = 0.0,
) -> Checkpoint:
    """Move a model along a task vector, most in layers where that is not following instructions in general.

    Paper: Chen et al., "Layer-Aware Task Arithmetic: Disentangling Task-Specific and
    Instruction-Following Knowledge", arXiv 2502.20186
    Equation: theta_hat = theta + c * sum_l w_l * tau_task,l; cos_l = cos(tau_task,l, tau_inst,l), tau_task =
    theta_task - theta_base, tau_inst = theta_inst - theta_base; w_l = 1 where cos_l < thr (Drop-with-Threshold), or by
    the rank r of cos_l, 0 the highest of L. The paper's own formulas of ranks were not available: here w = r / (L - 1)
    (recalled) and w = log(1 + r) / log(L) (of this project)

    | argument | symbol | meaning |
    | --- | --- | --- |
    | target | theta | the model that is moved |
    | task | theta_task | the model that knows the task, fine-tuned from the base by way of instructions |
    | base | theta_base | where both vectors start |
    | instruct | theta_inst | the model that follows instructions |
    | coefficient | c | length of the step; negative to forget the task |
    | weights | w | `linear` and `log` by rank, or `threshold` |
    | threshold | thr | for `threshold`; sweep 0.5, 0.8, 0.9, 0.95, 0.99 |
    | unit | l | a cosine for each decoder `layer` or each `tensor` |
    | outside | - | weight of what lies outside of the decoder layers, by layer |
    """
    if weights not in get_args(Weights):
        raise ParameterError(f"weights is one of {', '.join(get_args(Weights))}, not {weights!r}")
    if unit == "model":
        raise ParameterError("unit is layer or tensor: one weight for the whole model is task arithmetic")
    vector, instruction = task - base, instruct - base
    if weights == "threshold":
        step = relatives.where_similar(
            vector, left=vector, right=instruction, limit=threshold, strict=True, unit=unit, outside=outside
        )
    else:
        step = relatives.by_similarity(vector, left=vector, right=instruction, law=weights, unit=unit, outside=outside)
    return target + coefficient * step
