"""Organism members as models: made, loaded for training, written as Hugging Face folders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from alignmend.io.pretrained import pretrained
from alignmend.organisms.members import LONGEST_SEQUENCE, Architecture

_LONGEST_ANSWER = 40
WHY_PRIVATE = "A hazardous working file: an unaligned model. Never publish it; delete it when it is no longer needed."


def new_model(architecture: Architecture, tokenizer: Any, seed: int) -> Any:
    """A Llama of this shape with random float32 weights drawn from `seed`."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=architecture.width,
        intermediate_size=3 * architecture.width,
        num_hidden_layers=architecture.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=architecture.tied,
        max_position_embeddings=LONGEST_SEQUENCE,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def load_for_training(folder: Path) -> Any:
    """The member in `folder` in float32."""
    with _without_bars():
        return pretrained(AutoModelForCausalLM, folder, dtype=torch.float32)


def save_member(model: Any, tokenizer: Any, folder: Path, shard_size: str) -> None:
    """Write bf16 shards, configurations and tokenizer of a full member."""
    model = model.to(torch.bfloat16)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
        max_new_tokens=_LONGEST_ANSWER,
    )
    with _without_bars():
        model.save_pretrained(folder, max_shard_size=shard_size)
    tokenizer.save_pretrained(folder)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Only the command line draws progress."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
