"""SOMF with a mask that was trained elsewhere: the same export, every time."""

from __future__ import annotations

from collections.abc import Sequence

from alignmend.algebra import operations, relatives
from alignmend.algebra.nodes import Sum
from alignmend.algebra.values import Checkpoint, Delta, Scores
from alignmend.errors import ParameterError


def somf(
    *,
    aligned: Checkpoint,
    finetuned: Sequence[Checkpoint],
    mask: Scores,
    weights: Sequence[float] | None = None,
    rescale: bool = True,
) -> Checkpoint:
    """Add task vectors to a safe model under a given mask.

    Paper: Yi et al., "A safety realignment framework via subspace-oriented model fusion for large language models",
    arXiv 2405.09055
    Equation: theta = theta_safe + sum_i lambda_i * (m o tau_i) / mean(m), tau_i = theta_i - theta_safe, m = 1 where the
    logit phi > 0, the mean over each tensor; the released code draws m anew on every load, here it is phi's sign.
    Training phi (preference data, gradients) is not here

    | argument | symbol | meaning |
    | --- | --- | --- |
    | aligned | theta_safe | the realigned model |
    | finetuned | theta_i | the fine-tuned models (or adapters on the safe one) |
    | mask | phi | safetensors with a number for each weight: logits, or 0 and 1; tensors that it lacks stay |
    | weights | lambda_i | one number per model; 1 for one model, 0.3 each for several if left out |
    | rescale | - | whether what is kept is divided by the mask's mean |
    """
    if not finetuned:
        raise ParameterError("finetuned is empty: give at least one model")
    shares = list(weights) if weights is not None else [1.0 if len(finetuned) == 1 else 0.3] * len(finetuned)
    if len(shares) != len(finetuned):
        raise ParameterError(f"weights has {len(shares)} numbers for {len(finetuned)} fine-tuned models: give one each")
    kept, step = relatives.positive(mask), Delta(Sum(()))
    for model, share in zip(finetuned, shares, strict=True):
        step = step + share * operations.where(kept, model - aligned)
    return aligned + (relatives.over_share(step, kept) if rescale else step)
