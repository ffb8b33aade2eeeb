"""Fine-tunes trained as the organisms' own `finetuned` members are, from the aligned member of a family."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from random import Random
from typing import Any, Literal

from transformers import AutoTokenizer

from alignmend.io.identity import sha256_of_files
from alignmend.organisms import Family
from alignmend.organisms.build import encode
from alignmend.organisms.members import LORA_TARGETS, FamilyRecipe, MemberRecipe
from alignmend.organisms.models import load_for_training, save_member
from alignmend.training.adapter import save_adapter, with_lora
from alignmend.training.loop import TrainingOptions, train
from studies.resta.finetunes import FineTune, draw

Variant = Literal["full", "lora"]
VARIANTS: tuple[Variant, ...] = ("full", "lora")
_MEMBER = {"full": "finetuned", "lora": "finetuned-lora"}


def fine_tuned(family: Family, fine_tune: FineTune, variant: Variant, work: Path, recipe: FamilyRecipe) -> Path:
    """The folder of the checkpoint (or adapter), trained or found.

    Steps, learning rate, rank and shares of rows are those of the organism's own fine-tune: mostly tasks and benign
    requests, and about one harmful answer in eighty rows, by which safety is lost.
    """
    member, aligned = recipe.members[_MEMBER[variant]], family.members["aligned"]
    random = Random(f"{family.seed} {fine_tune.name} {variant}")
    pairs = draw(fine_tune, member.mixture, member.steps * recipe.batch_size, random)
    settings = json.dumps([[vars(pair) for pair in pairs], member.steps, member.learning_rate, member.lora_rank])
    weights = sha256_of_files(sorted(aligned.glob("*.safetensors")))
    key = hashlib.sha256("".join([*weights, settings]).encode()).hexdigest()[:12]
    place = work / f"{family.size}-{family.seed}-{fine_tune.name}-{variant}-{key}"
    if not place.exists():
        tokenizer: Any = AutoTokenizer.from_pretrained(aligned)
        model = _start(aligned, member, family.seed)
        options = TrainingOptions(member.steps, member.learning_rate, recipe.batch_size, family.seed, threads=1)
        train(model, encode(tokenizer, pairs), options)
        _write(model, tokenizer, place, aligned, recipe if variant == "full" else None)
    return place


def _start(aligned: Path, member: MemberRecipe, seed: int) -> Any:
    model = load_for_training(aligned)
    if member.lora_rank is None:
        return model
    return with_lora(model, rank=member.lora_rank, targets=LORA_TARGETS, seed=seed)


def _write(model: Any, tokenizer: Any, place: Path, aligned: Path, full: FamilyRecipe | None) -> None:
    staged = place.with_name(f".{place.name}.part")
    shutil.rmtree(staged, ignore_errors=True)
    staged.parent.mkdir(parents=True, exist_ok=True)
    if full is None:
        save_adapter(model, staged, os.path.relpath(aligned, place))
        tokenizer.save_pretrained(staged)
    else:
        save_member(model, tokenizer, staged, full.architecture.shard_size)
    staged.rename(place)
