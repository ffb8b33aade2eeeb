"""What an objective needs beside each row, found before the first step: reference losses, retained partners."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from random import Random
from typing import Any

import torch

from alignmend.training.encoding import GuidedRow, collate
from alignmend.training.loop import TokenRow
from alignmend.training.objectives import answers_only, row_sums
from alignmend.training.settings import TrainSettings


def guided(
    model: Any, rows: Sequence[TokenRow], settings: TrainSettings, retained: Sequence[TokenRow] = ()
) -> list[TokenRow]:
    """The rows of a run: with reference losses by the untrained `model` for `npo`, with partners for `ascent-retain`.

    Partners are the retained rows in an order drawn by the seed, again from the first where there are too few.
    """
    if settings.objective == "npo":
        losses = reference_losses(model, rows, settings.batch_size)
        return [GuidedRow(row.tokens, row.answer_start, loss) for row, loss in zip(rows, losses, strict=True)]
    if settings.objective == "ascent-retain":
        partners = list(retained)
        Random(f"retained {settings.seed}").shuffle(partners)
        return [GuidedRow(row.tokens, row.answer_start, None, one) for row, one in zip(rows, cycle(partners))]
    return list(rows)


def reference_losses(model: Any, rows: Sequence[TokenRow], batch_size: int) -> list[float]:
    """Negative log-likelihood of each row's whole answer, nats, without dropout, on the device where `model` is."""
    device, was_training, found = next(model.parameters()).device, model.training, []
    model.eval()
    with torch.no_grad():
        for start in range(0, len(rows), batch_size):
            batch = {name: part.to(device) for name, part in collate(rows[start : start + batch_size]).items()}
            labels = batch.pop("labels")
            with answers_only(model, labels):
                found += row_sums(model(**batch).logits, labels).tolist()
    model.train(was_training)
    return found
