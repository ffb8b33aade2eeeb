"""Task arithmetic: the method that the others are special cases of."""

from __future__ import annotations

from collections.abc import Sequence

from alignmend.algebra import operations
from alignmend.algebra.nodes import Scope
from alignmend.algebra.values import Checkpoint, Delta
from alignmend.errors import ParameterError


def task_arithmetic(
    *,
    base: Checkpoint,
    finetuned: Sequence[Checkpoint],
    target: Checkpoint | None = None,
    coefficient: float = 1.0,
    weights: Sequence[float] | None = None,
    trim: float = 1.0,
    scope: Scope = "model",
    outliers: float = 0.0,
    density: float = 1.0,
    window: float = 0.0,
    seed: int = 0,
    rescale: bool = True,
) -> Checkpoint:
    """Move a model along a weighted sum of task vectors.

    Paper: Ilharco et al., "Editing Models with Task Arithmetic", arXiv 2212.04089
    Equation: theta_new = theta + lambda * sum_t w_t * (theta_t - theta_base)

    | argument | symbol | meaning |
    | --- | --- | --- |
    | base | theta_base | where every task vector starts |
    | finetuned | theta_t | the models (or adapters on the base) whose task vectors are added |
    | target | theta | the model that is moved; the base if left out |
    | coefficient | lambda | length of the step; negative to unlearn |
    | weights | w_t | share of each task vector, one number per model; 1 each if left out |
    | trim | - | fraction of each task vector that is kept, largest magnitudes first; 1 keeps all |
    | scope | - | what `trim` ranks over: `model`, or each `tensor` by itself |
    | outliers | - | fraction of the very largest that is left out too (Breadcrumbs, arXiv 2312.06795) |
    | density | 1 - p | fraction of each task vector that is kept at random (DARE, arXiv 2311.03099); 1 keeps all |
    | window | - | how far that chance goes below and above `density` by rank in a row (DELLA, arXiv 2406.11617) |
    | seed | - | of the random masks; the second task vector uses seed + 1, and so on |
    | rescale | - | whether survivors of the random drop are divided by the density |
    """
    shares = [1.0] * len(finetuned) if weights is None else list(weights)
    if not finetuned:
        raise ParameterError("finetuned is empty", advice="give at least one model")
    if len(shares) != len(finetuned):
        raise ParameterError(
            f"weights has {len(shares)} numbers for {len(finetuned)} fine-tuned models", advice="give one each"
        )
    step: Delta | None = None
    for number, (model, share) in enumerate(zip(finetuned, shares, strict=True)):
        vector = operations.trim(model - base, density=trim, scope=scope, outliers=outliers)
        vector = share * operations.drop(vector, density=density, seed=seed + number, rescale=rescale, window=window)
        step = vector if step is None else step + vector
    if step is None:
        raise TypeError("step is None")
    return (base if target is None else target) + coefficient * step
