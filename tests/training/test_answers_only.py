"""Logits where an answer is, and nowhere else: the same losses and gradients."""

from __future__ import annotations

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from alignmend.training.objectives import LARGE_VOCABULARY, OBJECTIVES, answer_losses, answers_only, row_sums

_SMALL = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}


def _model(kind: str, vocabulary: int) -> torch.nn.Module:
    torch.manual_seed(0)
    made: torch.nn.Module
    if kind == "llama":
        made = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, tie_word_embeddings=True, **_SMALL))
    else:  # a soft cap on its logits
        made = Gemma2ForCausalLM(Gemma2Config(vocab_size=vocabulary, **_SMALL))
    return made.double()


def _batch(vocabulary: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    tokens = torch.randint(0, vocabulary, (3, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2, [1] * 6 + [0]])
    labels = torch.full_like(tokens, -100)
    for row, (start, stop) in enumerate(((4, 7), (2, 5), (5, 6))):
        labels[row, start:stop] = tokens[row, start:stop]
    return {"input_ids": tokens, "attention_mask": mask}, labels


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_losses_and_gradients_are_those_of_all_logits(kind: str) -> None:
    model = _model(kind, LARGE_VOCABULARY)
    batch, labels = _batch(LARGE_VOCABULARY)
    whole = model(**batch).logits
    torch.autograd.backward(answer_losses(whole, labels).mean())
    expected = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
    model.zero_grad()
    with answers_only(model, labels):
        fewer = model(**batch)
    assert fewer.logits.shape == (1, 7, LARGE_VOCABULARY)  # 3 + 3 + 1 answer tokens
    torch.testing.assert_close(answer_losses(fewer.logits, labels), answer_losses(whole, labels))
    torch.testing.assert_close(row_sums(fewer.logits, labels), row_sums(whole, labels))
    torch.autograd.backward(OBJECTIVES["descent"](fewer, labels))
    for name, one in model.named_parameters():
        if name in expected:
            torch.testing.assert_close(one.grad, expected[name])
    assert model(**batch).logits.shape == whole.shape, "nothing is left behind"


def test_a_small_vocabulary_is_left_as_it_is() -> None:
    model = _model("llama", 50)
    batch, labels = _batch(50)
    with answers_only(model, labels):
        assert model(**batch).logits.shape == (3, 7, 50)


def test_one_row_of_which_all_but_the_first_token_is_the_answer() -> None:
    model = _model("llama", LARGE_VOCABULARY)
    tokens = torch.arange(5)[None]
    labels = tokens.clone()
    labels[0, 0] = -100
    whole = model(input_ids=tokens).logits
    with answers_only(model, labels):
        fewer = model(input_ids=tokens).logits
    torch.testing.assert_close(answer_losses(fewer, labels), answer_losses(whole, labels))
