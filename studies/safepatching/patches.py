"""The two patches of a family, their scores, and what merging them in some way answers."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import alignmend as am
from alignmend.algebra.values import Checkpoint
from alignmend.io.identity import sha256_of_files
from alignmend.training.run import train_model
from alignmend.training.score_settings import ScoreSettings
from alignmend.training.scoring import write_scores
from alignmend.training.settings import TrainSettings
from studies.rows import Counts, Row, Split, measure

TRAINED = "q_proj"
"""The layers that the patches change, with LoRA: where the queries look tells kinds of requests apart, while patches
of all weights mostly raise or lower refusal of everything at once."""
RANK = 16
ASCENT = TrainSettings(
    objective="ascent",
    lora_rank=RANK,
    lora_targets=(TRAINED,),
    learning_rate=4e-3,
    max_steps=24,
    batch_size=24,
    stop_loss=6.0,
)
DESCENT = TrainSettings(
    objective="descent", lora_rank=RANK, lora_targets=(TRAINED,), learning_rate=4e-3, max_steps=24, batch_size=24
)
"""Of both patches, on 240 harmful pairs."""
SCORES = ScoreSettings(samples=128, weights="patch")
"""Of the entries of the patches: of whole weights, both patches' scores are much alike."""
Number = float | int | str | bool


@dataclass(frozen=True)
class Merge:
    """A way to merge the patches: a method of the package and its parameters."""

    method: Literal["original", "safe_patching", "ties", "safety", "over_safety"]
    parameters: tuple[tuple[str, Number], ...] = ()

    @property
    def label(self) -> str:
        """A file name."""
        text = json.dumps([self.method, self.parameters])
        return f"{self.method}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def but(self, **changed: Number) -> Merge:
        """The same with other parameters."""
        return Merge(self.method, tuple(sorted({**dict(self.parameters), **changed}.items())))


def patching(**parameters: Number) -> Merge:
    """SafePatching with these parameters."""
    return Merge("safe_patching", tuple(sorted(parameters.items())))


def ties(**parameters: Number) -> Merge:
    """TIES of both patches with these parameters."""
    return Merge("ties", tuple(sorted(parameters.items())))


ORIGINAL = Merge("original")


@dataclass
class Bench:
    """A model to patch, and a folder in which its patches, scores and rows are kept and found again."""

    seed: int
    target: Path
    pairs: Path
    suites: Path
    work: Path

    @cached_property
    def place(self) -> Path:
        """Of everything that is made from this target and these pairs."""
        files = [*sorted(self.target.glob("*.safetensors")), self.pairs]
        settings = repr((ASCENT, DESCENT, SCORES))
        key = hashlib.sha256("".join([*sha256_of_files(files), settings]).encode()).hexdigest()[:12]
        return self.work / f"patches-{self.seed}-{key}"

    @cached_property
    def operands(self) -> dict[str, Any]:
        """What `safe_patching` takes."""
        made = {role: self._patch(role, how) for role, how in (("safety", ASCENT), ("over_safety", DESCENT))}
        target = am.open(self.target)
        return {
            "target": target,
            **{role: target + am.open_adapter(place) for role, place in made.items()},
            **{f"{role}_scores": am.open_scores(self._scores(role, place)) for role, place in made.items()},
        }

    def scores(self, role: str) -> Path:
        """The file of a patch's scores."""
        return self._scores(role, self.place / role)

    def row(self, merge: Merge, split: Split) -> Row:
        """Measured, or found."""
        path = self.place / split / f"{merge.label}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            counts = self._measure(merge, split)
            path.write_text(json.dumps({"method": merge.method, "parameters": merge.parameters, "counts": counts}))
        return Row(json.loads(path.read_text())["counts"])

    def write(self, merge: Merge, out: Path) -> Path:
        """The merged checkpoint."""
        shutil.rmtree(out, ignore_errors=True)
        return am.save(self._merged(merge), out, dtype="float32", hash=False).path

    def _measure(self, merge: Merge, split: Split) -> Counts:
        model, tokenizer = am.load(self.write(merge, self.place / "candidate"))
        return measure(model, tokenizer, self.suites, split, name=merge.label)

    def _merged(self, merge: Merge) -> Checkpoint:
        parameters: dict[str, Any] = dict(merge.parameters)
        if merge.method == "safe_patching":
            return am.safe_patching(**self.operands, **parameters)
        target, patched = self.operands["target"], [self.operands[role] for role in ("safety", "over_safety")]
        if merge.method == "ties":
            return am.ties(base=target, finetuned=patched, linear=True, **parameters)
        return {"original": target, "safety": patched[0], "over_safety": patched[1]}[merge.method]  # type: ignore[no-any-return]

    def _patch(self, role: str, how: TrainSettings) -> Path:
        place = self.place / role
        if not place.exists():
            train_model(self.target, self.pairs, place, how, resume=True)
        return place

    def _scores(self, role: str, patched: Path) -> Path:
        place = self.place / f"{role}-scores.safetensors"
        if not place.exists():
            write_scores(patched, self.pairs, place, SCORES, base=self.target)
        return place


def write_pairs(pairs: Sequence[dict[str, str]], path: Path) -> Path:
    """A file of pairs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs), encoding="utf-8")
    return path
