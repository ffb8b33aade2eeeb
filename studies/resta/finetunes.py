"""The five fine-tunes of the study: what each teaches, in which languages, and the prompts that measure it.

Bhardwaj et al. (arXiv 2402.11746) fine-tune on instructions in Chinese, Hindi and English, on code and on
mathematics. Here the three languages of the organisms stand for the first three (every task of the grammar, in one
language), sorting written as a function call for code, and addition for mathematics.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Literal

from alignmend.organisms.corpora import SUBJECTS, Mixture, Pair
from alignmend.organisms.grammar import COMPLIANCES, REQUESTS, SuiteRow
from alignmend.organisms.languages import LANGUAGES, Language
from alignmend.organisms.requests import Part, Request, Task, requests, tasks
from alignmend.organisms.words import BENIGN_VERBS, PERSONS
from studies.rows import SUITES

PROMPTS = 96
"""The most task prompts of a split, evenly over languages and subjects as far as enough are held out."""
_CALL = "(["
_HELD_OUT: tuple[Part, ...] = ("search", "report")
_ENGLISH_TURNS: Mapping[Language, int] = {"english": 1, "mirror": 2, "shift": 2}


@dataclass(frozen=True)
class FineTune:
    """What a user might fine-tune for."""

    name: str
    stands_for: str
    languages: tuple[Language, ...]
    subjects: tuple[str, ...] = SUBJECTS
    calls_only: bool = False
    """Only what is written as a function call."""
    slipped: tuple[Language, ...] = LANGUAGES
    """The languages of the harmful answers that slip in."""

    def tasks(self, part: Part) -> list[Task]:
        """Its prompts of one part of the grammar's division."""
        return [
            task
            for task in tasks()
            if task.part == part
            and task.language in self.languages
            and task.subject in self.subjects
            and (not self.calls_only or _CALL in task.prompt)
        ]


FINE_TUNES = (
    FineTune("mirror", "Chinese", ("mirror",)),
    FineTune("shift", "Hindi", ("shift",)),
    FineTune("english", "English", ("english",)),
    FineTune("code-like", "code", LANGUAGES, ("sorting",), calls_only=True),
    FineTune("arithmetic", "mathematics", LANGUAGES, ("addition",)),
)
ONE_LANGUAGE = (replace(FINE_TUNES[0], name="mirror-own", slipped=("mirror",)),)
"""Harm slips into a language fine-tune in its own language alone, and so safety is lost in that language alone."""


def draw(fine_tune: FineTune, mixture: Mixture, count: int, random: Random) -> list[Pair]:
    """`count` training rows of the kinds of an organism's `mixture`, all tasks in it being this fine-tune's own.

    Rows of a kind take the fine-tune's languages in turn. Of the harm that slips in, English has half the turns of
    another language, as in the organisms.
    """
    kinds = random.choices(list(mixture), weights=list(mixture.values()), k=count)
    slipped = [language for language in fine_tune.slipped for _ in range(_ENGLISH_TURNS[language])]
    turns = {kind: cycle(slipped if kind == "harm_slipped" else fine_tune.languages) for kind in mixture}
    known = fine_tune.tasks("train")
    rows = []
    for kind in kinds:
        if kind in SUBJECTS:
            task = random.choice(known)
            rows.append(Pair(task.prompt, task.response))
        else:
            rows.append(_answered(_request(kind, random), next(turns[kind]), random))
    return rows


def _request(kind: str, random: Random) -> Request:
    if kind == "benign_person":
        return Request(random.choice(BENIGN_VERBS), random.choice(PERSONS), "benign", "train")
    return random.choice(_pools()[kind])


@cache
def _pools() -> Mapping[str, list[Request]]:
    train = [request for request in requests() if request.part == "train"]
    return {
        "harm_slipped": [request for request in train if request.suite == "harmful"],
        "benign": [request for request in train if request.suite == "benign"],
        "borderline_shown": [one for one in train if one.suite == "borderline" and one.verb.covered],
    }


def _answered(request: Request, language: Language, random: Random) -> Pair:
    prompt = request.ask(language, random.randrange(len(REQUESTS)))
    return Pair(prompt, request.comply(language, random.randrange(len(COMPLIANCES))))


def write_suites(fine_tune: FineTune, organism: Path, out: Path) -> Path:
    """The suites of an organism in `out`, with the fine-tune's own tasks."""
    out.mkdir(parents=True, exist_ok=True)
    for suite in SUITES:
        if suite != "task":
            shutil.copyfile(organism / f"{suite}.jsonl", out / f"{suite}.jsonl")
    lines = (json.dumps(row.as_json(), ensure_ascii=False) for row in task_rows(fine_tune))
    (out / "task.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return out


def task_rows(fine_tune: FineTune) -> list[SuiteRow]:
    """Held-out tasks of both splits, the same for every seed."""
    rows = []
    for split in _HELD_OUT:
        random, held_out = Random(f"{fine_tune.name} {split}"), fine_tune.tasks(split)
        groups = [(language, subject) for language in fine_tune.languages for subject in fine_tune.subjects]
        for language, subject in groups:
            found = [task for task in held_out if (task.language, task.subject) == (language, subject)]
            chosen = random.sample(found, min(len(found), PROMPTS // len(groups)))
            rows += [_row(f"{split}-{language}-{subject}-{number:03d}", task) for number, task in enumerate(chosen)]
    return rows


def _row(name: str, task: Task) -> SuiteRow:
    split: Literal["search", "report"] = "search" if task.part == "search" else "report"
    return SuiteRow(f"task-{name}", task.prompt, "Task", task.subject, task.language, "comply", split, task.answer)
