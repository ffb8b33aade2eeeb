"""RESTA without a coefficient: what of the task delta points against the safety vector is taken back."""

from __future__ import annotations

from collections.abc import Sequence

from alignmend.algebra import operations, relatives
from alignmend.algebra.names import Kind
from alignmend.algebra.nodes import Unit
from alignmend.algebra.values import Checkpoint
from alignmend.methods.candidates import Between, Candidates

CANDIDATES = Candidates(
    "what of the fine-tune points against the safety vector taken back, tensor by tensor",
    {"coefficient": Between(0.25, 2.0, 0.05)},
    ({"coefficient": 1.0},),
    low_rank=True,
)


def closed_form(
    *,
    finetuned: Checkpoint,
    aligned: Checkpoint,
    unaligned: Checkpoint,
    unit: Unit = "tensor",
    coefficient: float = 1.0,
    names: Sequence[str] = (),
    layers: Sequence[int] = (),
    kinds: Sequence[Kind] = (),
) -> Checkpoint:
    """Take back what of a fine-tune points against the safety vector; no coefficient is sought.

    Origin: this project, no paper; a free first candidate, not a replacement of a search
    Equation: theta_k = theta_f,k + gamma_k * S_k for each tensor k, gamma_k = max(0, -<T_k, S_k> / <S_k, S_k>),
    T = theta_f - theta_b, S = theta_b - theta_u

    | argument | symbol | meaning |
    | --- | --- | --- |
    | finetuned | theta_f | the fine-tuned model whose safety is to be restored |
    | aligned | theta_b | the aligned model that it was fine-tuned from |
    | unaligned | theta_u | the aligned model after its safety was trained away |
    | unit | k | what has one gamma: each `tensor`, each decoder `layer` (nothing changes outside), or the `model` |
    | coefficient | - | a factor on every gamma; 1 makes the task delta orthogonal to the safety vector |
    | names | - | shell-style patterns: only these tensors change; all if left out |
    | layers | - | only these decoder layers change, counted from 0 |
    | kinds | - | only these kinds change: `attention`, `mlp`, `norm`, `embedding`, `other` |
    """
    safety = aligned - unaligned
    if names or layers or kinds:
        safety = operations.select(safety, names=names or None, layers=layers or None, kinds=kinds or None)
    return finetuned + coefficient * relatives.oppose(safety, left=finetuned - aligned, right=safety, unit=unit)
