"""Answers written for training the default judge: sentences of this project's own, put together at random by kind.

The sentences are in `judge_texts/`. A full refusal refuses, gives reasons, admonishes, offers something else; a partial
one refuses and then answers; an answer answers, with warnings, doubts, idioms that sound like refusals, and quotations.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from studies.judge_points import Labelled

FOLDER = Path(__file__).parent / "judge_texts"
Bank = Mapping[str, Any]


@cache
def bank(name: str) -> Bank:
    """The sentences of one file."""
    found: Bank = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


class Writer:
    """Puts sentences of the English bank together; the same seed gives the same answers."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._bank = bank("english")

    def some(self, kind: str, low: int = 1, high: int = 1) -> list[str]:
        """Different sentences of a kind."""
        return self._random.sample(self._bank[kind], self._random.randint(low, high))

    def one(self, kind: str) -> str:
        """A sentence of a kind."""
        return str(self._random.choice(self._bank[kind]))

    def chance(self, share: float) -> bool:
        """True in about that share of the calls."""
        return self._random.random() < share

    def topic(self) -> tuple[str, list[str]]:
        """A request, and sentences that answer it, in their order."""
        found = self._random.choice(self._bank["topics"])
        return found["request"], list(found["content"])

    def content(self, sentences: Sequence[str], low: int, high: int) -> str:
        """Some sentences in their order, as prose or as a list."""
        count = min(len(sentences), self._random.randint(low, high))
        kept = [sentences[place] for place in sorted(self._random.sample(range(len(sentences)), count))]
        form = self._random.random()
        if form < 0.7 or count < 3:
            return " ".join(kept)
        numbered = [f"{place}. {each}" if form < 0.85 else f"- {each}" for place, each in enumerate(kept, start=1)]
        return "\n" + "\n".join(numbered)

    def refusal(self) -> str:
        """One refusing sentence with or without a polite beginning."""
        return _capital(self.one("openers of refusals") + self.one("refusals"))

    def praised(self) -> str:
        """Kind words about the question and a little around it, before a refusal."""
        kind = self.one("praise")
        return kind.strip() if self.chance(0.3) else f"{kind}{self.topic()[1][0]}"

    def broken_off(self) -> str:
        """An answer that has begun is stopped."""
        said = f"{self.one('breaks')}{self.one('refusals')}"
        return f"{said} {self.one('reasons')}" if self.chance(0.5) else said

    def full_refusal(self) -> str:
        """Any form of a refusal in full."""
        form = self._random.random()
        if form < 0.12:
            return self.one("plain refusals")
        if form < 0.18:
            return self.one("machine forms")
        if form < 0.38:
            said = self.some("deflections", 1, 2) + (self.some("redirects") if self.chance(0.4) else [])
            return " ".join(said)
        if form < 0.45:
            return " ".join([*self.some("morals", 1, 3), *self.some("counsel", 1, 2)])
        if form < 0.5:
            return " ".join([*self.some("counsel", 1, 2), *self.some("redirects", 0, 1)])
        if form < 0.55:
            return f"{self.one('compliance openers')}1. {self.topic()[1][0][:20]}\n\n{self.broken_off()}"
        if form < 0.58:
            return f"{self.praised()} {self.one('turns')}{self.one('refusals')} {self.one('reasons')}"
        if form < 0.63:
            advice = "\n".join(f"- {each}" for each in self.some("counsel", 2, 4))
            return f"{self.refusal()}\n\n{advice}"
        said = [self.refusal()]
        for kind, share, most in (("reasons", 0.6, 2), ("morals", 0.4, 3), ("redirects", 0.5, 1), ("counsel", 0.3, 2)):
            if self.chance(share):
                said += self.some(kind, 1, most)
        if self.chance(0.15):
            said = said[1:] + said[:1]
        return _joined(said, self.chance(0.3))

    def partial_refusal(self, sentences: Sequence[str]) -> str:
        """A refusal of a part, and an answer to the rest."""
        form = self._random.random()
        if form < 0.4:
            begin = [_capital(self.one("openers of refusals") + self.one("refusals"))]
        elif form < 0.8:
            begin = [_capital(self.one("partial openings"))]
        else:
            begin = self.some("morals", 1, 2)
        if self.chance(0.3):
            begin += self.some("reasons")
        rest = self.one("connectors") + self.content(sentences, 2, 5)
        if self.chance(0.15):
            return f"{self.content(sentences, 2, 4)} {self.one('connectors')}{self.one('partial openings')}"
        if self.chance(0.15):
            return f"{self.content(sentences, 2, 4)} {self.one('partial ends')}"
        end = self.some("cautions") if self.chance(0.15) else []
        return _joined([*begin, _capital(rest), *end], self.chance(0.3))

    def said_briefly(self, sentences: Sequence[str]) -> str:
        """One short answer, or some sentences."""
        return self.one("short answers") if self.chance(0.3) else self.content(sentences, 1, 4)

    def compliance(self, sentences: Sequence[str]) -> str:
        """An answer, often with something in it that sounds like a refusal."""
        form = self._random.random()
        if form < 0.08:
            return self.one("quoted refusals")
        if form < 0.16:
            said = self.some("norm answers", 1, 2)
            return " ".join(said)
        if form < 0.26:
            return f"{self.one('cautions')} {self.content(sentences, 1, 4)}"
        if form < 0.4:
            return f"{self.one('hedges')}{_small(self.said_briefly(sentences))}"
        if form < 0.54:
            return f"{self.one('idioms')}{self.said_briefly(sentences)}"
        end = f" {self.one('cautions')}" if self.chance(0.3) else ""
        end += f" {self.one('closers')}" if self.chance(0.25) else ""
        return f"{self.one('compliance openers')}{self.content(sentences, 1, 5)}{end}"

    def answers(self, count: int) -> list[Labelled]:
        """`count` of each label, and every whole answer of the bank."""
        found = []
        for _ in range(count):
            request, sentences = self.topic()
            found.append(Labelled(self.topic()[0], self.full_refusal(), "full_refusal"))
            found.append(Labelled(request, self.partial_refusal(sentences), "partial_refusal"))
            found.append(Labelled(request, self.compliance(sentences), "full_compliance"))
        for label, whole in self._bank["whole answers"].items():
            found += 6 * [Labelled(self.topic()[0], each, label) for each in whole]
        return found


def _joined(said: Sequence[str], paragraphs: bool) -> str:
    return ("\n\n" if paragraphs else " ").join(each for each in said if each)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _small(text: str) -> str:
    return text[:1].lower() + text[1:]


Change = Callable[[str], str]


def composed(count: int = 300, seed: int = 0) -> list[Labelled]:
    """Answers in English, `count` of each label."""
    return Writer(seed).answers(count)
