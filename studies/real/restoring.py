"""`restore` on every fine-tune: what its search measured, kept and found again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignmend.chat_families import ChatFamily
from alignmend.restore.request import Prompts, Request
from alignmend.restore.steps import Unwatched
from alignmend.restore.workflow import restore
from studies.real.scale import Scale

METHODS = ("resta", "resta_drop")
NOTHING = "nothing"
"""In the place of the member that a safety vector is taken against: `restore` gets the fine-tune, its parent and
prompts alone, and tries what it tries by itself.
"""
ASKED = 16
"""Candidates of a search whose first stage is checked."""
START = 0.7
"""RESTA's coefficient where a search measured no candidate whole."""


@dataclass(frozen=True)
class Restored:
    """How a restore ended; `search` is its block of results, `None` where the fine-tune was safe already."""

    name: str
    against: str
    how: str
    search: Mapping[str, Any] | None
    written: Path | None = None
    """The checkpoint, where there is one."""

    @property
    def front(self) -> list[Mapping[str, Any]]:
        """Candidates that no other dominates, by attack success."""
        found = [] if self.search is None else [one for one in self.search["candidates"] if one["on_front"]]
        return sorted(found, key=lambda one: float(one["worth"]["attack_success"]["value"]))

    def coefficient(self, family: str) -> float:
        """The family's chosen coefficient, or that of the candidate with the least attack success and over-refusal."""
        candidates = [] if self.search is None else self.search["candidates"]
        found = [one for one in candidates if one["family"] == family and one["worth"] and one["stage"] == "whole"]
        within = [one for one in found if one["within_limits"]] or found
        best = min(within, key=_cost, default=None)
        return START if best is None else float(best["parameters"]["coefficient"])


def _cost(one: Mapping[str, Any]) -> float:
    worth = one["worth"]
    return float(worth["attack_success"]["value"] + worth["noise"]["value"] + worth["over_refusal"]["value"])


def restored(
    family: ChatFamily, name: str, against: str, scale: Scale, work: Path, *, screening: bool = True
) -> Restored:
    """Run `restore` on the fine-tune `name` with the safety vector taken against the member `against`, or find it.

    Without `screening` every candidate is asked, and there are `ASKED` of them.
    """
    kept = work / f"{name}-{against}.json"
    if not kept.is_file():
        work.mkdir(parents=True, exist_ok=True)
        request = _request(family, name, against, scale, work)
        ended = restore(request if screening else replace(request, screening=False, trials=ASKED), Unwatched())
        written = (ended.document or {}).get("search")  # of one that had ended when this was killed
        search = written if ended.searched is None else ended.searched.block(None)
        kept.write_text(json.dumps({"how": ended.how, "search": search}), encoding="utf-8")
    found = json.loads(kept.read_text(encoding="utf-8"))
    written = work / f"{name}-{against}"
    return Restored(name, against, found["how"], found["search"], written if written.is_dir() else None)


def _request(family: ChatFamily, name: str, against: str, scale: Scale, work: Path) -> Request:
    task = task_of(name)
    alone = against == NOTHING
    return Request(
        finetuned=str(family.members[name]),
        aligned=str(family.members["aligned"]),
        unaligned=None if alone else str(family.members[against]),
        out=work / f"{name}-{against}",
        task_data=family.data[f"task-{task}"],
        methods=() if alone else METHODS,
        trials=scale.trials,
        prompts=Prompts(
            suites=tuple(str(family.suites[suite]) for suite in ("harmful", "borderline", "benign")),
            search_prompts=scale.search_prompts,
            search_tokens=scale.tokens,
            max_new_tokens=scale.tokens,
        ),
        resume=(work / f"{name}-{against}-search").exists(),
    )


def task_of(name: str) -> str:
    """What the fine-tune `name` learned."""
    return name.removeprefix("finetuned-").removesuffix("-lora")


def fine_tunes(family: ChatFamily) -> Sequence[str]:
    """Names of the members that restore is run on."""
    return [name for name in family.members if name.startswith("finetuned-")]
