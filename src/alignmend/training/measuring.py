"""How likely a model finds the answers of its pairs: mean loss and perplexity."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from alignmend.training.loop import TokenRow
from alignmend.training.objectives import answer_losses, answers_only

MOST_ROWS = 256
"""Pairs that are measured; of more, so many from all over them. All of a long file would cost as much as training."""
_LARGEST_EXPONENT = 700.0


@dataclass(frozen=True)
class Measured:
    """Over all answer tokens of the pairs that were measured; every token counts the same."""

    loss: float
    """Mean negative log-likelihood, nats per answer token."""
    tokens: int

    @property
    def perplexity(self) -> float | None:
        """The exponential of the loss; `None` where no float holds it."""
        return math.exp(self.loss) if self.loss < _LARGEST_EXPONENT else None


def measure(trainer: Any, rows: Sequence[TokenRow]) -> Measured:
    """Measure the model of `trainer` as it is now, on all its devices together, without dropout, on at most `MOST_ROWS`
    of `rows`.
    """
    step = max(1.0, len(rows) / MOST_ROWS)
    chosen = [rows[int(place * step)] for place in range(min(len(rows), MOST_ROWS))]
    model, by_length = trainer.model_wrapped, sorted(chosen, key=lambda row: len(row.tokens))
    total, tokens, was_training = 0.0, 0, model.training
    model.eval()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for batch in trainer.get_eval_dataloader(by_length):
            labels = batch.pop("labels")
            with answers_only(trainer.accelerator.unwrap_model(model), labels):
                logits = model(**batch).logits
            losses, counts = _by_row(logits, labels)
            losses, counts = trainer.accelerator.gather_for_metrics((losses, counts))
            total, tokens = total + losses.sum().item(), tokens + int(counts.sum().item())
    model.train(was_training)
    return Measured(total / tokens, tokens)


def _by_row(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the losses and number of answer tokens of each row, so that rows added to even out devices can go."""
    counts = (labels[:, 1:] != -100).sum(dim=1)
    rows = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    sums = torch.zeros(len(counts), dtype=torch.float64, device=counts.device)
    return sums.index_add(0, rows, answer_losses(logits, labels).double()), counts


def write_measured(path: Path, measured: Measured) -> None:
    """Write it for a run that is resumed."""
    path.write_text(json.dumps(asdict(measured)), encoding="utf-8")


def read_measured(path: Path) -> Measured:
    """What `write_measured` wrote."""
    value = json.loads(path.read_text(encoding="utf-8"))
    return Measured(float(value["loss"]), int(value["tokens"]))
