"""Short answers that a loaded model gives by itself: the likeliest token, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig

from alignmend.training.observing import Tick


def own_answers(
    network: Any,
    tokenizer: Any,
    prompts: Sequence[tuple[int, ...]],
    *,
    tokens: int,
    batch_size: int = 8,
    tick: Tick = lambda: None,
) -> list[tuple[int, ...]]:
    """The greedy answer to each prompt (token ids), at most `tokens` tokens, with the end token where it came.

    Prompts of one length go together, so that nothing is padded.
    """
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(index)
    found: dict[int, tuple[int, ...]] = {}
    ends = _ends(network, tokenizer)
    settings = GenerationConfig(
        max_new_tokens=tokens, do_sample=False, eos_token_id=ends or None, pad_token_id=ends[0] if ends else 0
    )
    device = next(network.parameters()).device
    for alike in by_length.values():
        for start in range(0, len(alike), batch_size):
            batch = alike[start : start + batch_size]
            ids = torch.tensor([prompts[index] for index in batch], device=device)
            with torch.no_grad():
                made = network.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
            for index, row in zip(batch, made[:, ids.shape[1] :].tolist(), strict=True):
                found[index] = _up_to_end(row, ends)
                tick()
    return [found[index] for index in range(len(prompts))]


def _ends(network: Any, tokenizer: Any) -> list[int]:
    said = getattr(network.generation_config, "eos_token_id", None)
    known = [said] if isinstance(said, int) else list(said or [])
    return list(dict.fromkeys([*known, *([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else [])]))


def _up_to_end(row: Sequence[int], ends: Sequence[int]) -> tuple[int, ...]:
    stop = next((place + 1 for place, token in enumerate(row) if token in ends), len(row))
    return tuple(row[:stop])
