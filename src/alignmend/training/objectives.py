"""What a training run seeks: the loss that is made small, from the negative log-likelihood of the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from alignmend.errors import ParameterError
from alignmend.nearest import nearest


@dataclass(frozen=True, eq=False)
class Beside:
    """What some objectives need beside the answers' likelihood."""

    reference: Tensor | None = None
    """[rows]: negative log-likelihood of each row's whole answer by the untrained model, nats."""
    retain_labels: Tensor | None = None
    """[rows + rows, length]: labels of the second half, where each row's retained partner is; -100 elsewhere."""
    retain_weight: float = 1.0
    beta: float = 0.1


LARGE_VOCABULARY = 8192
"""Tokens from which on the output layer is worth leaving out where no answer is."""
Loss = Callable[[Tensor, Tensor, Beside], Tensor]
"""Logits, labels, and what is beside them -> the sum over the batch that is made small."""


@dataclass(frozen=True)
class Objective:
    """`function`, divided by the number of answer tokens of the step, is what is made small."""

    name: str
    function: Loss
    sign: int | None = None
    """Where the loss is this many times the mean negative log-likelihood of the answers."""
    is_bounded: bool = False
    """Whether it must be stopped at a loss: without a bound it would run off to noise."""

    def __call__(
        self,
        outputs: Any,
        labels: Tensor,
        num_items_in_batch: Tensor | int | None = None,
        beside: Beside | None = None,
    ) -> Tensor:
        """The loss as `transformers.Trainer` asks for it: the sum over this part of a step, divided by the number of
        answer tokens of the whole step, so that no split into parts and devices changes it.
        """
        count = (labels[:, 1:] != -100).sum() if num_items_in_batch is None else num_items_in_batch
        return self.function(outputs.logits, labels, beside or Beside()) / count


def _descent(logits: Tensor, labels: Tensor, beside: Beside) -> Tensor:
    return answer_losses(logits, labels).sum()


def _ascent(logits: Tensor, labels: Tensor, beside: Beside) -> Tensor:
    return -answer_losses(logits, labels).sum()


def _ascent_retain(logits: Tensor, labels: Tensor, beside: Beside) -> Tensor:
    """Each retained answer's mean loss weighs as much as its partner has tokens, so that batches may be split."""
    if beside.retain_labels is None:
        raise TypeError("beside.retain_labels is None")
    rows = len(labels) // 2
    tokens = (labels[:rows, 1:] != -100).sum(dim=1)
    retained = row_losses(logits[rows:], beside.retain_labels[rows:])
    return beside.retain_weight * (tokens * retained).sum() - answer_losses(logits[:rows], labels[:rows]).sum()


def _npo(logits: Tensor, labels: Tensor, beside: Beside) -> Tensor:
    """-(2/beta) log sigmoid(-beta log(p / p_reference)) of each answer (Zhang et al., arXiv 2404.05868, eq. 3)."""
    if beside.reference is None:
        raise TypeError("beside.reference is None")
    log_ratio = beside.reference - row_sums(logits, labels)
    return 2 / beside.beta * torch.nn.functional.softplus(beside.beta * log_ratio).sum()


def answer_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood in nats of each answer token, row after row; float32, or float64 of float64.

    `logits` [rows, length, vocabulary]; `labels` [rows, length], -100 where a token is no part of an answer. The
    logits at one place predict the label of the next. Of a model in `answers_only`, `logits` are [1, answer tokens,
    vocabulary].
    """
    targets = labels[:, 1:]
    counted = targets != -100
    chosen = logits[:, :-1][counted] if logits.shape[:2] == labels.shape else logits[0]
    wide = chosen if chosen.dtype == torch.float64 else chosen.float()
    return torch.nn.functional.cross_entropy(wide, targets[counted], reduction="none")


@contextmanager
def answers_only(model: Any, labels: Tensor) -> Iterator[None]:
    """Within, `model` computes logits where they predict an answer token of `labels` [rows, length], and nowhere else.

    A large vocabulary is most of a small model's work. A small one is left as it is, and so is a model whose output
    layer is not given one vector for each token.
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if head is None or head.weight.shape[0] < LARGE_VOCABULARY:
        yield
        return
    counted = torch.nn.functional.pad(labels[:, 1:] != -100, (0, 1))

    def select(module: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = given[0]
        return (hidden[counted][None], *given[1:]) if hidden.shape[:2] == counted.shape else given

    hook = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()


def row_sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood in nats of each row's whole answer; shapes as in `answer_losses`."""
    counts = (labels[:, 1:] != -100).sum(dim=1)
    rows = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    losses = answer_losses(logits, labels)
    return torch.zeros(len(counts), dtype=losses.dtype, device=losses.device).index_add(0, rows, losses)


def row_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood of each row's answer tokens, in nats; zero for a row without any."""
    return row_sums(logits, labels) / (labels[:, 1:] != -100).sum(dim=1).clamp(min=1)


OBJECTIVES: Mapping[str, Objective] = MappingProxyType(
    {
        "descent": Objective("descent", _descent, sign=1),
        "ascent": Objective("ascent", _ascent, sign=-1, is_bounded=True),
        "ascent-retain": Objective("ascent-retain", _ascent_retain, is_bounded=True),
        "npo": Objective("npo", _npo),
    }
)


def objective_named(name: str) -> Objective:
    """The objective `name`; `ParameterError` offers the nearest known one."""
    if name not in OBJECTIVES:
        near = nearest(name, OBJECTIVES) or f"; known: {', '.join(OBJECTIVES)}"
        raise ParameterError(f"unknown objective {name!r}{near}")
    return OBJECTIVES[name]
