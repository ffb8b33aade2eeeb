"""The papers on a real chat model: its family is built from published sets, restored by `restore`, and measured."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from alignmend.chat_families import ChatFamily, build_chat_family
from studies.real.measuring import Bench
from studies.real.page import Result, page
from studies.real.restoring import METHODS, fine_tunes, restored
from studies.real.scale import Scale
from studies.real.wheel import original

NAME = "real"


def run(work: Path, *, scale: Scale, data: Path, model: Path | None = None, seed: int = 0) -> str:
    """Fetch, convert, build, restore and measure whatever is not there yet; returns the page.

    `model` is a folder to begin with instead of the wheel's model, `data` that with local copies of published sets.
    """
    began, place = time.monotonic(), work / f"{NAME}-{scale.name}"
    source = original(work / "cache") if model is None else model
    _say("model", began)
    family = build_chat_family(
        place / "family", source, data, roles=scale.roles, tasks=scale.tasks, recipe=scale.recipe, seed=seed
    )
    _say("family", began)
    results = list(measured(family, scale, place))
    return page(family, scale, results, _seconds(place, time.monotonic() - began))


def measured(family: ChatFamily, scale: Scale, place: Path) -> Iterator[Result]:
    """Every fine-tune with every safety vector: restored, then asked row by row."""
    began = time.monotonic()
    for name in fine_tunes(family):
        for against in scale.against:
            found = restored(family, name, against, scale, place / "restore")
            _say(f"restore {name} against {against}", began)
            bench = Bench(family, name, against, scale, place)
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
