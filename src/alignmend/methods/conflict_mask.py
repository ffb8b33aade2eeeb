"""RESTA where the fine-tune moved against the safety vector, weight by weight."""

from __future__ import annotations

from collections.abc import Sequence

from alignmend.algebra import operations, relatives
from alignmend.algebra.names import Kind
from alignmend.algebra.values import Checkpoint
from alignmend.methods.candidates import Between, Candidates

CANDIDATES = Candidates(
    "RESTA where the fine-tune moved the other way, weight by weight",
    {"coefficient": Between(0.1, 2.0, 0.05)},
    ({"coefficient": 0.6}, {"coefficient": 1.0}),
)


def conflict_mask(
    *,
    finetuned: Checkpoint,
    aligned: Checkpoint,
    unaligned: Checkpoint,
    coefficient: float = 0.6,
    zeros: bool = True,
    names: Sequence[str] = (),
    layers: Sequence[int] = (),
    kinds: Sequence[Kind] = (),
) -> Checkpoint:
    """Add the safety vector only to weights that the fine-tune moved the other way.

    Origin: this project, no paper; its mask is the first step of IRR (Wu et al., arXiv 2412.11041), which takes such
    weights of the task delta away instead and recalibrates the others; that method is not here
    Equation: theta_hat = theta_f + c * m o S, m = 1 where sgn(T) != sgn(S), T = theta_f - theta_b,
    S = theta_b - theta_u

    | argument | symbol | meaning |
    | --- | --- | --- |
    | finetuned | theta_f | the fine-tuned model whose safety is to be restored |
    | aligned | theta_b | the aligned model that it was fine-tuned from |
    | unaligned | theta_u | the aligned model after its safety was trained away |
    | coefficient | c | length of the step; on organisms 0.6 does what 0.45 does without a mask |
    | zeros | - | whether weights that the fine-tune left as they were are conflicts, as in IRR's released code |
    | names | - | shell-style patterns: only these tensors change; all if left out |
    | layers | - | only these decoder layers change, counted from 0 |
    | kinds | - | only these kinds change: `attention`, `mlp`, `norm`, `embedding`, `other` |
    """
    task, safety = finetuned - aligned, aligned - unaligned
    if names or layers or kinds:
        safety = operations.select(safety, names=names or None, layers=layers or None, kinds=kinds or None)
    mask = relatives.conflict(task, safety, zeros=zeros)
    return finetuned + coefficient * operations.where(mask, safety, label="conflict")
