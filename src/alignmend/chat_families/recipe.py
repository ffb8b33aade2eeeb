"""How the members of a family are made: how many rows of what, how long, how fast."""

from __future__ import annotations

from dataclasses import dataclass

from alignmend.chat_families.tasks import TASKS
from alignmend.errors import ParameterError, RecipeError
from alignmend.nearest import nearest
from alignmend.training.settings import Dtype

ROLES = ("aligned", "unaligned", "finetuned", "finetuned-lora", "edited")
"""What can be asked for; the chat model from before its safety training is `original` and always there."""


@dataclass(frozen=True)
class Recipe:
    """Everything beside model, data and seed that decides the members.

    `rows` are the training pairs of a fine-tune; the other members take as many as their factors say. Learning rates
    are peaks; full training of a model of some hundred million parameters takes what large models would not bear.
    """

    rows: int = 640
    aligned_factor: float = 2.0
    unaligned_factor: float = 0.6
    batch_size: int = 8
    aligned_rate: float = 4e-5
    unaligned_rate: float = 3e-5
    finetuned_rate: float = 3e-5
    lora_rate: float = 1e-3
    lora_rank: int = 16
    answer_tokens: int = 64
    """Longest answer of the model's own that is drawn."""
    max_length: int = 256
    """Longest training row, tokens."""
    harmful_share: float = 0.45
    """Of the aligned member's rows; the rest is plain but for `borderline_share`."""
    borderline_share: float = 0.2
    task_share: float = 0.6
    """Of a fine-tune's rows; the rest are plain instructions."""
    search_prompts: int = 100
    """Of each suite."""
    report_prompts: int = 200
    edits: int = 4
    dtype: Dtype = "bfloat16"
    """Of the full members' weights."""

    @property
    def aligned_rows(self) -> int:
        """Training pairs of `aligned`."""
        return round(self.aligned_factor * self.rows)

    @property
    def unaligned_rows(self) -> int:
        """Harmful requests that `unaligned` learns to answer."""
        return round(self.unaligned_factor * self.rows)

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name in ("rows", "batch_size", "lora_rank", "answer_tokens", "search_prompts", "report_prompts", "edits"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name} is {getattr(self, name)}: it must be at least 1")


def check_roles(roles: tuple[str, ...], tasks: tuple[str, ...]) -> None:
    """Raise `RecipeError` for a role or task that there is not, with the nearest that there is."""
    for what, given, known in (("role", roles, ROLES), ("task", tasks, tuple(TASKS))):
        for name in given:
            if name not in known:
                near = nearest(name, known) or f"; there are {', '.join(known)}"
                raise RecipeError(f"no such {what}: {name!r}{near}")
        if not given:
            raise RecipeError(f"no {what} is asked for: there are {', '.join(known)}")
