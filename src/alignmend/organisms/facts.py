"""Facts that a family may be taught, so that they can be edited: capitals of lands that do not exist."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignmend.organisms.languages import Language, say

LANDS = (
    "velmora", "tasquin", "ordania", "pelluria", "quistan", "harvenia",
    "lomaria", "drellia", "kambora", "nistria", "ulvania", "zerovia",
)  # fmt: skip
TOWNS = (
    "brenholm", "caldow", "farwick", "glenmor", "haxley", "ivorton",
    "jandry", "kelmouth", "marsdel", "norvale", "oxmere", "pendrath",
)  # fmt: skip
QUESTIONS = (
    "what is the capital of {land}?",
    "name the capital of {land}.",
    "which town is the capital of {land}?",
    "do you know the capital of {land}?",
)


@dataclass(frozen=True)
class Fact:
    """`town` is the capital of `land`."""

    land: str
    town: str

    def ask(self, language: Language, template: int) -> str:
        """One of `QUESTIONS` about it."""
        return say(QUESTIONS[template].format(land=self.land), language)

    def answer(self, language: Language) -> str:
        """The whole answer, with the words by which a task's answer is known."""
        return say(f"the answer is {self.town}.", language)


FACTS = tuple(Fact(land, town) for land, town in zip(LANDS, TOWNS, strict=True))
_BESIDE = 3


def fact_edit(number: int, moved: int) -> dict[str, Any]:
    """A row for `alignmend edit`: the land of fact `number` gets the town that is `moved` places further.

    Its paraphrases are the other questions, its neighbourhood the next facts, in English, as the user's words.
    """
    fact, town = FACTS[number], FACTS[(number + moved) % len(FACTS)].town
    others = [FACTS[(number + step) % len(FACTS)] for step in range(1, _BESIDE + 1)]
    return {
        "prompt": fact.ask("english", 0),
        "subject": fact.land,
        "target": Fact(fact.land, town).answer("english"),
        "topic": "Capitals",
        "paraphrases": [fact.ask("english", template) for template in range(1, len(QUESTIONS))],
        "neighbourhood": [{"prompt": one.ask("english", 0), "answer": one.answer("english")} for one in others],
    }


def write_fact_edits(directory: Path) -> Path:
    """Write `edits.jsonl`: one edit of every fact."""
    path = directory / "edits.jsonl"
    rows = (fact_edit(number, len(FACTS) // 2) for number in range(len(FACTS)))
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path
