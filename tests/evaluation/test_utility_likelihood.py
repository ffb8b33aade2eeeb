from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignmend.errors import NoMemoryError, NonFiniteError, ParameterError, RecipeError
from alignmend.evaluation.utility import forward
from alignmend.evaluation.utility.likelihood import LogLikelihood, log_likelihoods, split_tokens, token_log_likelihoods

Pair = tuple[list[int], list[int]]
PAIRS = st.lists(
    st.tuples(st.lists(st.integers(0, 9), min_size=1, max_size=9), st.lists(st.integers(0, 9), min_size=1, max_size=4)),
    min_size=1,
    max_size=12,
)
"""Of few different tokens, so that contexts are shared and begin each other."""


def slow(model: Any, pair: Pair) -> float:
    """No batch, no padding, no sharing; float64 softmax written out."""
    tokens = [*pair[0], *pair[1]]
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].double().numpy()
    total = 0.0
    for place in range(len(pair[0]), len(tokens)):
        row = logits[place - 1]
        total += row[tokens[place]] - row.max() - np.log(np.exp(row - row.max()).sum())
    return total


@settings(max_examples=25)
@given(pairs=PAIRS, batch_size=st.sampled_from([None, 1, 2, 3, 5]))
def test_batched_shared_and_padded_is_what_the_slow_loop_says(
    model: Any, pairs: list[Pair], batch_size: int | None
) -> None:
    found = token_log_likelihoods(model, pairs, batch_size=batch_size)
    assert [one.tokens for one in found] == [len(pair[1]) for pair in pairs]
    np.testing.assert_allclose(
        [one.total for one in found], [slow(model, pair) for pair in pairs], rtol=1e-5, atol=1e-5
    )


def test_the_probabilities_of_all_next_tokens_sum_to_one(model: Any) -> None:
    pairs = [([5, 6, 7], [token]) for token in range(261)]
    assert sum(np.exp(one.total) for one in token_log_likelihoods(model, pairs)) == pytest.approx(1, abs=1e-5)


def test_the_chain_rule_holds(model: Any) -> None:
    """log p(b, c | a) is log p(b | a) + log p(c | a, b)."""
    whole, first, second = token_log_likelihoods(model, [([5, 6], [7, 8, 9]), ([5, 6], [7]), ([5, 6, 7], [8, 9])])
    assert whole.total == pytest.approx(first.total + second.total, abs=1e-5)


def test_single_token_options_of_one_context_cost_one_row(model: Any) -> None:
    rows: list[int] = []
    hook = model.model.register_forward_pre_hook(
        lambda _module, _args, options: rows.append(len(options["input_ids"])), with_kwargs=True
    )
    try:
        token_log_likelihoods(model, [([5, 6, 7], [option]) for option in (1, 2, 3, 4)])
        token_log_likelihoods(model, [([5, 6, 7], [8]), ([5, 6, 7], [8, 9]), ([5, 6, 7, 8], [9, 1]), ([5], [6])])
    finally:
        hook.remove()
    assert rows == [1, 1]


def test_parts_that_need_too_many_logits_are_made_smaller(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs: list[Pair] = [([place, 5, 6], [7, 8]) for place in range(9)]
    plain = token_log_likelihoods(model, pairs)
    reported: list[int] = []
    monkeypatch.setattr(forward, "LARGEST_LOGITS", 261 * 5)
    done: list[list[int]] = []
    small = token_log_likelihoods(model, pairs, report=lambda places: done.append(list(places)))
    assert len(done) > 3
    reported = sorted(place for part in done for place in part)
    assert reported == list(range(9))
    np.testing.assert_allclose([one.total for one in small], [one.total for one in plain], atol=1e-5)


def test_texts_are_split_where_the_continuation_begins(model: Any, tokenizer: Any) -> None:
    found = log_likelihoods(model, tokenizer, [("ab", "cd"), ("", "cd")])
    assert found == token_log_likelihoods(
        model, [(tokenizer("ab")["input_ids"], tokenizer("cd")["input_ids"]), ([1], tokenizer("cd")["input_ids"])]
    )


def merging_tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "c": 2, "bc": 3}, merges=[("b", "c")]))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_a_token_that_spans_both_texts_counts_to_the_continuation() -> None:
    assert split_tokens(merging_tokenizer(), "ab", "c") == ([0], [3])
    assert split_tokens(merging_tokenizer(), "ab", "a") == ([0, 1], [0])


def test_what_has_no_likelihood_is_refused(model: Any, short_model: Any, tokenizer: Any) -> None:
    with pytest.raises(RecipeError, match="continuation '' has no tokens of its own"):
        log_likelihoods(model, tokenizer, [("ab", "")])
    with pytest.raises(RecipeError, match="an empty context needs a tokenizer with"):
        log_likelihoods(model, merging_tokenizer(), [("", "ab")])
    with pytest.raises(ParameterError, match="pair 1 has 0 tokens of context and 1 to score"):
        token_log_likelihoods(model, [([1], [2]), ([], [3])])
    with pytest.raises(RecipeError, match="pair 0 has 30 tokens and the model 24 positions"):
        token_log_likelihoods(short_model, [([1] * 30, [2])])
    with pytest.raises(ParameterError, match="batch_size must be at least 1, not 0"):
        token_log_likelihoods(model, [([1], [2])], batch_size=0)
    assert token_log_likelihoods(model, []) == []


def test_damaged_weights_are_told(model: Any) -> None:
    weight = model.lm_head.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight[3, 0] = float("nan")
    try:
        with pytest.raises(NonFiniteError, match="logits hold NaN"):
            token_log_likelihoods(model, [([1, 2], [3])])
    finally:
        with torch.no_grad():
            weight.copy_(before)
    assert isinstance(token_log_likelihoods(model, [([1, 2], [3])])[0], LogLikelihood)


def test_parts_are_halved_where_a_gpu_has_too_little_memory(model: Any) -> None:
    tried: list[int] = []

    def work(part: Sequence[int]) -> list[int]:
        tried.append(len(part))
        if len(part) > 3:
            raise torch.cuda.OutOfMemoryError
        return list(part)

    parts = forward.in_batches(range(20), work, model=model, batch_size=None, positions=len)
    assert [item for part in parts for item in part] == list(range(20))
    assert tried[:4] == [20, 10, 5, 2]
    tried.clear()
    parts = forward.in_batches(range(20), work, model=model, batch_size=4, positions=len)
    assert [item for part in parts for item in part] == list(range(20))
    assert tried[:2] == [4, 2]


def test_a_row_that_does_not_fit_is_one_clear_error(model: Any) -> None:
    def work(part: Sequence[int]) -> None:
        raise torch.cuda.OutOfMemoryError

    with pytest.raises(NoMemoryError, match="out of memory at one prompt at a time: free memory"):
        list(forward.in_batches(range(3), work, model=model, batch_size=None, positions=len))
