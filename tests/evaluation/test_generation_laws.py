"""What holds of any prompts: neither batches, padding nor order change an answer, greedy or drawn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evaluation.conftest import make_model, make_tokenizer

from alignmend.errors import AlignmendError
from alignmend.evaluation.batching import even_size, one_after_another
from alignmend.evaluation.decoding import SEGMENT, Decoded, decode, decode_greedily, without_own_config
from alignmend.evaluation.generation import TransformersBackend
from alignmend.evaluation.records import Prompt
from alignmend.evaluation.sampling import Sampler, Sampling, own_sampling

MODEL, TOKENIZER = make_model(), make_tokenizer()
texts = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), min_size=1, max_size=8)
samplings = st.sampled_from(
    [
        Sampling(max_new_tokens=15),
        Sampling(temperature=0.7, seed=3, max_new_tokens=15),
        Sampling(temperature=2.0, top_k=5, top_p=0.8, max_new_tokens=15),
    ]
)


def asked(words: list[str]) -> list[Prompt]:
    return [Prompt(suite="s", id=str(index), text=text) for index, text in enumerate(words)]


@settings(max_examples=15)
@given(texts, samplings, st.integers(1, 8), st.randoms(use_true_random=False))
def test_an_answer_depends_on_its_prompt_alone(words: list[str], sampling: Sampling, size: int, random: Any) -> None:
    prompts = asked(words)
    alone = TransformersBackend(MODEL, TOKENIZER, batch_size=1, sampling=sampling, name="m").generate(prompts)
    shuffled = random.sample(prompts, len(prompts))
    together = TransformersBackend(MODEL, TOKENIZER, batch_size=size, sampling=sampling, name="m").generate(shuffled)
    assert sorted(together, key=lambda row: int(row.prompt_id)) == alone


@given(st.lists(st.lists(st.integers(5, 260), min_size=1, max_size=9), min_size=1, max_size=6), st.integers(1, 20))
@settings(max_examples=20)
def test_rows_that_leave_change_nothing(prompts: list[list[int]], length: int) -> None:
    """Many stop tokens, so that rows end at all places; the reference keeps every row to the end."""
    stop = frozenset(range(0, 261, 7))
    whole = decode_greedily(MODEL, prompts, stop=stop, max_new_tokens=length)
    with without_own_config(MODEL):
        assert decode(MODEL, prompts, stop=stop, max_new_tokens=length) == whole


def test_a_cache_that_cannot_lose_rows_is_not_cut() -> None:
    """A state-space model: its state has no rows of keys and values to select."""
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    config = MambaConfig(vocab_size=261, hidden_size=16, num_hidden_layers=1, initializer_range=0.5)
    model = MambaForCausalLM(config).eval()
    prompts, stop = [[5, 6, 7], [8, 9, 10]], frozenset(range(0, 261, 40))
    alone = [decode_greedily(model, [one], stop=stop, max_new_tokens=3 * SEGMENT)[0] for one in prompts]
    with without_own_config(model):
        assert decode(model, prompts, stop=stop, max_new_tokens=3 * SEGMENT) == alone


def test_a_sliding_window_loses_rows_too() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = MistralConfig(vocab_size=261, num_key_value_heads=1, sliding_window=5, initializer_range=0.3, **shape)
    model = MistralForCausalLM(config).eval()
    prompts, stop = [[5, 6, 7, 8, 9, 10, 11], [8, 9], [12]], frozenset(range(0, 261, 30))
    alone = [decode_greedily(model, [one], stop=stop, max_new_tokens=25)[0] for one in prompts]
    with without_own_config(model):
        assert decode(model, prompts, stop=stop, max_new_tokens=25) == alone


def test_without_own_config_puts_it_back() -> None:
    own = MODEL.generation_config
    with pytest.raises(ZeroDivisionError), without_own_config(MODEL):
        raise ZeroDivisionError
    assert MODEL.generation_config is own


@given(st.integers(0, 5))
def test_draws_follow_the_distribution(seed: int) -> None:
    """4,000 prompts, one token each: frequencies within five standard errors of the probabilities."""
    logits = torch.tensor([1.0, 0.0, 2.0, -1.0, -30.0])
    count = 4000
    how = Sampling(temperature=0.8, seed=seed, max_new_tokens=1)
    sampler = Sampler(how, [str(number) for number in range(count)])
    drawn = sampler.choose(logits.expand(count, -1), range(count), 0)
    expected = (logits / 0.8).softmax(-1)
    found = drawn.bincount(minlength=5) / count
    assert ((found - expected).abs() <= 5 * (expected * (1 - expected) / count).sqrt() + 1e-9).all()


@given(
    st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=12, unique=True),
    st.none() | st.integers(1, 12),
    st.none() | st.floats(0.05, 1.0),
)
def test_only_tokens_inside_the_cuts_are_drawn(logits: list[float], top_k: int | None, top_p: float | None) -> None:
    """The slow reference: sort, keep `top_k`, keep the least tokens whose mass reaches `top_p`."""
    how = Sampling(temperature=1.0, top_k=top_k, top_p=top_p, max_new_tokens=1)
    row = torch.tensor(logits)
    best = row.argsort(descending=True)[:top_k]
    mass = row[best].double().softmax(0)
    allowed = {
        int(token)
        for token, before in zip(best, mass.cumsum(0) - mass, strict=True)
        if top_p is None or before < top_p + 1e-6
    }
    sampler = Sampler(how, [str(number) for number in range(50)])
    assert set(sampler.choose(row.expand(50, -1), range(50), 0).tolist()) <= allowed


def test_a_cold_draw_is_greedy() -> None:
    prompts = asked(["hi", "what?", "tell me"])
    cold = Sampling(temperature=1e-6, max_new_tokens=12)
    drawn = TransformersBackend(MODEL, TOKENIZER, sampling=cold, name="m").generate(prompts)
    greedy = TransformersBackend(MODEL, TOKENIZER, max_new_tokens=12, name="m").generate(prompts)
    assert [row.response for row in drawn] == [row.response for row in greedy]
    assert [row.sampling for row in drawn] == ["temperature=1e-06, seed=0, max_new_tokens=12"] * 3


def test_seeds_differ() -> None:
    prompts = asked(["hi", "what?", "tell me"])
    made = [
        TransformersBackend(MODEL, TOKENIZER, sampling=Sampling(1.0, seed=seed, max_new_tokens=9), name="m").generate(
            prompts
        )
        for seed in (0, 1)
    ]
    assert [row.response for row in made[0]] != [row.response for row in made[1]]


@pytest.mark.parametrize(
    "option",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_k": 0},
        {"top_p": 0},
        {"top_p": 1.5},
        {"max_new_tokens": 0},
    ],
)
def test_senseless_sampling_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(AlignmendError, match=f"^{next(iter(option))} must be"):
        Sampling(**option)


def test_a_models_own_way_of_sampling() -> None:
    from transformers import GenerationConfig

    assert own_sampling(GenerationConfig()).greedy
    assert own_sampling(None).greedy
    llama = GenerationConfig(do_sample=True, temperature=0.6, top_p=0.9)
    assert own_sampling(llama, max_new_tokens=500) == Sampling(0.6, top_k=50, top_p=0.9, max_new_tokens=500)
    assert own_sampling(GenerationConfig(do_sample=True, top_k=0)) == Sampling(1.0)


@given(st.integers(1, 2000), st.integers(1, 300), st.integers(1, 4))
def test_even_batches_are_enough_and_none_is_too_large(count: int, size: int, workers: int) -> None:
    even = even_size(count, size, workers)
    rounds = -(-count // (size * workers))
    assert 1 <= even <= size
    assert -(-count // even) <= rounds * workers


def test_batches_hold_only_what_is_alike() -> None:
    items = [1, 1, 1, 2, 2, 3]
    made = list(one_after_another(items, list, alike=lambda item: item, size=lambda _: 2))
    assert [batch for batch, _ in made] == [[1, 1], [1], [2, 2], [3]]


def test_decoded_rows_know_whether_they_stopped() -> None:
    (row,) = decode_greedily(MODEL, [[5]], stop=frozenset(range(261)), max_new_tokens=4)
    assert row == Decoded(row.tokens[:1], stopped=True)
