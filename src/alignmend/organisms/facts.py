"""Facts that a family may be taught, so that they can be edited: capitals of lands that do not exist."""

from __future__ import annotations

from dataclasses import dataclass

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
