"""Going on along the leading directions of what alignment changed."""

from __future__ import annotations

from collections.abc import Sequence

from alignmend.algebra import operations, relatives
from alignmend.algebra.names import Kind
from alignmend.algebra.values import Checkpoint


def low_rank_extrapolation(
    *,
    aligned: Checkpoint,
    base: Checkpoint,
    target: Checkpoint | None = None,
    coefficient: float = 0.5,
    rank: int = 6,
    layers: Sequence[int] = (),
    kinds: Sequence[Kind] = (),
) -> Checkpoint:
    """Add the leading singular directions of what alignment changed, once more.

    Origin: this project, in the manner of LoX (Perin et al., arXiv 2506.15606), whose own equation and constants were
    not available to compare with; it strengthens an aligned model before fine-tuning
    Equation: theta_hat = theta + c * top_k(theta_b - theta_0) for weights of linear layers inside decoder layers, top_k
    the best approximation of rank k of each matrix

    | argument | symbol | meaning |
    | --- | --- | --- |
    | aligned | theta_b | the aligned model |
    | base | theta_0 | the model from before alignment |
    | target | theta | the model that is moved, such as a fine-tune; the aligned one if left out |
    | coefficient | c | length of the step |
    | rank | k | how many singular directions of each matrix |
    | layers | - | only these decoder layers change, counted from 0 |
    | kinds | - | only these kinds change: `attention`, `mlp` |
    """
    chosen = operations.select(aligned - base, layers=layers or None, kinds=kinds or None, linear=True)
    return (aligned if target is None else target) + coefficient * relatives.leading(chosen, rank=rank)
