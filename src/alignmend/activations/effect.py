"""How much a steering vector changes what a model would say next, and how far a stand-in for it is from it.

Distances are Kullback-Leibler divergences between next-token distributions, in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignmend.activations.steering import Steering
from alignmend.errors import ParameterError

if TYPE_CHECKING:
    import torch

    from alignmend.activations.vector import SteeringVector

Served = tuple[Any, Callable[[], AbstractContextManager[object]]]
"""A model, and the context in which it answers."""
INERT = 1e-3
"""Mean first-token divergence from the unsteered model below which a vector does next to nothing (nats)."""
NEUTRAL = (
    "What is the capital of Portugal?",
    "Write a short poem about rain.",
    "How do I cook rice so that it does not stick?",
    "Explain why the sky looks blue.",
    "Name three planets and say which is the largest.",
    "Give me a plan for learning to play the piano.",
    "What should I pack for a week in the mountains?",
    "Summarise how a bicycle keeps its balance.",
    "Write a polite letter to a landlord about a broken window.",
    "What is the difference between a lake and a sea?",
    "How many minutes are there in a day?",
    "Suggest a name for a small bakery.",
)
"""Prompts for where the user has none."""


@dataclass(frozen=True)
class Divergence:
    """One model from another over `prompts` prompts: means in nats, and the largest difference of any logit."""

    first_token: float
    every_token: float
    largest_logit: float
    prompts: int

    def words(self) -> str:
        """For notes and the screen."""
        kl = f"first-token KL {self.first_token:.3g} nats, {self.every_token:.3g} over all tokens"
        return f"{kl}, logits within {self.largest_logit:.2g} ({self.prompts} prompts)"


@dataclass(frozen=True)
class Fidelity:
    """What an export changes: its `difference` from the form that was asked for, and that form's `effect`."""

    difference: Divergence
    effect: Divergence

    def notes(self) -> tuple[str, ...]:
        """What a user must know."""
        told = (
            f"measured against the hooked model in the form that was asked for: {self.difference.words()}",
            f"that form against the unsteered model: first-token KL {self.effect.first_token:.3g} nats",
        )
        warning = inert_warning(self.effect)
        return told if warning is None else (*told, warning)


def effect(
    model: Any,
    tokenizer: Any,
    vector: SteeringVector,
    how: Steering,
    prompts: Sequence[str] = NEUTRAL,
    *,
    batch_size: int = 8,
) -> Divergence:
    """KL(steered || unsteered) of `model` after and within `prompts`; below `INERT` the vector does next to nothing.

    Raises `ParameterError` without prompts, and for `how.tokens` `generated`, which leaves prompts alone.
    """
    _acts_on_prompts(how)
    return divergence(
        (model, lambda: vector.steer(model, how)), (model, nullcontext), tokenizer, prompts, batch_size=batch_size
    )


def inert_warning(found: Divergence) -> str | None:
    """A line where `effect` found next to nothing."""
    if found.first_token >= INERT:
        return None
    return (
        f"inert: the mean first-token KL to the unsteered model is {found.first_token:.2g} nats, below {INERT:g}; "
        "raise the coefficient, or check site and layers"
    )


def fidelity(
    model: Any,
    tokenizer: Any,
    asked: tuple[SteeringVector, Steering],
    other: Served,
    prompts: Sequence[str] = NEUTRAL,
    *,
    batch_size: int = 8,
) -> Fidelity:
    """KL(asked || other): the hooked `model` in the `asked` form, beside what `other` serves in its place."""
    vector, how = asked
    _acts_on_prompts(how)
    hooked = (model, lambda: vector.steer(model, how))
    difference = divergence(hooked, other, tokenizer, prompts, batch_size=batch_size)
    return Fidelity(difference, effect(model, tokenizer, vector, how, prompts, batch_size=batch_size))


def divergence(
    one: Served, other: Served, tokenizer: Any, prompts: Sequence[str], *, batch_size: int = 8
) -> Divergence:
    """KL(one || other) at the token after each prompt and over all its tokens, each prompt and each token alike."""
    import torch

    if not prompts:
        raise ParameterError("measuring what a vector changes needs at least one prompt")
    texts = sorted((_tokens(tokenizer, prompt) for prompt in prompts), key=len)
    last: list[torch.Tensor] = []
    every: list[torch.Tensor] = []
    largest = 0.0
    for start in range(0, len(texts), batch_size):
        batch = texts[start : start + batch_size]
        logits = [_logits(served, batch) for served in (one, other)]
        for row, text in enumerate(batch):
            mine, theirs = (each[row, : len(text)].float() for each in logits)
            kl = _kl(mine, theirs)
            last.append(kl[-1:])
            every.append(kl)
            largest = max(largest, float((mine - theirs).abs().max()))
    return Divergence(float(torch.cat(last).mean()), float(torch.cat(every).mean()), largest, len(prompts))


def _kl(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Per row, in float64, where logits that differ by rounding alone give nothing below zero worth naming."""
    p, q = one.double().log_softmax(-1), other.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).clamp_min(0)


def _logits(served: Served, texts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Right-padded: a causal model's real tokens never see what follows them."""
    import torch

    model, steered = served
    width = max(map(len, texts))
    device = next(model.parameters()).device
    ids = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], device=device)
    mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts], device=device)
    with torch.inference_mode(), steered():
        logits: torch.Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return logits


def _tokens(tokenizer: Any, prompt: str) -> list[int]:
    if not getattr(tokenizer, "chat_template", None):
        return list(tokenizer(prompt)["input_ids"])
    message = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _acts_on_prompts(how: Steering) -> None:
    if how.tokens == "generated":
        raise ParameterError(
            "steering of generated tokens only leaves prompts and the first token as they are: nothing to measure there"
        )
