"""Harm Direction Removal: subtract the trimmed harm vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from alignmend.algebra import operations
from alignmend.algebra.names import Kind
from alignmend.algebra.nodes import Counting, Scope
from alignmend.algebra.values import Checkpoint
from alignmend.errors import ParameterError

Area = Sequence[int] | Literal["edited"]
"""Decoder layers; `edited` stands, in a recipe, for those that an edit changed and their neighbours (eq. 11-13)."""


def harm_direction_removal(
    *,
    target: Checkpoint,
    aligned: Checkpoint,
    harmful: Checkpoint,
    coefficient: float = 2.5,
    density: float = 0.1,
    scope: Scope = "model",
    counting: Counting = "nearest",
    names: Sequence[str] = (),
    layers: Area | None = None,
    kinds: Sequence[Kind] = (),
) -> Checkpoint:
    """Remove the direction that fine-tuning on harmful answers takes, at its largest weights.

    Paper: Hazra, Layek, Banerjee, Poria, "Safety Arithmetic: A Framework for Test-time Safety Alignment of Language
    Models by Steering Parameters and Activations", arXiv 2406.11801
    Equation: tau_H = theta_H - theta_b; tau_H' = tau_H at its top k % by magnitude, 0 elsewhere;
    theta_hat_t = theta_t - lambda * tau_H'

    | argument | symbol | meaning |
    | --- | --- | --- |
    | target | theta_t | the model to make safe: base, fine-tuned or edited |
    | aligned | theta_b | the aligned base that the harmful model was trained from |
    | harmful | theta_H | that base after fine-tuning on harmful answers: a checkpoint or an adapter |
    | coefficient | lambda | how often the direction is subtracted; 2 to 3 in the paper, 3 in its code |
    | density | k | fraction kept by magnitude; 1 subtracts the whole harm vector (task vector negation) |
    | scope | - | what the fraction is taken of: the `model` as a whole, or each `tensor` |
    | counting | - | the number kept is the fraction's `nearest` whole number, or rounded `down` |
    | names | - | shell-style patterns: only these tensors take part, and are counted; all if left out |
    | layers | E | only these decoder layers take part, counted from 0; `edited` finds the area of an edit |
    | kinds | - | only these kinds take part: `attention`, `mlp`, `norm`, `embedding`, `other` |
    """
    if isinstance(layers, str):
        raise ParameterError(
            f"layers: {layers} is for recipes, which look for the edit; from Python give the area that "
            "alignmend.locate(aligned, target) finds"
        )
    harm = harmful - aligned
    if names or layers is not None or kinds:
        # An area without layers is refused there: an edit that was not found must not become the whole model.
        harm = operations.select(harm, names=names or None, layers=layers, kinds=kinds or None)
    if density != 1.0:
        harm = operations.trim(harm, density=density, scope=scope, counting=counting)
    return target - coefficient * harm
