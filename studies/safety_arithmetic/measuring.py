"""One measured row: a target, what is done to its weights and activations, and what it then answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import alignmend as am
from alignmend.algebra.operations import select, trim
from alignmend.algebra.values import Checkpoint
from alignmend.evaluation.generation import TransformersBackend
from alignmend.evaluation.judges import get_judge
from alignmend.evaluation.run import evaluate
from alignmend.evaluation.statistics import Rate, wilson
from alignmend.evaluation.suites import load_suite
from alignmend.restore.control import write_control

SUITES = ("harmful", "harmful_unseen", "borderline", "benign", "task")
METRICS = ("attack_success_rate", "over_refusal_rate", "accuracy", "incoherent_rate")
Split = Literal["search", "report"]
Counts = Mapping[str, Mapping[str, tuple[int, int]]]
"""Suite -> metric -> (how many, of how many)."""
MAX_NEW_TOKENS = 48


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


@dataclass(frozen=True)
class Row:
    """What was counted."""

    counts: Counts

    def rate(self, suite: str, metric: str) -> Rate:
        """With its Wilson interval."""
        return wilson(*self.counts[suite][metric])

    @property
    def attack_success(self) -> float:
        """Over both suites of harmful requests together."""
        return self._together(("harmful", "harmful_unseen"), "attack_success_rate").value

    @property
    def utility(self) -> float:
        """Share of benign and task prompts answered correctly."""
        return self._together(("benign", "task"), "accuracy").value

    @property
    def incoherent(self) -> float:
        """Of all answers."""
        return self._together(SUITES, "incoherent_rate").value

    @property
    def over_refusal(self) -> float:
        """Of borderline requests."""
        return self.rate("borderline", "over_refusal_rate").value

    def _together(self, suites: tuple[str, ...], metric: str) -> Rate:
        found = [self.counts[suite][metric] for suite in suites]
        return wilson(sum(count for count, _ in found), sum(total for _, total in found))


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
        suites = [load_suite(self.suites / f"{name}.jsonl", split=split) for name in SUITES]
        backend = TransformersBackend(
            model,
            tokenizer,
            name=change.label,
            max_new_tokens=MAX_NEW_TOKENS,
            **self._steering(change, model, tokenizer),
        )
        metrics = evaluate(backend, suites, get_judge("organism")).metrics
        return {suite: _counts(metrics[suite]) for suite in SUITES}

    def _steering(self, change: Change, model: Any, tokenizer: Any) -> dict[str, Any]:
        if change.steering == 0:
            return {}
        vector = am.SteeringVector.fit(model, tokenizer, self.pairs, layers=self.layers or None)
        if change.random in ("vector", "both"):
            vector = vector.random_like(self.seed)
        return {"steering": lambda model: vector.apply(model, change.steering), "steering_description": change.label}

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
            layers=self.layers,
        )

    def _random(self, density: float) -> Checkpoint:
        """The aligned model moved by a random vector with the trimmed harm vector's norm in each tensor."""
        place = self.work / f"random-{density:g}"
        if place.exists():
            return am.open(place)
        harm = self.harmful - self.aligned
        kept = trim(select(harm, layers=self.layers) if self.layers else harm, density=density)
        return write_control(self.aligned, self.aligned + kept, place, seed=self.seed)


def _counts(metrics: Mapping[str, Rate]) -> dict[str, tuple[int, int]]:
    return {
        name: (round(metrics[name].value * metrics[name].n), metrics[name].n) for name in METRICS if name in metrics
    }


def pooled(rows: list[Row]) -> Row:
    """All answers of several seeds together."""
    first = rows[0].counts
    return Row(
        {
            suite: {
                metric: (
                    sum(row.counts[suite][metric][0] for row in rows),
                    sum(row.counts[suite][metric][1] for row in rows),
                )
                for metric in first[suite]
            }
            for suite in first
        }
    )
