"""How likely a model finds given texts: log-likelihoods of continuations, in batches, by a `transformers` causal model.

Rows are padded on the right, so that a token's position and what it sees never depend on its neighbours in the batch.
Continuations that share their context share its pass where no token of theirs but the last must be read: single-token
options of one question cost one row together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from alignmend.errors import NonFiniteError, ParameterError, RecipeError
from alignmend.evaluation.utility.forward import Tokens, check_length, in_batches, logits_from
from alignmend.execution.threads import few_threads

Report = Callable[[Sequence[int]], None]
"""Called with the places of the pairs that are done, in any order."""


@dataclass(frozen=True)
class LogLikelihood:
    """`total`: the natural logarithm of a continuation's probability, the sum over its `tokens`."""

    total: float
    tokens: int


@dataclass(frozen=True)
class _Wanted:
    """The continuation of pair `place`: `tokens` predicted from position `start` of the row on."""

    place: int
    start: int
    tokens: Tokens


@dataclass
class _Row:
    tokens: Tokens
    wanted: list[_Wanted]

    @property
    def first(self) -> int:
        return min(wanted.start for wanted in self.wanted)


def log_likelihoods(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[tuple[str, str]],
    *,
    special: bool = True,
    batch_size: int | None = None,
    report: Report | None = None,
) -> list[LogLikelihood]:
    """Of each pair (context, continuation) the log-likelihood of the continuation after the context, in order.

    `special`: whether the tokenizer puts its own tokens (a beginning of sequence) before the context; false where a
    chat template did. A token that spans both texts counts to the continuation. An empty context needs a tokenizer
    with a beginning or end of sequence. Results are the same for every `batch_size` up to rounding.
    """
    encoded = [split_tokens(tokenizer, *pair, special=special) for pair in pairs]
    return token_log_likelihoods(model, encoded, batch_size=batch_size, report=report)


def split_tokens(
    tokenizer: Any, context: str, continuation: str, *, special: bool = True
) -> tuple[list[int], list[int]]:
    """The tokens of `context + continuation`, cut where they first differ from those of `context` alone."""
    whole: list[int] = tokenizer(context + continuation, add_special_tokens=special)["input_ids"]
    alone: list[int] = tokenizer(context, add_special_tokens=special)["input_ids"]
    same = (left == right for left, right in zip(whole, alone, strict=False))
    cut = next((place for place, equal in enumerate(same) if not equal), min(len(whole), len(alone)))
    if cut == len(whole):
        raise RecipeError(f"the continuation {continuation!r} has no tokens of its own after its context")
    if cut == 0:
        return [_first_token(tokenizer)], whole
    return whole[:cut], whole[cut:]


def _first_token(tokenizer: Any) -> int:
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise RecipeError("an empty context needs a tokenizer with a beginning- or end-of-sequence token")


def token_log_likelihoods(
    model: Any,
    pairs: Sequence[tuple[Tokens, Tokens]],
    *,
    batch_size: int | None = None,
    report: Report | None = None,
) -> list[LogLikelihood]:
    """As `log_likelihoods`, of token ids; both sides of a pair need at least one."""
    results: dict[int, LogLikelihood] = {}
    with few_threads(model):
        rows = _rows(model, pairs)
        scored = in_batches(
            rows, lambda part: _score(model, part), model=model, batch_size=batch_size, positions=_positions
        )
        for found in scored:
            results.update(found)
            if report is not None:
                report(list(found))
    return [results[place] for place in range(len(pairs))]


def _rows(model: Any, pairs: Sequence[tuple[Tokens, Tokens]]) -> list[_Row]:
    """One row for each different input; an input that begins another rides on it, as no token sees what follows."""
    wanted: dict[tuple[int, ...], list[_Wanted]] = {}
    for place, (context, continuation) in enumerate(pairs):
        if not context or not continuation:
            raise ParameterError(f"pair {place} has {len(context)} tokens of context and {len(continuation)} to score")
        tokens = (*context, *continuation[:-1])
        check_length(model, len(tokens), f"pair {place}")
        wanted.setdefault(tokens, []).append(_Wanted(place, len(context) - 1, continuation))
    rows: list[_Row] = []
    for tokens in sorted(wanted, reverse=True):
        if rows and rows[-1].tokens[: len(tokens)] == tokens:
            rows[-1].wanted += wanted[tokens]
        else:
            rows.append(_Row(tokens, wanted[tokens]))
    return sorted(rows, key=lambda row: -len(row.tokens))


def _positions(rows: Sequence[_Row]) -> int:
    return len(rows) * (max(len(row.tokens) for row in rows) - min(row.first for row in rows))


def _score(model: Any, rows: Sequence[_Row]) -> dict[int, LogLikelihood]:
    import torch

    first = min(row.first for row in rows)
    found: dict[int, LogLikelihood] = {}
    with torch.inference_mode():
        logits = logits_from(model, [row.tokens for row in rows], first)
        for row, scores in zip(rows, logits, strict=True):
            for wanted in row.wanted:
                span = scores[wanted.start - first :][: len(wanted.tokens)].float().log_softmax(-1)
                targets = torch.tensor(wanted.tokens, device=span.device)[:, None]
                total = float(span.gather(1, targets).double().sum())
                if math.isnan(total):
                    raise NonFiniteError("the model's logits hold NaN: its weights are damaged, or overflow in float16")
                found[wanted.place] = LogLikelihood(total, len(wanted.tokens))
    return found
