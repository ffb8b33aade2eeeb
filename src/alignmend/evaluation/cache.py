"""Keys and values of rows that grow together, written into memory that is there from the start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one decoder layer, (rows, heads, tokens, width) each, for at most `room` tokens.

    What is stored is the same as in the library's own layer, which copies all of it at every token.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room
        self._memory: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *given: Any, **more: Any) -> tuple[Tensor, Tensor]:
        """Append new tokens; returns all keys and values."""
        if self._memory is None:
            self.lazy_initialization(key_states, value_states)
            self._memory = self._empty(key_states), self._empty(value_states)
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        for memory, states in zip(self._memory, (key_states, value_states), strict=True):
            memory[: len(states), :, begin:end] = states
        self._show(len(key_states), end)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, in this order; rows that stay in their place are not copied."""
        if self._memory is None:
            return
        length = self.get_seq_length()
        moved = (indices != torch.arange(len(indices), device=indices.device)).nonzero()[:, 0]
        for memory in self._memory:
            memory[moved, :, :length] = memory[indices[moved], :, :length]
        self._show(len(indices), length)

    def spread(self, shifts: Tensor) -> None:
        """Make many rows of one: row i holds its tokens `shifts[i]` places to the right, those beyond the end are left
        out.
        """
        if self._memory is None:
            return
        length = self.get_seq_length()
        places = (torch.arange(length, device=shifts.device) - shifts[:, None]).clamp(min=0)
        spread = [states[0][:, places].transpose(0, 1) for states in (self.keys, self.values)]
        self._memory = self._empty(spread[0]), self._empty(spread[1])
        for memory, states in zip(self._memory, spread, strict=True):
            memory[:, :, :length] = states
        self._show(len(shifts), length)

    def _empty(self, like: Tensor) -> Tensor:
        rows, heads, _, width = like.shape
        return like.new_empty(rows, heads, self._room, width)

    def _show(self, rows: int, length: int) -> None:
        if self._memory is None:
            raise TypeError("self._memory is None")
        self.keys, self.values = (memory[:rows, :, :length] for memory in self._memory)


def growing_cache(config: Any, room: int) -> DynamicCache | None:
    """A cache for rows of at most `room` tokens; `None` for a model whose cache is not of keys and values only."""
    cache = DynamicCache(config=config)
    kinds = {type(layer) for layer in cache.layers}
    if not kinds or not kinds <= {DynamicLayer, DynamicSlidingWindowLayer}:
        return None
    cache.layers = [RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def roomy_layers(cache: Any) -> Sequence[RoomyLayer] | None:
    """All layers of `cache`; `None` where one of them forgets what is out of its window."""
    layers = list(cache.layers)
    return layers if all(isinstance(layer, RoomyLayer) for layer in layers) else None
