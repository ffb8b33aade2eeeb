"""Two models compared position by position: divergence of their next-token distributions, and their surprise."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignmend.errors import MismatchError, NonFiniteError
from alignmend.evaluation.generation import Steer
from alignmend.evaluation.utility.forward import Tokens, in_batches, logits_from
from alignmend.execution.threads import few_threads

if TYPE_CHECKING:
    import torch

_POSITIONS_AT_ONCE = 64


@dataclass(frozen=True)
class Compared:
    """One row: KL at each position from `first` on, and both models' negative log-likelihoods of what follows."""

    divergences: list[float]
    surprise: float
    reference_surprise: float


class Comparison:
    """Runs both models over rows of tokens."""

    def __init__(self, model: Any, reference: Any, steering: Steer | None) -> None:
        self._model, self._reference, self._steering = model, reference, steering

    def rows(self, rows: Sequence[Tokens], batch_size: int | None, *, last_only: bool = False) -> list[Compared]:
        """In order; with `last_only` the last position alone is compared."""
        order = sorted(range(len(rows)), key=lambda place: -len(rows[place]))
        longest_first = [rows[place] for place in order]

        def first(part: Sequence[Tokens]) -> int:
            return min(map(len, part)) - 1 if last_only else 0

        def positions(part: Sequence[Tokens]) -> int:
            return len(part) * (len(part[0]) - first(part))

        def work(part: Sequence[Tokens]) -> list[Compared]:
            return self._compare(part, first(part))

        parts = in_batches(longest_first, work, model=self._model, batch_size=batch_size, positions=positions)
        with few_threads(self._model):
            found = dict(zip(order, (one for part in parts for one in part), strict=True))
        return [found[place] for place in range(len(rows))]

    def _compare(self, rows: Sequence[Tokens], first: int) -> list[Compared]:
        import torch

        with torch.inference_mode():
            expected = logits_from(self._reference, rows, first)
            with nullcontext() if self._steering is None else self._steering(self._model):
                found = logits_from(self._model, rows, first)
            if expected.shape != found.shape:
                raise MismatchError(
                    f"the reference has {expected.shape[-1]} tokens and the model {found.shape[-1]}: their next-token "
                    "distributions cannot be compared;",
                    advice="use a reference with the same vocabulary",
                )
            expected = expected.to(found.device)
            pairs = zip(expected, found, strict=True)
            return [_compared(*pair, row, first) for pair, row in zip(pairs, rows, strict=True)]


def _compared(expected: torch.Tensor, found: torch.Tensor, tokens: Tokens, first: int) -> Compared:
    """Of one row; logits of padding, behind its end, are left out."""
    import torch

    divergences: list[float] = []
    surprise = reference_surprise = 0.0
    targets = torch.tensor([*tokens[first + 1 :], 0])
    for start in range(0, len(tokens) - first, _POSITIONS_AT_ONCE):
        part = slice(start, min(start + _POSITIONS_AT_ONCE, len(tokens) - first))
        logs, reference_logs = _logs(found[part]), _logs(expected[part])
        terms = torch.where(reference_logs.exp() > 0, reference_logs.exp() * (reference_logs - logs), 0.0)
        divergences += terms.sum(-1).clamp(min=0).tolist()
        wanted = targets[part].to(logs.device)[:, None]
        counted = torch.arange(part.start, part.stop, device=logs.device) < len(tokens) - first - 1
        surprise -= float(logs.gather(1, wanted)[:, 0][counted].sum())
        reference_surprise -= float(reference_logs.gather(1, wanted)[:, 0][counted].sum())
    return Compared(divergences, surprise, reference_surprise)


def _logs(logits: torch.Tensor) -> torch.Tensor:
    """Log-probabilities in float64, which not every device has."""
    import torch

    if torch.isnan(logits).any():
        raise NonFiniteError("the logits hold NaN: the model's weights are damaged, or overflow in float16")
    wide = logits.cpu().double() if logits.device.type == "mps" else logits.double()
    return wide.log_softmax(-1)
