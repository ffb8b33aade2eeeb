"""What rounding a candidate's weights loses in effect, and how the output is rounded.

Between an aligned and an unaligned model most bfloat16 weights differ by nothing or by one unit in the last place. Half
of such a step rounds away, and how much of its norm is lost says little. So the effect is measured: how far the next
token after each search prompt moves from the fine-tune's, and how far rounding moves it from the unrounded candidate's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignmend.algebra.values import Checkpoint
from alignmend.evaluation.generation import TransformersBackend
from alignmend.evaluation.records import Prompt
from alignmend.evaluation.utility.forward import in_batches, logits_from
from alignmend.execution.in_place import InPlace
from alignmend.execution.rounding import Rounding

LARGEST_LOSS = 0.02
"""Of a step's effect: with less of it lost, weights are rounded to nearest."""
_UNROUNDED = "float32"
_BETTER = 0.5
"""Stochastic rounding is taken where it loses at most so much of what rounding to nearest loses."""


@dataclass(frozen=True)
class RoundingEffect:
    """Mean KL divergence, in nats, of the first answer token's distribution."""

    step: float
    """From the unrounded candidate to the fine-tune."""
    lost: Mapping[Rounding, float]
    """From the unrounded candidate to the rounded one, by how it is rounded."""

    def share(self, rounding: Rounding) -> float:
        """What is lost, of the step's effect."""
        return self.lost[rounding] / self.step if self.step > 0 else 0.0

    @property
    def best(self) -> Rounding:
        """How to round: to nearest, unless that loses effect which stochastic rounding keeps."""
        nearest = self.share("nearest")
        if nearest <= LARGEST_LOSS or "stochastic" not in self.lost:
            return "nearest"
        return "stochastic" if self.share("stochastic") <= _BETTER * nearest else "nearest"

    def as_dict(self, used: Rounding) -> dict[str, Any]:
        """Plain JSON; `used` is how the output is rounded."""
        return {"used": used, "step_kl": self.step, "lost_kl": dict(self.lost)}

    def told(self, used: Rounding) -> str:
        """In words."""
        others = "".join(f", {mode} {self.share(mode):.1%}" for mode in self.lost if mode != used)
        return (
            f"rounded {'to nearest' if used == 'nearest' else 'stochastically'}: {self.share(used):.1%} of the step's "
            f"effect on first tokens is lost ({self.lost[used]:.2g} of {self.step:.2g} nats{others})"
        )


def measure_rounding(
    place: InPlace,
    backend: TransformersBackend,
    prompts: Sequence[Prompt],
    checkpoint: Checkpoint,
    *,
    dtype: str | None,
    seed: int,
    roundings: Sequence[Rounding],
) -> RoundingEffect:
    """What `checkpoint` loses when it is written in `dtype` (None: the target's own).

    `backend` runs the float32 model in `place`, which has its first weights again afterwards.
    """
    found = {}
    try:
        place.round_to(None)
        place.undo()
        before = _first_tokens(backend, prompts)
        place.round_to(_UNROUNDED)
        place.switch(checkpoint)
        exact = _first_tokens(backend, prompts)
        for rounding in roundings:
            place.round_to(dtype, rounding, seed)
            place.switch(checkpoint)
            found[rounding] = _divergence(exact, _first_tokens(backend, prompts))
    finally:
        place.round_to(dtype)
        place.undo()
    return RoundingEffect(_divergence(exact, before), found)


def _first_tokens(backend: TransformersBackend, prompts: Sequence[Prompt]) -> Any:
    """Log-probabilities (prompts, vocabulary) of the first answer token, in float32 on the processor."""
    import torch

    rows = []
    for prompt in prompts:
        text, special = backend.render(prompt.text)
        rows.append(list(backend.tokenizer(text, add_special_tokens=special)["input_ids"]))
    order = sorted(range(len(rows)), key=lambda place: -len(rows[place]))
    longest_first = [rows[place] for place in order]

    def work(part: Sequence[list[int]]) -> list[Any]:
        first = min(map(len, part)) - 1
        with torch.inference_mode():
            logits = logits_from(backend.model, part, first)
        return [one[len(row) - 1 - first].float().log_softmax(-1).cpu() for one, row in zip(logits, part, strict=True)]

    def positions(part: Sequence[list[int]]) -> int:
        return len(part) * (len(part[0]) - min(map(len, part)) + 1)

    parts = in_batches(longest_first, work, model=backend.model, batch_size=None, positions=positions)
    found = dict(zip(order, (one for part in parts for one in part), strict=True))
    return torch.stack([found[place] for place in range(len(rows))])


def _divergence(expected: Any, found: Any) -> float:
    """Mean over the rows of KL(expected || found), in float64."""
    import torch

    terms = torch.where(expected > -50, expected.double().exp() * (expected.double() - found.double()), 0.0)
    return float(terms.sum(-1).clamp(min=0).mean())
