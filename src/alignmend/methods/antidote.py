"""Antidote: what of a fine-tune matters most for harmful answers is taken back."""

from __future__ import annotations

from alignmend.algebra import operations
from alignmend.algebra.values import Checkpoint, Scores


def antidote(
    *, finetuned: Checkpoint, aligned: Checkpoint, scores: Scores | None = None, dense_ratio: float = 0.1
) -> Checkpoint:
    """Take back what of a fine-tune's update scores highest on harmful data, row by row.

    Paper: Huang, Bhattacharya, Joshi, Kimball, Liu, "Antidote: Post-fine-tuning Safety Alignment for Large Language
    Models against Harmful Fine-tuning", arXiv 2408.09600
    Equation: dW <- (1 - m) o dW, m = top dense_ratio of h in each output row, h_ij = |dW_ij| * |X_j|, dW = theta_f -
    theta_b; the released code prunes the factors of an adapter apart, here dW = s B A itself is pruned

    | argument | symbol | meaning |
    | --- | --- | --- |
    | finetuned | theta_f | the fine-tuned model whose safety is to be restored |
    | aligned | theta_b | the aligned model that it was fine-tuned from |
    | scores | h | of `alignmend scores --method wanda --weights patch` on harmful pairs; by magnitude if left out |
    | dense_ratio | - | fraction of each row that is taken back; sweep 0.005, 0.01, 0.05, 0.1, 0.2 |
    """
    task = operations.select(finetuned - aligned, linear=True)
    ranked = operations.magnitude(task) if scores is None else operations.select_scores(scores, linear=True)
    return finetuned - operations.where(operations.top(ranked, density=dense_ratio, scope="row"), task)
