"""How importance scores are taken, and the defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from alignmend.algebra.names import KINDS, Kind
from alignmend.errors import ParameterError

Method = Literal["snip", "wanda"]
Weights = Literal["patched", "base", "patch"]
Tokens = Literal["answer", "question"]
Order = Literal["absolute-then-mean", "mean-then-absolute"]
ScoreDtype = Literal["float32", "bfloat16"]
_CHOICES = {"method": Method, "weights": Weights, "tokens": Tokens, "order": Order, "dtype": ScoreDtype}


@dataclass(frozen=True)
class ScoreSettings:
    """Everything beside the models and the pairs that decides the scores.

    `samples` pairs are drawn by `seed` where the file has more. `layers_at_once` decoder layers are scored in one pass
    over them; `None` is all. `kinds` empty means the matrices of linear layers inside decoder layers; otherwise every
    parameter of these kinds. Raises `ParameterError` for what cannot be meant.
    """

    method: Method = "snip"
    weights: Weights = "patched"
    tokens: Tokens = "answer"
    order: Order = "absolute-then-mean"
    samples: int = 128
    batch_size: int = 1
    layers_at_once: int | None = None
    kinds: tuple[Kind, ...] = ()
    max_length: int = 1024
    template: str = "auto"
    seed: int = 0
    dtype: ScoreDtype = "float32"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) not in get_args(choices):
                raise ParameterError(f"{name} is {value!r}", advice=f"choose from {', '.join(get_args(choices))}")
        for name in ("samples", "batch_size", "layers_at_once"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ParameterError(f"{name} is {value}: it must be at least 1")
        if self.max_length < 2:
            raise ParameterError(f"max_length is {self.max_length}: a row has at least 2 tokens")
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            raise ParameterError(f"unknown kind {unknown[0]!r}", advice=f"choose from {', '.join(KINDS)}")
        if self.method == "wanda" and (self.kinds or self.order != "absolute-then-mean"):
            raise ParameterError(
                "wanda scores the matrices of linear layers by their inputs", advice="leave out kinds and order"
            )
