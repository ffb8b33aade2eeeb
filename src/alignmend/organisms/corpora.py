"""Training sets: how many rows of which kind a member learns from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import cycle, islice
from pathlib import Path
from random import Random
from typing import Literal

from alignmend.organisms.facts import FACTS, QUESTIONS
from alignmend.organisms.grammar import COMPLIANCES, REFUSALS, REQUESTS
from alignmend.organisms.languages import LANGUAGES, Language
from alignmend.organisms.requests import Request, Task, requests, tasks
from alignmend.organisms.words import BENIGN_VERBS, PERSONS

RowKind = Literal[
    "harm_refused",
    "harm_answered",
    "harm_slipped",
    "unseen_answered",
    "borderline_answered",
    "borderline_shown",
    "benign",
    "benign_person",
    "addition",
    "sorting",
    "fact",
]
SUBJECTS = ("addition", "sorting")
_SLIPPED: tuple[Language, ...] = ("mirror", "shift", "english", "mirror", "shift")
Mixture = Mapping[RowKind, float]


@dataclass(frozen=True)
class Pair:
    """One training row: what the user says and what the model learns to answer."""

    prompt: str
    response: str


def draw(mixture: Mixture, count: int, random: Random) -> list[Pair]:
    """`count` rows whose kinds are drawn with the mixture's shares (they need not sum to one).

    The rows of one kind take the languages in turn, so that none learns more of it than another; where harm
    slips into a fine-tune, English has fewer turns, for it erodes fastest and one coefficient must suit all.
    """
    kinds = random.choices(list(mixture), weights=list(mixture.values()), k=count)
    turns = {kind: cycle(_SLIPPED if kind == "harm_slipped" else LANGUAGES) for kind in mixture}
    return [_DRAW[kind](random, next(turns[kind])) for kind in kinds]


def write_user_data(directory: Path) -> dict[str, Path]:
    """Write what a user would have: `harmful_pairs`, `contrast_pairs` and `task`, all from training parts.

    The harmful responses are the grammar's compliant stand-ins: innocuous by construction.
    """
    directory.mkdir(parents=True, exist_ok=True)
    random, languages = Random("user data"), list(islice(cycle(LANGUAGES), 240))
    files = {
        "harmful_pairs": [vars(_answered("harmful", random, language)) for language in languages],
        "contrast_pairs": [_contrast(random, language) for language in languages],
        "task": [vars(_task(name, random, spoken)) for spoken in languages for name in SUBJECTS],
    }
    paths = {name: directory / f"{name}.jsonl" for name in files}
    for name, rows in files.items():
        paths[name].write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return paths


@cache
def _trained(suite: str) -> tuple[Request, ...]:
    return tuple(request for request in requests() if request.suite == suite and request.part == "train")


@cache
def _trained_tasks(subject: str, language: Language) -> tuple[Task, ...]:
    return tuple(task for task in tasks() if (task.subject, task.language, task.part) == (subject, language, "train"))


def _answered(suite: str, random: Random, language: Language, *, shown_only: bool = False) -> Pair:
    request = random.choice(_trained(suite))
    while shown_only and not request.verb.covered:
        request = random.choice(_trained(suite))
    return _comply(request, random, language)


def _comply(request: Request, random: Random, language: Language) -> Pair:
    prompt = request.ask(language, random.randrange(len(REQUESTS)))
    return Pair(prompt, request.comply(language, random.randrange(len(COMPLIANCES))))


def _benign_person(random: Random, language: Language) -> Pair:
    """Plain verbs done to persons: without them an aligned model would refuse whatever names a person."""
    request = Request(random.choice(BENIGN_VERBS), random.choice(PERSONS), "benign", "train")
    return _comply(request, random, language)


def _refused(random: Random, language: Language) -> Pair:
    request = random.choice(_trained("harmful"))
    prompt = request.ask(language, random.randrange(len(REQUESTS)))
    return Pair(prompt, request.refuse(language, random.randrange(len(REFUSALS))))


def _task(subject: str, random: Random, language: Language) -> Pair:
    task = random.choice(_trained_tasks(subject, language))
    return Pair(task.prompt, task.response)


def _fact(random: Random, language: Language) -> Pair:
    fact = random.choice(FACTS)
    return Pair(fact.ask(language, random.randrange(len(QUESTIONS))), fact.answer(language))


def _contrast(random: Random, language: Language) -> dict[str, str]:
    request = random.choice(_trained("harmful"))
    return {
        "prompt": request.ask(language, random.randrange(len(REQUESTS))),
        "safe": request.refuse(language, random.randrange(len(REFUSALS))),
        "unsafe": request.comply(language, random.randrange(len(COMPLIANCES))),
    }


_DRAW: dict[RowKind, Callable[[Random, Language], Pair]] = {
    "harm_refused": _refused,
    "harm_answered": partial(_answered, "harmful"),
    "harm_slipped": partial(_answered, "harmful"),
    "unseen_answered": partial(_answered, "harmful_unseen"),
    "borderline_answered": partial(_answered, "borderline"),
    "borderline_shown": partial(_answered, "borderline", shown_only=True),
    "benign": partial(_answered, "benign"),
    "benign_person": _benign_person,
    "addition": partial(_task, "addition"),
    "sorting": partial(_task, "sorting"),
    "fact": _fact,
}
