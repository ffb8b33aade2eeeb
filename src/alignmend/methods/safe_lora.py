"""SafeLoRA: updates that leave the aligned subspace are multiplied into it."""

from __future__ import annotations

from typing import Literal, get_args

from alignmend.algebra import operations, relatives
from alignmend.algebra.nodes import Projector
from alignmend.algebra.values import Checkpoint
from alignmend.errors import ParameterError

Choice = Literal["number", "threshold"]


def safe_lora(
    *,
    finetuned: Checkpoint,
    aligned: Checkpoint,
    base: Checkpoint,
    select: Choice = "number",
    number: int = 10,
    threshold: float = 0.5,
    projector: Projector = "frob",
    rank: int = 0,
) -> Checkpoint:
    """Multiply the least aligned updates of a fine-tune by what alignment changed.

    Paper: Hsu, Tsai, Lin, Chen, Yu, Huang, "Safe LoRA: the Silver Lining of Reducing Safety Risks when Fine-tuning
    Large Language Models", arXiv 2405.16833
    Equation: V_i = W_aligned,i - W_base,i; C_i = V_i V_i^T / |V_i|; dW_i <- C_i dW_i where cos(C_i dW_i, dW_i) <= tau,
    else unchanged; i are the weights of linear layers inside decoder layers. Of an adapter dW = s B A, and only B
    changes. `frob` as in the equation and the released code is no projector: it shortens what it is applied to, and the
    manifest's notes say how much. `frob_sq` and `spectral` are V V^T over |V|^2 and over its largest eigenvalue,
    `orthogonal` projects on the leading outputs of V

    | argument | symbol | meaning |
    | --- | --- | --- |
    | finetuned | W + dW | the fine-tuned model, or an adapter on the aligned one |
    | aligned | W_aligned | the aligned model that it was fine-tuned from |
    | base | W_base | the model from before alignment |
    | select | - | which updates: a `number` of those with the lowest cosines, or all up to a `threshold` |
    | number | - | how many, for `number`; the paper's code rounds cosines and may take more |
    | threshold | tau | highest cosine, for `threshold` |
    | projector | C | `frob`, `frob_sq`, `spectral` or `orthogonal`, see above |
    | rank | - | how many leading outputs, for `orthogonal` |
    """
    if select not in get_args(Choice):
        raise ParameterError(f"select is one of {', '.join(get_args(Choice))}, not {select!r}")
    task = operations.select(finetuned - aligned, linear=True)
    projected = relatives.project(task, aligned - base, projector=projector, rank=rank)
    count = number if select == "number" else None
    return finetuned + relatives.where_similar(
        projected - task, left=projected, right=task, limit=threshold, number=count
    )
