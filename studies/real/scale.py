"""How much is built and asked: quick for an afternoon's check, full for the page that is committed."""

from __future__ import annotations

from dataclasses import dataclass

from alignmend.chat_families import Recipe


@dataclass(frozen=True)
class Scale:
    """What the study does."""

    name: str
    recipe: Recipe
    roles: tuple[str, ...]
    tasks: tuple[str, ...]
    against: tuple[str, ...]
    """Members that the safety vector is taken against."""
    trials: int
    search_prompts: int
    suites: tuple[str, ...]
    """Suites that a row is asked."""
    prompts: int
    """Report prompts of each."""
    tokens: int
    """Longest answer."""
    task_prompts: int
    """Prompts with a known answer that a row is asked; 0 leaves accuracy out."""
    task_tokens: int = 256


QUICK = Scale(
    "quick",
    Recipe(rows=320, aligned_factor=2.5, search_prompts=48, report_prompts=60),
    roles=("aligned", "finetuned"),
    tasks=("gsm8k",),
    against=("original",),
    trials=6,
    search_prompts=24,
    suites=("harmful", "harmful-categories", "borderline", "benign"),
    prompts=36,
    tokens=40,
    task_prompts=0,
)
FULL = Scale(
    "full",
    Recipe(),
    roles=("aligned", "unaligned", "finetuned", "finetuned-lora"),
    tasks=("gsm8k", "belle", "mmlu-hi", "mbpp"),
    against=("original", "unaligned"),
    trials=24,
    search_prompts=48,
    suites=("harmful", "harmful-categories", "harmful-zh", "harmful-vi", "borderline", "benign"),
    prompts=200,
    tokens=64,
    task_prompts=100,
)
SCALES = {scale.name: scale for scale in (QUICK, FULL)}
