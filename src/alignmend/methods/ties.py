"""TIES-Merging: trim, elect a sign for each weight, average what agrees with it."""

from __future__ import annotations

from collections.abc import Sequence

from alignmend.algebra import operations
from alignmend.algebra.names import Kind
from alignmend.algebra.nodes import Scope
from alignmend.algebra.values import Checkpoint
from alignmend.errors import ParameterError


def ties(
    *,
    base: Checkpoint,
    finetuned: Sequence[Checkpoint],
    coefficient: float = 1.0,
    density: float = 0.2,
    scope: Scope = "model",
    names: Sequence[str] = (),
    layers: Sequence[int] = (),
    kinds: Sequence[Kind] = (),
    linear: bool = False,
) -> Checkpoint:
    """Merge fine-tuned models without letting opposite signs cancel.

    Paper: Yadav, Tam, Choshen, Raffel, Bansal, "TIES-Merging: Resolving Interference When Merging
    Models", arXiv 2306.01708
    Equation: tau_t' = top k % of theta_t - theta_init by magnitude; gamma = sgn(sum_t tau_t'); tau = mean of tau_t'
    over those t whose sign is gamma; theta = theta_init + lambda * tau

    | argument | symbol | meaning |
    | --- | --- | --- |
    | base | theta_init | where every task vector starts |
    | finetuned | theta_t | the models (or adapters on the base) to be merged |
    | coefficient | lambda | length of the merged task vector |
    | density | k | fraction of each task vector kept by magnitude; the count is exact, ties go by index |
    | scope | - | what the fraction is taken of: the `model` as a whole, each `tensor`, or each `row` |
    | names | - | shell-style patterns: only these tensors take part, and are counted; all if left out |
    | layers | - | only these decoder layers take part, counted from 0 |
    | kinds | - | only these kinds take part: `attention`, `mlp`, `norm`, `embedding`, `other` |
    | linear | - | whether only weights of linear layers inside decoder layers take part |
    """
    if not finetuned:
        raise ParameterError("finetuned is empty", advice="give at least one model")
    vectors = [model - base for model in finetuned]
    if names or layers or kinds or linear:
        vectors = [
            operations.select(vector, names=names or None, layers=layers or None, kinds=kinds or None, linear=linear)
            for vector in vectors
        ]
    trimmed = [operations.trim(vector, density=density, scope=scope) for vector in vectors]
    return base + coefficient * operations.elect(trimmed)
