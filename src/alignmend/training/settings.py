"""How a harm model or a patch is trained, and the defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from alignmend.errors import ParameterError

Dtype = Literal["bfloat16", "float16", "float32"]
Compute = Literal["auto", "float32", "bfloat16"]
ObjectiveName = Literal["descent", "ascent", "ascent-retain", "npo"]
FULL_LEARNING_RATE = 1e-5
LORA_LEARNING_RATE = 1e-4
STOP_LOSS = 10.0
"""Nats per answer token at which ascent ends; a model that guesses evenly among 32,000 tokens is at 10.4."""
WARM_UP_SHARE = 0.1
ALL_LINEAR = "all-linear"
"""PEFT's word for every linear layer but the output head."""


@dataclass(frozen=True)
class TrainSettings:
    """Everything beside model and pairs that decides the result.

    `lora_rank` `None` trains all weights. `learning_rate` and `stop_loss` `None` are the defaults above. A step takes
    `batch_size` x `gradient_accumulation` pairs on each device; there are `epochs` rounds over the pairs, or
    `max_steps` steps. Raises `ParameterError` for numbers out of range.
    """

    objective: ObjectiveName
    lora_rank: int | None = None
    lora_targets: tuple[str, ...] = ()
    """Module names; empty for all linear layers but the output head."""
    learning_rate: float | None = None
    epochs: float = 3.0
    max_steps: int | None = None
    batch_size: int = 8
    gradient_accumulation: int = 1
    max_length: int = 1024
    clip: float = 1.0
    """Largest norm of a step's gradient."""
    stop_loss: float | None = None
    retain_weight: float = 1.0
    """Of the retained answers in `ascent-retain`."""
    beta: float = 0.1
    """Of `npo`: the smaller, the nearer to an ascent."""
    template: str = "auto"
    seed: int = 0
    dtype: Dtype = "float32"
    """Of the checkpoint that is written; an adapter is always float32."""
    gradient_checkpointing: bool = False
    compute: Compute = "auto"
    """In which numbers passes run; weights that are trained are float32. `auto` is bfloat16 where it is faster."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        counts = ("lora_rank", "max_steps", "batch_size", "gradient_accumulation")
        for name in counts:
            if (value := getattr(self, name)) is not None and value < 1:
                raise ParameterError(f"is {value}: it must be at least 1", option=name)
        for name in ("learning_rate", "epochs", "clip", "stop_loss", "retain_weight", "beta"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ParameterError(f"is {value}: it must be a number above 0", option=name)
        if self.max_length < 2:
            raise ParameterError(f"is {self.max_length}: a row has at least 2 tokens", option="max_length")
        if self.stop_loss is not None and self.objective == "descent":
            raise ParameterError("bounds an ascent", advice="leave it out of a descent", option="stop_loss")
        if self.lora_targets and self.lora_rank is None:
            raise ParameterError("need a lora_rank: full training changes every weight", option="lora_targets")
        if self.dtype != "float32" and self.lora_rank is not None:
            raise ParameterError(f"{self.dtype} is for checkpoints: an adapter is written in float32", option="dtype")

    @property
    def rate(self) -> float:
        """The peak learning rate."""
        default = FULL_LEARNING_RATE if self.lora_rank is None else LORA_LEARNING_RATE
        return default if self.learning_rate is None else self.learning_rate

    @property
    def bound(self) -> float | None:
        """The loss at which a run ends: by default for ascents, which have no bottom; of `npo` only if given."""
        if self.objective in ("descent", "npo"):
            return self.stop_loss
        return STOP_LOSS if self.stop_loss is None else self.stop_loss
