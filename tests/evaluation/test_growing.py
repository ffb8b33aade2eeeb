"""Rows that grow together have the logits that each would have alone, without a cache, padding or shared beginning."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.architectures import CONFIGS, VOCABULARY, tiny

from alignmend.evaluation.decoding import Decoded, decode, decode_greedily, without_own_config
from alignmend.evaluation.growing import LEAST_SHARED, Growing, can_grow

tokens = st.integers(3, VOCABULARY - 1)
OWN_WAYS = {"phi3"}
"""They prepare their inputs in a way of their own."""


def alone(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
    return logits


def check_growth(model: Any, prompts: list[list[int]], random: Random, steps: int = 6) -> None:
    """Any token may come next, and any row may leave."""
    with torch.inference_mode():
        growing, ids = Growing(model, prompts, steps), [list(prompt) for prompt in prompts]
        for _ in range(steps):
            logits = growing.logits()
            assert logits.shape == (len(growing.rows), VOCABULARY)
            for row, found in zip(growing.rows, logits, strict=True):
                torch.testing.assert_close(found, alone(model, ids[row]), atol=2e-4, rtol=1e-3)
            chosen = [random.randrange(3, VOCABULARY) for _ in growing.rows]
            for row, token in zip(growing.rows, chosen, strict=True):
                ids[row].append(token)
            growing.add(torch.tensor(chosen))
            growing.drop({row for row in growing.rows[:-1] if random.random() < 0.2})


@pytest.mark.parametrize("architecture", sorted(set(CONFIGS) - OWN_WAYS))
@pytest.mark.parametrize("shared", [0, LEAST_SHARED + 3])
def test_every_architecture_grows_as_it_reads(architecture: str, shared: int) -> None:
    model, random = tiny(architecture), Random(f"{architecture} {shared}")
    assert can_grow(model)
    head = [random.randrange(3, VOCABULARY) for _ in range(shared)]
    prompts = [[*head, *(random.randrange(3, VOCABULARY) for _ in range(length))] for length in (14, 1, 5, 5, 3)]
    check_growth(model, prompts, random)


@settings(max_examples=25)
@given(
    st.lists(tokens, max_size=LEAST_SHARED + 4),
    st.lists(st.lists(tokens, min_size=1, max_size=14), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_rows_do_not_depend_on_each_other(head: list[int], tails: list[list[int]], random: Random) -> None:
    check_growth(tiny("llama"), [[*head, *tail] for tail in tails], random)


@pytest.mark.parametrize("architecture", sorted(OWN_WAYS))
def test_what_prepares_inputs_in_its_own_way_is_left_to_generate(architecture: str) -> None:
    model, prompts, stop = tiny(architecture), [[5, 6, 7], [8], [9, 10]], frozenset(range(0, VOCABULARY, 9))
    assert not can_grow(model)
    whole = decode_greedily(model, prompts, stop=stop, max_new_tokens=9)
    with without_own_config(model):
        assert decode(model, prompts, stop=stop, max_new_tokens=9) == whole
        cut = decode(
            model,
            prompts,
            stop=frozenset(),
            max_new_tokens=9,
            cut=lambda row, tokens, looked_at: Decoded([*tokens[:2]], stopped=True),
        )
    assert [len(row.tokens) for row in cut] == [2, 2, 2]
    assert all(row.stopped for row in cut)


def test_a_shared_beginning_is_read_once() -> None:
    model, seen = tiny("llama"), []
    embedded = model.model.embed_tokens
    original = embedded.forward

    def counting(ids: torch.Tensor) -> torch.Tensor:
        seen.append(ids.shape)
        found: torch.Tensor = original(ids)
        return found

    embedded.forward = counting
    try:
        head = list(range(10, 10 + LEAST_SHARED))
        with torch.inference_mode():
            Growing(model, [[*head, 3], [*head, 4, 5], [*head, 6]], 2).logits()
    finally:
        del embedded.forward
    assert [tuple(shape) for shape in seen] == [(1, LEAST_SHARED), (3, 2)]


def test_hooks_see_whole_prompts() -> None:
    """They may tell a prompt from an answer by whether something was read before."""
    model, seen = tiny("llama"), []
    hook = model.model.register_forward_pre_hook(
        lambda _module, _given, options: seen.append(tuple(options["input_ids"].shape)), with_kwargs=True
    )
    head = list(range(10, 20 + LEAST_SHARED))
    try:
        with torch.inference_mode():
            Growing(model, [[*head, 3], [*head, 4, 5]], 2).logits()
    finally:
        hook.remove()
    assert seen == [(2, len(head) + 2)]
