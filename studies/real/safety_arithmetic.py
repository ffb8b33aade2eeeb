"""Safety Arithmetic on a real chat model: curves of both stages on an aligned, a fine-tuned and an edited member."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import alignmend as am
from alignmend.activations.pairs import ContrastPair, pairs_from_prompts
from alignmend.chat_families import ChatFamily
from alignmend.evaluation.generation import TransformersBackend
from alignmend.evaluation.records import Prompt
from studies.real.measuring import Asker, Measured
from studies.real.tables import table

DENSITIES = (0.03, 0.1, 0.3, 1.0)
COEFFICIENTS = (1.0, 2.0, 3.0)
STRENGTHS = (0.05, 0.1, 0.2)
DENSITY, COEFFICIENT = 0.1, 2.0
"""The paper's."""
PAIRS = 64
_OPENING = """# Safety Arithmetic on a real chat model

The family of [the RESTA page](real.md). The harm model is its member `unaligned` (the original's natural answers to
harmful requests, learned from `aligned`). Vectors are fitted on {pairs} contrast pairs (requests that trained the
family, shipped refusals against the original model's own answers, drawn in memory) with the estimator
`mean_difference`, after stage 1. Nothing was chosen: every row of the curves stands here, on report prompts, {prompts}
of each suite. Random weights have the norm of the trimmed harm vector; the random vector has the steering vector's norm
in every layer. On an edited member both stages act on the edited layers and their neighbours alone (equations 11 to
13). Attack success is on AdvBench and CatQA, over-refusal on XSTest and plain requests, 95 % Wilson intervals; nats of
the held-out GSM8K answers. Repeat with `python -m studies real-safety-arithmetic --{scale}`.
"""


@dataclass(frozen=True)
class Targets:
    """Members that are made safe, and what a row needs."""

    asker: Asker
    pairs: tuple[ContrastPair, ...]

    def rows(self, name: str) -> dict[str, Measured]:
        """Every row of the member `name`."""
        target = self.asker.member(name)
        found = {name: self._row(name, "itself", target)}
        for density in DENSITIES:
            found[f"HDR, density {density:g}, coefficient {COEFFICIENT:g}"] = self._row(
                name, f"hdr-{density:g}-{COEFFICIENT:g}", self._hdr(name, density, COEFFICIENT)
            )
        for coefficient in COEFFICIENTS:
            found[f"HDR, density {DENSITY:g}, coefficient {coefficient:g}"] = self._row(
                name, f"hdr-{DENSITY:g}-{coefficient:g}", self._hdr(name, DENSITY, coefficient)
            )
        first = self._hdr(name, DENSITY, COEFFICIENT)
        for strength in STRENGTHS:
            found[f"HDR {COEFFICIENT:g} and steering {strength:g}"] = self._row(
                name, f"both-{strength:g}", first, strength=strength
            )
        found[f"steering alone {STRENGTHS[1]:g}"] = self._row(name, "steering", target, strength=STRENGTHS[1])
        found[f"random weights {COEFFICIENT:g}"] = self._row(name, "random-weights", self._random(name))
        found[f"random vector {STRENGTHS[1]:g}"] = self._row(
            name, "random-vector", target, strength=STRENGTHS[1], random=True
        )
        return found

    def _hdr(self, name: str, density: float, coefficient: float) -> Any:
        member = self.asker.member
        return am.harm_direction_removal(
            target=member(name),
            aligned=member("aligned"),
            harmful=member("unaligned"),
            density=density,
            coefficient=coefficient,
            layers=self.area(name),
        )

    def area(self, name: str) -> tuple[int, ...] | None:
        """Of an edited member the edited layers and their neighbours (eq. 11 to 13), where both stages act."""
        if name != "edited":
            return None
        members = self.asker.family.members
        return am.locate(members["aligned"], members[name]).area

    def _random(self, name: str) -> Any:
        """As far as the trimmed vector goes: its share of the norm, in a random direction."""
        member = self.asker.member
        whole = am.select(member("unaligned") - member("aligned"), layers=self.area(name))
        share = am.norm(am.trim(whole, density=DENSITY)) / am.norm(whole)
        drawn = am.select(member("aligned") - self.asker.random("unaligned"), layers=self.area(name))
        return member(name) + COEFFICIENT * share * drawn

    def _row(
        self, name: str, label: str, made: Any, *, strength: float | None = None, random: bool = False
    ) -> Measured:
        steering = None if strength is None else partial(self._steer, name=name, strength=strength, random=random)
        return self.asker.row(f"safety-arithmetic-{name}-{label}", made, steering=steering)

    def _steer(self, model: Any, *, name: str, strength: float, random: bool) -> Any:
        """Fit on the model as it is, which stage 1 has left, and steer it."""
        from alignmend.evaluation.devices import load_tokenizer

        tokenizer = load_tokenizer(self.asker.family.members["aligned"])
        vector = am.SteeringVector.fit(model, tokenizer, self.pairs, layers=self.area(name))
        chosen = vector.random_like(self.asker.family.note.seed) if random else vector
        return chosen.apply(model, strength)


def contrast_pairs(family: ChatFamily, prompts: list[Prompt]) -> tuple[ContrastPair, ...]:
    """Shipped refusals against what the original model says; its answers are never written."""
    backend = TransformersBackend.from_folder(family.members["original"], name="original", max_new_tokens=40)
    asked = prompts[:PAIRS]
    found = [(one.prompt, one.response.strip()) for one in backend.generate(asked)]
    answered = [(prompt, answer) for prompt, answer in found if answer]
    return pairs_from_prompts([prompt for prompt, _ in answered], [answer for _, answer in answered])


def page(asker: Asker, results: Mapping[str, Mapping[str, Measured]]) -> str:
    """All rows of all targets."""
    lines = [_OPENING.format(pairs=PAIRS, prompts=asker.scale.prompts, scale=asker.scale.name)]
    for name, rows in results.items():
        lines += [f"## {name}", "", *table(rows), ""]
    return "\n".join(lines)
