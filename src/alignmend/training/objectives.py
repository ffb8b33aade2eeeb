"""What a training run seeks: the loss that is made small, from the negative log-likelihood of the answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from alignmend.errors import ParameterError
from alignmend.nearest import nearest


@dataclass(frozen=True)
class Objective:
    """`sign` times the mean negative log-likelihood of the answer tokens is what is made small."""

    name: str
    sign: int
    is_bounded: bool
    """Whether it must be stopped at a loss: without a bound it would run off to noise."""

    def __call__(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """The loss as `transformers.Trainer` asks for it: the sum over this part of a step, divided by the number of
        answer tokens of the whole step, so that no split into parts and devices changes it.
        """
        losses = answer_losses(outputs.logits, labels)
        count = losses.numel() if num_items_in_batch is None else num_items_in_batch
        return self.sign * losses.sum() / count


def answer_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood in nats of each answer token, row after row; float32, or float64 of float64.

    `logits` [rows, length, vocabulary]; `labels` [rows, length], -100 where a token is no part of an answer. The
    logits at one place predict the label of the next.
    """
    targets = labels[:, 1:]
    counted = targets != -100
    chosen = logits[:, :-1][counted]
    wide = chosen if chosen.dtype == torch.float64 else chosen.float()
    return torch.nn.functional.cross_entropy(wide, targets[counted], reduction="none")


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
        "descent": Objective("descent", 1, is_bounded=False),
        "ascent": Objective("ascent", -1, is_bounded=True),
    }
)


def objective_named(name: str) -> Objective:
    """The objective `name`; `ParameterError` offers the nearest known one."""
    if name not in OBJECTIVES:
        near = nearest(name, OBJECTIVES) or f"; known: {', '.join(OBJECTIVES)}"
        raise ParameterError(f"unknown objective {name!r}{near}")
    return OBJECTIVES[name]
