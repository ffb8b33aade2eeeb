"""Merging a fine-tune with the model that it was made from: the baseline without an unaligned model."""

from __future__ import annotations

from alignmend.algebra.values import Checkpoint
from alignmend.methods.candidates import Between, Candidates

CANDIDATES = Candidates(
    "the fine-tune averaged with its aligned parent: no unaligned model",
    {"weight": Between(0.1, 1.0, 0.05)},
    ({"weight": 0.5}, {"weight": 0.7}),
    step_name="weight",
    low_rank=True,
    without_unaligned=True,
    warning="it takes the task away with the harm",
)


def pre_post_merge(*, finetuned: Checkpoint, aligned: Checkpoint, weight: float = 0.5) -> Checkpoint:
    """Average a fine-tuned model with its aligned parent.

    Paper: Farn, Su, Kumar, Sahay, Chen, Lee, "Safeguard Fine-Tuned LLMs Through Pre- and Post-Tuning Model Merging",
    arXiv 2412.19512
    Equation: theta_hat = (1 - lambda) * theta_f + lambda * theta_b

    | argument | symbol | meaning |
    | --- | --- | --- |
    | finetuned | theta_f | the fine-tuned model whose safety is to be restored |
    | aligned | theta_b | the aligned model that it was fine-tuned from |
    | weight | lambda | share of the aligned model: 0 is the fine-tune, 1 the aligned model |
    """
    return finetuned + weight * (aligned - finetuned)
