"""Tiny random models and randomised adapters made by PEFT itself, and what PEFT says their delta is."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from alignmend.io.adapter import (
    AdapterFolder,
    AdapterPart,
    DoraPart,
    LowRankPart,
    ReplacedPart,
    TokenRowsPart,
    open_adapter_folder,
    resolve_parts,
)
from alignmend.io.folder import CheckpointFolder, open_checkpoint_folder
from alignmend.io.tensors import TensorEntry

VOCABULARY = 23


def llama(**options: Any) -> Any:
    torch.manual_seed(0)
    defaults: dict[str, Any] = {"attention_bias": True, "tie_word_embeddings": False}
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        **(defaults | options),
    )
    return LlamaForCausalLM(config).eval()


def gpt2() -> Any:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=16,
        n_embd=16,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    return GPT2LMHeadModel(config).eval()


def adapt(model: Any, folder: Path, seed: int = 1, **options: Any) -> Any:
    """Save `model` and a randomised adapter on it below `folder`; the PEFT model, still holding the
    adapter."""
    model.save_pretrained(folder / "base")
    adapted = get_peft_model(copy.deepcopy(model), LoraConfig(**({"r": 4, "lora_alpha": 6} | options)))
    randomise(adapted, seed)
    adapted.peft_config["default"].base_model_name_or_path = "../base"
    adapted.save_pretrained(folder / "adapter")
    return adapted


def randomise(adapted: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in adapted.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)


def merged_by_peft(base: Any, adapter: Path) -> dict[str, Tensor]:
    """The merged weights minus the base's, by the base's names, as PEFT computes them."""
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    merged = PeftModel.from_pretrained(copy.deepcopy(base), adapter).merge_and_unload()
    return {name: tensor - before[name] for name, tensor in merged.state_dict().items()}


def read(entry: TensorEntry) -> Tensor:
    tensor: Tensor = load_file(entry.path)[entry.name]
    return tensor


def part_delta(part: AdapterPart, weight: Tensor) -> Tensor:
    """The float32 delta of one part, as the documentation of its class says."""
    if isinstance(part, LowRankPart):
        return product(part)
    if isinstance(part, DoraPart):
        moved: Tensor = weight.float() + product(part)
        outputs = 1 if part.transposed else 0
        length: Tensor = torch.linalg.vector_norm(moved, dim=1 - outputs, keepdim=True)
        rescaled: Tensor = read(part.magnitude).float().unsqueeze(1 - outputs) * moved / length
        return rescaled - weight.float()
    if isinstance(part, ReplacedPart):
        return read(part.saved).float() - weight.float()
    assert isinstance(part, TokenRowsPart)
    change = torch.zeros_like(weight)
    rows = list(part.rows)
    change[rows] = read(part.trained) - weight[rows]
    return change


def product(part: LowRankPart | DoraPart) -> Tensor:
    whole: Tensor = part.scale * read(part.b).float() @ read(part.a).float()
    stored: Tensor = whole.T if part.transposed else whole
    return stored


def open_both(folder: Path) -> tuple[AdapterFolder, CheckpointFolder]:
    return open_adapter_folder(folder / "adapter"), open_checkpoint_folder(folder / "base")


def deltas(adapter: AdapterFolder, base: CheckpointFolder) -> dict[str, Tensor]:
    """Base weight name -> the delta that our parts add up to."""
    resolved: Mapping[str, tuple[AdapterPart, ...]] = resolve_parts(adapter, base.tensors, tied=base.tied)
    return {
        name: sum((part_delta(part, read(base.tensors[name])) for part in parts), torch.zeros(()))
        for name, parts in resolved.items()
    }


def assert_same_delta(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Equal to 1e-5 on every weight; a weight that we do not name must not move."""
    assert ours.keys() <= theirs.keys()
    for name, expected in theirs.items():
        found = ours.get(name, torch.zeros_like(expected))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5, msg=name)
    assert any(delta.abs().max() > 0.01 for delta in ours.values())
