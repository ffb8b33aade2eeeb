"""How input moments are taken, and the defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from alignmend.errors import ParameterError

Positions = Literal["last", "all"]


@dataclass(frozen=True)
class MomentSettings:
    """Everything beside the model and the texts that decides the moments.

    `positions` `last` counts the prompt's last token and the first `answer_tokens` of the answer, `all` every token.
    `layers_at_once` decoder layers are seen in one pass over the texts; `None` is all. Answers that the model gives
    itself have `own_tokens` tokens at most. Raises `ParameterError` for what cannot be meant.
    """

    positions: Positions = "last"
    answer_tokens: int = 4
    own_tokens: int = 32
    batch_size: int = 8
    layers_at_once: int | None = None
    max_length: int = 1024
    template: str = "auto"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.positions not in get_args(Positions):
            raise ParameterError(
                f"positions is {self.positions!r}", advice=f"choose from {', '.join(get_args(Positions))}"
            )
        for name in ("own_tokens", "batch_size", "layers_at_once"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ParameterError(f"{name} is {value}: it must be at least 1")
        if self.answer_tokens < 0:
            raise ParameterError(f"answer_tokens is {self.answer_tokens}: it must be at least 0")
        if self.max_length < 2:
            raise ParameterError(f"max_length is {self.max_length}: a row has at least 2 tokens")

    @property
    def answer_limit(self) -> int:
        """How many tokens of an answer that the model gives itself are looked at."""
        return min(self.own_tokens, self.answer_tokens) if self.positions == "last" else self.own_tokens
