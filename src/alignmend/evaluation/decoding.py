"""Decoding of a left-padded batch, nothing else: no penalties, whatever a model's own config says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

SEGMENT = 6
"""Tokens between two looks for stop strings, which need a row's text."""

Choose = Callable[[Any, Sequence[int], int], Any]
"""Token ids (one a row) from logits (rows, vocabulary), the prompts the rows belong to, and the step."""


@dataclass(frozen=True)
class Decoded:
    """New token ids of one row, the stop token included where one came (`stopped`)."""

    tokens: list[int]
    stopped: bool


Cut = Callable[[int, Sequence[int], int], Decoded | None]
"""What a row has come to, from its place in the batch and its new tokens, `None` to go on; so many of the tokens, which
the third argument says, were looked at before.
"""


def decode_greedily(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    stop: frozenset[int],
    max_new_tokens: int,
    logits_processor: Callable[[Any, Any], Any] | None = None,
) -> list[Decoded]:
    """Continues each of `prompts` (token ids) by the most likely token until one of `stop` or
    `max_new_tokens`. `logits_processor` sees each step's ids and logits, and gives the logits to use.
    """
    import torch

    from alignmend.evaluation.growing import left_padded

    ids, attention_mask = left_padded(prompts, next(model.parameters()).device)
    with torch.inference_mode(), without_own_config(model):
        output = model.generate(
            ids,
            attention_mask=attention_mask,
            generation_config=_config(stop, max_new_tokens),
            logits_processor=None if logits_processor is None else [logits_processor],
        )
    return [_until_stop(row, stop) for row in output.sequences[:, ids.shape[1] :].tolist()]


def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    stop: frozenset[int],
    max_new_tokens: int,
    choose: Choose | None = None,
    cut: Cut | None = None,
) -> list[Decoded]:
    """Like `decode_greedily`, but rows that are done leave the batch, `choose` may draw, `cut` may end a row.

    The caller holds `without_own_config(model)`, so that several batches may run side by side.
    """
    from alignmend.evaluation.growing import can_grow

    ends = _Ends(stop, cut)
    if not can_grow(model):
        return _generated(model, prompts, ends, max_new_tokens, choose)
    return _grown(model, prompts, ends, max_new_tokens, choose)


def _grown(
    model: Any, prompts: Sequence[Sequence[int]], ends: _Ends, max_new_tokens: int, choose: Choose | None
) -> list[Decoded]:
    import torch

    from alignmend.evaluation.growing import Growing

    new: list[list[int]] = [[] for _ in prompts]
    done: dict[int, Decoded] = {}
    with torch.inference_mode():
        growing = Growing(model, prompts, max_new_tokens)
        for step in range(max_new_tokens):
            logits = growing.logits()
            tokens = logits.argmax(dim=-1) if choose is None else choose(logits, growing.rows, step)
            for row, token in zip(growing.rows, tokens.tolist(), strict=True):
                new[row].append(token)
                if (ended := ends.found(row, new[row], last=step + 1 == max_new_tokens)) is not None:
                    done[row] = ended
            if len(done) == len(prompts):
                break
            growing.add(tokens)
            growing.drop(done)
    return [done.get(row) or Decoded(tokens, stopped=False) for row, tokens in enumerate(new)]


def _generated(
    model: Any, prompts: Sequence[Sequence[int]], ends: _Ends, max_new_tokens: int, choose: Choose | None
) -> list[Decoded]:
    """By `generate` itself, every row until the last is done: for a model that keeps its state in its own way."""
    import torch

    from alignmend.evaluation.growing import left_padded

    ids, attention_mask = left_padded(prompts, next(model.parameters()).device)
    length, rows = ids.shape[1], range(len(prompts))

    def force(ids: Any, logits: Any) -> Any:
        """Logits that leave the greedy choice no choice."""
        assert choose is not None
        chosen = choose(logits, rows, ids.shape[1] - length)
        return logits.new_full(logits.shape, float("-inf")).scatter_(1, chosen[:, None], 0.0)

    with torch.inference_mode():
        output = model.generate(
            ids,
            attention_mask=attention_mask,
            generation_config=_config(ends.stop, max_new_tokens),
            logits_processor=None if choose is None else [force],
        )
    found = [_until_stop(row, ends.stop) for row in output.sequences[:, length:].tolist()]
    return [ends.cut_off(row, one.tokens, 0) or one for row, one in enumerate(found)]


@dataclass(frozen=True)
class _Ends:
    """What ends a row: one of the tokens `stop`, or that `cut` finds where to."""

    stop: frozenset[int]
    cut: Cut | None

    def found(self, row: int, tokens: Sequence[int], *, last: bool) -> Decoded | None:
        """What a row came to, if its newest token ends it; `cut` is asked now and then, and at the end."""
        stopped = tokens[-1] in self.stop
        if stopped or last or len(tokens) % SEGMENT == 0:
            cut = self.cut_off(row, tokens, (len(tokens) - 1) // SEGMENT * SEGMENT)
            if cut is not None:
                return cut
        return Decoded([*tokens], stopped=True) if stopped else None

    def cut_off(self, row: int, tokens: Sequence[int], looked_at: int) -> Decoded | None:
        """The row up to where `cut` ends it; `looked_at` of its tokens are known not to."""
        return self.cut(row, tokens, looked_at) if self.cut is not None else None


@contextmanager
def without_own_config(model: Any) -> Iterator[None]:
    """Options that a configuration leaves open would come from the model's own: a repetition penalty, for one."""
    from transformers import GenerationConfig

    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def has_hooks(model: Any) -> bool:
    """Whether a hook sees what passes through a module of `model`."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def _config(stop: frozenset[int], max_new_tokens: int) -> Any:
    from transformers import GenerationConfig

    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(stop) or None,
        pad_token_id=min(stop, default=0),
        use_cache=True,
        return_dict_in_generate=True,
    )


def _until_stop(tokens: list[int], stop: frozenset[int]) -> Decoded:
    end = next((place for place, token in enumerate(tokens) if token in stop), None)
    return Decoded(tokens if end is None else tokens[: end + 1], stopped=end is not None)
