"""Prompts that grow token by token on one model: what `generate` of `transformers` does, without its cost per token.

Rows are padded on the left. The tokens that all prompts begin with (a system prompt, the head of a chat template) are
read once and given to every row. Rows that are done can leave.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin

from alignmend.evaluation.cache import growing_cache, roomy_layers
from alignmend.evaluation.decoding import has_hooks

LEAST_SHARED = 8
"""Tokens that prompts must share at the least to be read once for all: less does not pay for a pass of its own."""


def can_grow(model: Any) -> bool:
    """Whether `model` takes its inputs in the usual way and keeps keys and values only."""
    usual = isinstance(model, GenerationMixin) and _prepares_as_usual(type(model))
    takes = inspect.signature(model.forward).parameters if usual else {}
    return {"input_ids", "attention_mask", "past_key_values", "use_cache"} <= {*takes} and (
        growing_cache(model.config, 1) is not None
    )


def _prepares_as_usual(kind: type) -> bool:
    names = ("prepare_inputs_for_generation", "_update_model_kwargs_for_generation")
    return all(getattr(kind, name) is getattr(GenerationMixin, name) for name in names)


class Growing:
    """Rows that still grow, by their places in `prompts`; each has room for `room` new tokens."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], room: int) -> None:
        self.rows = list(range(len(prompts)))
        device = next(model.parameters()).device
        self._model, self._takes = model, inspect.signature(model.forward).parameters
        self._ids, mask = left_padded(prompts, device)
        self._mask = torch.cat([mask, mask.new_ones(len(prompts), room)], dim=1)
        self._positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        self._length = 0
        self._cache: Any = growing_cache(model.config, mask.shape[1] + room)
        self._read_shared(prompts)

    def logits(self) -> Tensor:
        """Of each row's next token, float32 (rows, vocabulary)."""
        return self._pass(self._ids, self._positions)

    def add(self, tokens: Tensor) -> None:
        """One more token for each row."""
        self._ids, self._positions = tokens[:, None], self._positions[:, -1:] + 1

    def drop(self, done: Collection[int]) -> None:
        """Take rows out; rows from the end take their places, so that little is moved."""
        stay = [place for place, row in enumerate(self.rows) if row not in done]
        if len(stay) == len(self.rows):
            return
        kept = set(stay)
        late = iter(place for place in reversed(stay) if place >= len(stay))
        order = [place if place in kept else next(late) for place in range(len(stay))]
        index = torch.tensor(order, device=self._ids.device)
        self._cache.batch_select_indices(index)
        self._ids, self._mask, self._positions = self._ids[index], self._mask[index], self._positions[index]
        self.rows = [self.rows[place] for place in order]

    def _read_shared(self, prompts: Sequence[Sequence[int]]) -> None:
        """Read what all prompts begin with in one row, and give it to all, each behind its padding."""
        shared = _shared(prompts)
        layers = roomy_layers(self._cache)
        if len(prompts) < 2 or shared < LEAST_SHARED or layers is None or has_hooks(self._model):
            return
        whole, ids, mask, positions = self._mask, self._ids, self._mask, self._positions
        longest = max(range(len(prompts)), key=lambda row: len(prompts[row]))
        self._mask = mask[longest : longest + 1]
        self._pass(ids[longest : longest + 1, :shared], positions[longest : longest + 1, :shared])
        shifts = torch.tensor([ids.shape[1] - len(one) for one in prompts], device=ids.device)
        for layer in layers:
            layer.spread(shifts)
        self._mask, self._ids, self._positions = whole, ids[:, shared:], positions[:, shared:]

    def _pass(self, ids: Tensor, positions: Tensor) -> Tensor:
        self._length += ids.shape[1]
        more: dict[str, Any] = {"position_ids": positions} if "position_ids" in self._takes else {}
        if "logits_to_keep" in self._takes:
            more["logits_to_keep"] = 1
        mask = self._mask[:, : self._length]
        output = self._model(input_ids=ids, attention_mask=mask, past_key_values=self._cache, use_cache=True, **more)
        logits: Tensor = output.logits[:, -1].float()
        return logits


def _shared(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with; each keeps one of its own at the least."""
    columns = zip(*(prompt[:-1] for prompt in prompts), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def left_padded(prompts: Sequence[Sequence[int]], device: Any) -> tuple[Tensor, Tensor]:
    """Token ids and mask (rows, longest), zeros before each row's start."""
    length = max(map(len, prompts))
    ids = torch.zeros(len(prompts), length, dtype=torch.long)
    mask = torch.zeros(len(prompts), length, dtype=torch.long)
    for row, tokens in enumerate(prompts):
        ids[row, length - len(tokens) :] = torch.tensor(tokens, dtype=torch.long)
        mask[row, length - len(tokens) :] = 1
    return ids.to(device), mask.to(device)
