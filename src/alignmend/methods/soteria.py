"""Soteria: harm is subtracted where chosen attention heads write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from alignmend.algebra import operations, relatives
from alignmend.algebra.values import Checkpoint


def soteria(
    *,
    aligned: Checkpoint,
    harmful: Checkpoint,
    heads: Mapping[int, Sequence[int]],
    target: Checkpoint | None = None,
    coefficient: float = 1.0,
) -> Checkpoint:
    """Subtract a harm vector from the output projections of given attention heads.

    Paper: Banerjee et al., "Soteria: Language-Specific Functional Parameter Steering for Multilingual Safety
    Alignment", arXiv 2502.11244
    Equation: theta_safe = theta - lambda * m o (theta_h - theta_aligned), m = 1 on the columns [d h, d (h + 1)) of
    o_proj for every chosen head h of width d; which heads belong to a language is found beforehand, and not here

    | argument | symbol | meaning |
    | --- | --- | --- |
    | aligned | theta_aligned | the aligned model |
    | harmful | theta_h | the aligned model after fine-tuning on harmful answers |
    | heads | h | decoder layer -> its query heads, both counted from 0 |
    | target | theta | the model that is moved; the aligned one if left out |
    | coefficient | lambda | length of the step; sweep 0.5, 1, 2, 3 |
    """
    harm = operations.where(relatives.heads_mask(heads), harmful - aligned)
    return (aligned if target is None else target) - coefficient * harm
