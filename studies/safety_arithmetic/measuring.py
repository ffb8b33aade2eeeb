"""One measured row: a target, what is done to its weights and activations, and what it then answers."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import alignmend as am
from alignmend.algebra.operations import select, trim
from alignmend.algebra.values import Checkpoint
from alignmend.evaluation.generation import Steer
from alignmend.restore.control import write_control
from studies.rows import Counts, Row, Split, measure


@dataclass(frozen=True)
class Change:
    """What is done: `coefficient` times the harm vector at `density` subtracted, a vector of `steering` applied.

    `random` replaces the harm vector, the steering vector, or both, by random directions of the same norms.
    """

    coefficient: float = 0.0
    density: float = 0.1
    steering: float = 0.0
    random: Literal["", "weights", "vector", "both"] = ""

    @property
    def label(self) -> str:
        """A file name."""
        return f"c{self.coefficient:g}-d{self.density:g}-s{self.steering:g}{'-' + self.random if self.random else ''}"


@dataclass
class Scenario:
    """A target with everything that its rows need; rows are kept in `work` and found again."""

    name: str
    seed: int
    target: Checkpoint
    aligned: Checkpoint
    harmful: Checkpoint
    suites: Path
    pairs: tuple[am.ContrastPair, ...]
    work: Path
    layers: tuple[int, ...] = ()
    _loaded: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def reference(self) -> Scenario:
        """The aligned model of this scenario as a target of its own."""
        return replace(self, target=self.aligned, work=self.work.with_name(f"{self.work.name}-aligned"), _loaded={})

    def row(self, change: Change, split: Split) -> Row:
        """Measured, or found."""
        path = self.work / split / f"{change.label}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"change": asdict(change), "counts": self._measure(change, split)}))
        return Row(json.loads(path.read_text())["counts"])

    def _measure(self, change: Change, split: Split) -> Counts:
        model, tokenizer = self._model(change)
        steering = self._steering(change, model, tokenizer)
        return measure(model, tokenizer, self.suites, split, name=change.label, steering=steering)

    def _steering(self, change: Change, model: Any, tokenizer: Any) -> Steer | None:
        if change.steering == 0:
            return None
        vector = am.SteeringVector.fit(model, tokenizer, self.pairs, layers=self.layers or None)
        if change.random in ("vector", "both"):
            vector = vector.random_like(self.seed)
        return lambda model: vector.apply(model, change.steering)

    def _model(self, change: Change) -> tuple[Any, Any]:
        """The model with its changed weights; the last one is kept, as several strengths follow one another."""
        weights = Change(
            change.coefficient, change.density, 0.0, "weights" if change.random in ("weights", "both") else ""
        )
        if weights.label not in self._loaded:
            place = self.work / "candidate"
            shutil.rmtree(place, ignore_errors=True)
            am.save(self._weights(weights), place, hash=False)
            self._loaded = {weights.label: am.load(place)}
        return self._loaded[weights.label]

    def _weights(self, change: Change) -> Checkpoint:
        if change.coefficient == 0 or change.density == 0:
            return self.target
        if change.random:
            return self.target - change.coefficient * (self._random(change.density) - self.aligned)
        return am.harm_direction_removal(
            target=self.target,
            aligned=self.aligned,
            harmful=self.harmful,
            coefficient=change.coefficient,
            density=change.density,
            layers=self.layers or None,
        )

    def _random(self, density: float) -> Checkpoint:
        """The aligned model moved by a random vector with the trimmed harm vector's norm in each tensor."""
        place = self.work / f"random-{density:g}"
        if place.exists():
            return am.open(place)
        harm = self.harmful - self.aligned
        kept = trim(select(harm, layers=self.layers) if self.layers else harm, density=density)
        return write_control(self.aligned, self.aligned + kept, place, seed=self.seed)
