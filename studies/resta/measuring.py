"""One measured row: a fine-tune, what is done to it, and what it then answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import alignmend as am
from alignmend.algebra.opening import open_adapter
from alignmend.algebra.values import Checkpoint
from alignmend.organisms import Family
from alignmend.organisms.members import FamilyRecipe
from alignmend.restore.control import write_control
from studies.resta.finetunes import FineTune, write_suites
from studies.resta.training import Variant, fine_tuned
from studies.rows import Counts, Row, Split, measure


@dataclass(frozen=True)
class Change:
    """`coefficient` times the safety vector added, after `drop_rate` of the fine-tuning delta was dropped at random.

    Without a coefficient this is SFT, or SFT+DARE; with one RESTA, or RESTA_d. `random` replaces the safety vector by
    a random vector that is as long in every tensor.
    """

    coefficient: float = 0.0
    drop_rate: float = 0.0
    random: bool = False

    @property
    def label(self) -> str:
        """A file name."""
        return f"c{self.coefficient:g}-p{self.drop_rate:g}{'-random' if self.random else ''}"


@dataclass(frozen=True)
class Bench:
    """A fine-tune with everything that its rows need; rows are kept in `work` and found again."""

    fine_tune: FineTune
    variant: str
    seed: int
    target: Checkpoint
    aligned: Checkpoint
    unaligned: Checkpoint
    suites: Path
    work: Path

    def row(self, change: Change, split: Split) -> Row:
        """Measured, or found."""
        path = self.work / split / f"{change.label}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"change": asdict(change), "counts": self._measure(self._made(change), split)}))
        return Row(json.loads(path.read_text())["counts"])

    def reference(self, split: Split) -> Row:
        """The aligned model, asked the same prompts."""
        path = self.work / split / "aligned.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"counts": self._measure(self.aligned, split)}))
        return Row(json.loads(path.read_text())["counts"])

    def _measure(self, made: Checkpoint, split: Split) -> Counts:
        place = self.work / "candidate"
        shutil.rmtree(place, ignore_errors=True)
        model, tokenizer = am.load(am.save(made, place, hash=False).path)
        return measure(model, tokenizer, self.suites, split, name=place.name)

    def _made(self, change: Change) -> Checkpoint:
        if change.coefficient == 0 and change.drop_rate == 0:
            return self.target
        drop: dict[str, Any] = {"density": round(1 - change.drop_rate, 9), "seed": self.seed}
        if change.coefficient == 0:
            return am.task_arithmetic(base=self.aligned, finetuned=[self.target], **drop)
        unaligned = self._random() if change.random else self.unaligned
        roles: dict[str, Any] = {"finetuned": self.target, "aligned": self.aligned, "unaligned": unaligned}
        return am.resta(**roles, coefficient=change.coefficient, **drop)

    def _random(self) -> Checkpoint:
        place = self.work / "random"
        if place.exists():
            return am.open(place)
        return write_control(self.aligned, self.unaligned, place, seed=self.seed)


def benches(
    family: Family, fine_tunes: Sequence[FineTune], variants: Sequence[Variant], work: Path, recipe: FamilyRecipe
) -> Iterator[Bench]:
    """Every fine-tune of a family, trained where it is not found."""
    aligned, unaligned = am.open(family.members["aligned"]), am.open(family.members["unaligned"])
    for fine_tune in fine_tunes:
        suites = write_suites(fine_tune, family.directory / "suites", work / "suites" / fine_tune.name)
        for variant in variants:
            place = fine_tuned(family, fine_tune, variant, work, recipe)
            target = aligned + open_adapter(place) if variant == "lora" else am.open(place)
            rows = work / "rows" / place.name
            yield Bench(fine_tune, variant, family.seed, target, aligned, unaligned, suites, rows)
