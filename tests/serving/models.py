"""What this package writes for servers, of the family that ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tests.io.adapter_models import randomise

import alignmend as am
from alignmend.execution.adapter_output import save_adapter
from alignmend.organisms import Family

WIDTH = 128


def load(folder: Path) -> Any:
    """In float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def restored_model(family: Family, out: Path) -> Path:
    """RESTA on the fine-tune."""
    finetuned, aligned, unaligned = (am.open(family.members[name]) for name in ("finetuned", "aligned", "unaligned"))
    return am.save(finetuned + 0.425 * (aligned - unaligned), out).path


def random_vector(layers: int) -> am.SteeringVector:
    """A direction at every layer, a third as long as its activations or so."""
    generator = torch.Generator().manual_seed(4)
    return am.SteeringVector({layer: 0.3 * torch.randn(WIDTH, generator=generator) for layer in range(layers)})


def sum_of_adapters(base: Path, folder: Path) -> Path:
    """Of two adapters that change different modules at different ranks."""
    kinds = {"task": (8, ["q_proj", "v_proj"]), "harm": (3, ["v_proj", "up_proj"])}
    for seed, (name, (rank, modules)) in enumerate(kinds.items()):
        adapted = get_peft_model(load(base), LoraConfig(r=rank, lora_alpha=5, target_modules=modules))
        randomise(adapted, seed)
        adapted.save_pretrained(folder / name)
    root = am.open(base)
    task, harm = (am.open_adapter(folder / name, base=root) for name in kinds)
    return save_adapter(root + task + -0.5 * harm, folder / "sum").path
