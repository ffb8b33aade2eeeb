"""The papers on a real chat model: its family is built from published sets, restored by `restore`, and measured."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignmend.chat_families import ChatFamily, build_chat_family
from alignmend.chat_families.prompts import choose_prompts
from alignmend.chat_families.rows import Material
from alignmend.chat_families.sets import DataFolder
from alignmend.evaluation.records import Prompt
from studies.real import patching, replay, safety_arithmetic
from studies.real.measuring import Asker, Bench
from studies.real.page import Result, page
from studies.real.restoring import METHODS, NOTHING, fine_tunes, restored, task_of
from studies.real.scale import Scale
from studies.real.wheel import original

NAME = "real"


@dataclass(frozen=True)
class Setting:
    """Where a study works and what with: `model` is a folder to begin with instead of the wheel's model, `data` that
    with local copies of published sets.
    """

    work: Path
    scale: Scale
    data: Path
    model: Path | None = None
    seed: int = 0

    @property
    def place(self) -> Path:
        """Of the family and of all that is measured."""
        return self.work / f"{NAME}-{self.scale.name}"

    def family(self, roles: Sequence[str]) -> ChatFamily:
        """The family with these roles at the least; what is not there yet is fetched, converted and built."""
        began = time.monotonic()
        source = original(self.work / "cache") if self.model is None else self.model
        _say("model", began)
        scale = self.scale
        family = build_chat_family(
            self.place / "family",
            source,
            self.data,
            roles=roles,
            tasks=scale.tasks,
            recipe=scale.recipe,
            seed=self.seed,
        )
        _say("family", began)
        return family

    def harmful(self) -> list[Prompt]:
        """English requests that trained the family to refuse."""
        folder, scale = DataFolder(self.data), self.scale
        found = choose_prompts(folder, scale.tasks, scale.recipe, self.seed)
        return [one for one in Material(scale.recipe, found, self.seed).refused if one.language != "zh"]


def run(setting: Setting) -> str:
    """RESTA: fetch, convert, build, restore and measure whatever is not there yet; returns the page."""
    began = time.monotonic()
    family = setting.family(setting.scale.roles)
    results = list(measured(family, setting.scale, setting.place))
    return page(family, setting.scale, results, _seconds(setting.place, time.monotonic() - began))


def run_safety_arithmetic(setting: Setting) -> str:
    """Both stages on the aligned member, a fine-tune and an edited one; returns the page."""
    began = time.monotonic()
    family = setting.family((*setting.scale.roles, "unaligned", "edited"))
    asker = Asker(family, setting.scale, setting.place)
    targets = safety_arithmetic.Targets(asker, safety_arithmetic.contrast_pairs(family, setting.harmful()))
    results = {}
    for name in ("aligned", f"finetuned-{setting.scale.tasks[0]}", "edited"):
        results[name] = targets.rows(name)
        _say(f"rows of {name}", began)
    return safety_arithmetic.page(asker, results)


def run_screening(setting: Setting) -> str:
    """The first stage of the search, against asking every candidate; returns the page."""
    began = time.monotonic()
    scale, found = setting.scale, {}
    family = setting.family((*scale.roles, "finetuned", "finetuned-lora"))
    for name in fine_tunes(family):
        found[name] = restored(family, name, scale.against[0], scale, setting.place / "screening", screening=False)
        _say(f"every candidate for {name}", began)
    return replay.page(found, model=family.note.model, prompts=scale.search_prompts, scale=scale.name)


def run_safepatching(setting: Setting) -> str:
    """Both patches of the aligned member, LoRA and all weights; returns the page."""
    began = time.monotonic()
    family = setting.family(setting.scale.roles)
    asker, harmful = Asker(family, setting.scale, setting.place), setting.harmful()
    made = {}
    for kind in patching.SETTINGS:
        patches = made[kind] = patching.Patches(asker, kind, harmful)
        if not patches.is_measured:
            patches.make()
            _say(f"patches, {kind}", began)
        patches.rows()
        patches.slopes()
        _say(f"rows, {kind}", began)
        patches.remove()
    return patching.page(asker, made)


def measured(family: ChatFamily, scale: Scale, place: Path) -> Iterator[Result]:
    """Every fine-tune with every safety vector: restored, then asked row by row."""
    began = time.monotonic()
    for name in fine_tunes(family):
        for against in (NOTHING, *scale.against):
            found = restored(family, name, against, scale, place / "restore")
            _say(f"restore {name} against {against}", began)
            bench = Bench(Asker(family, scale, place, task_of(name)), name, against)
            if against == NOTHING:
                yield found, bench.rows_of(found.written)
            else:
                yield found, bench.rows({method: found.coefficient(method) for method in METHODS})
            _say(f"rows of {name} against {against}", began)


def _say(what: str, began: float) -> None:
    print(f"{NAME}: {what}: {(time.monotonic() - began) / 60:.1f} min", file=sys.stderr)


def _seconds(place: Path, seconds: float) -> float:
    """Of all runs together: a later one finds what an earlier one made."""
    kept = place / "seconds"
    total = seconds + (float(kept.read_text()) if kept.is_file() else 0.0)
    kept.write_text(f"{total:.1f}\n")
    return total
