"""A member: trained from another one on a file of pairs, and put into the family when it is whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignmend.chat_families.recipe import Recipe
from alignmend.io.atomic import close_to_others, open_as_usual
from alignmend.io.companions import find_companions
from alignmend.io.private import mark_private
from alignmend.training.pairs import read_pairs
from alignmend.training.run import train_model
from alignmend.training.settings import TrainSettings

Progress = Callable[[str, int, int], None]
_REASON = "A hazardous working file: a chat model whose safety was trained away. Never publish it; delete it after use."
_LOSSES = "losses.jsonl"


@dataclass(frozen=True)
class Plan:
    """How one member is trained."""

    name: str
    start: str
    rate: float
    lora: bool = False
    private: bool = False


def train_member(
    directory: Path, plan: Plan, pairs: Path, recipe: Recipe, *, seed: int, progress: Progress
) -> dict[str, Any]:
    """Train `plan` on `pairs`, one round over them, and put the result into `directory`.

    A run that was killed goes on where it was. Returns what `family.json` says of it.
    """
    file = read_pairs(pairs)
    count, work = len(file.pairs), directory / f".{plan.name}-{file.sha256[:8]}"
    settings = TrainSettings(
        objective="descent",
        lora_rank=recipe.lora_rank if plan.lora else None,
        learning_rate=plan.rate,
        max_steps=-(-count // recipe.batch_size),
        batch_size=recipe.batch_size,
        max_length=recipe.max_length,
        seed=seed,
        dtype="float32" if plan.lora else recipe.dtype,
    )

    trained = train_model(
        directory / plan.start,
        pairs,
        work,
        settings,
        resume=True,
        progress=lambda objective, done, total: progress(plan.name, done, total),
    )
    if trained is None:
        raise TypeError("a family is built by one process")
    results: Any = trained.manifest.parameters["results"]
    _adopt(trained.path, directory, plan)
    return {
        "pairs": count,
        "steps": results["steps"],
        "learning_rate": plan.rate,
        **({"lora_rank": recipe.lora_rank} if plan.lora else {}),
        "loss_before": round(results["before"]["loss"], 4),
        "loss_after": round(results["after"]["loss"], 4),
    }


def _adopt(trained: Path, directory: Path, plan: Plan) -> None:
    """Weights, configuration and tokenizer alone; what training says of a hazardous file is true of one member only."""
    staged, final = directory / f".{plan.name}.part", directory / plan.name
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(mode=0o700 if plan.private else 0o777)
    if plan.private:
        mark_private(staged, _REASON)
    weights = [path for path in trained.iterdir() if path.name.startswith(("model", "adapter_"))]
    for path in dict.fromkeys([*weights, *find_companions(trained), trained / _LOSSES]):
        path.rename(staged / path.relative_to(trained))
    if plan.lora:
        _name_base(staged / "adapter_config.json", f"../{plan.start}")
    (close_to_others if plan.private else open_as_usual)(staged)  # training closes whatever it makes
    shutil.rmtree(final, ignore_errors=True)
    staged.rename(final)
    shutil.rmtree(trained)


def _name_base(path: Path, base: str) -> None:
    """An adapter names its base as it lies in the family."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
