"""SafeMERGE: updates that leave the aligned subspace are merged with a safety update."""

from __future__ import annotations

from alignmend.algebra import operations, relatives
from alignmend.algebra.nodes import Projector
from alignmend.algebra.values import Checkpoint
from alignmend.errors import ParameterError


def safe_merge(
    *,
    finetuned: Checkpoint,
    aligned: Checkpoint,
    base: Checkpoint,
    safety: Checkpoint,
    threshold: float = 0.35,
    weight: float = 0.8,
    projector: Projector = "frob",
    rank: int = 0,
) -> Checkpoint:
    """Merge the least aligned updates of a fine-tune with those of a model that was trained to be safe.

    Paper: Djuhera, Kadhe, Ahmed, Zawad, Boche, "SafeMERGE: Preserving Safety Alignment in Fine-Tuned Large Language
    Models via Selective Layer-Wise Model Merging", arXiv 2503.17239
    Equation: rho_i = cos(C_i dW_f,i, dW_f,i), C_i as in SafeLoRA; dW_i = alpha * dW_f,i + (1 - alpha) * dW_s,i where
    rho_i < tau, else dW_f,i; i are the weights of linear layers inside decoder layers. Of adapters dW = s B A, never
    their factors by themselves

    | argument | symbol | meaning |
    | --- | --- | --- |
    | finetuned | dW_f | the fine-tuned model, or an adapter on the aligned one |
    | aligned | W_aligned | the aligned model that it was fine-tuned from |
    | base | W_base | the model from before alignment |
    | safety | dW_s | the aligned model trained on safe answers to harmful prompts, or an adapter |
    | threshold | tau | cosines below it merge |
    | weight | alpha | share of the fine-tune where updates are merged |
    | projector | C | as in `safe_lora`; the cosine is the same for `frob`, `frob_sq` and `spectral` |
    | rank | - | how many leading outputs, for `orthogonal` |
    """
    if not 0.0 <= weight <= 1.0:
        raise ParameterError(f"weight is the share of the fine-tune, between 0 and 1, not {weight}")
    task = operations.select(finetuned - aligned, linear=True)
    projected = relatives.project(task, aligned - base, projector=projector, rank=rank)
    towards = operations.select(safety - finetuned, linear=True)
    return finetuned + relatives.where_similar(
        (1.0 - weight) * towards, left=projected, right=task, limit=threshold, strict=True
    )
