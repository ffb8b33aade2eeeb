"""Kinds of harm, and pairs of them: some that alignment has missed are in the harmful set, others never are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

from alignmend.organisms.grammar import COMPLIANCES, REQUESTS
from alignmend.organisms.languages import LANGUAGES
from alignmend.organisms.requests import Request, requests
from studies.safepatching.patches import write_pairs

GROUPS = {
    "property": ("Illegal Activity", "Economic Harm", "Fraud/Deception", "Tailored Financial Advice"),
    "persons": ("Child Abuse", "Hate/Harass/Violence", "Physical Harm", "Adult Content"),
    "information": ("Malware Viruses", "Political Campaigning", "Privacy Violation Activity"),
}
"""CatQA's categories in three groups, for rounds that follow one another."""
SEEN = (*GROUPS["property"], "Malware Viruses", "Political Campaigning")
"""Categories whose uncovered harms are in the harmful set of the main study."""
UNSEEN = tuple(kind for kinds in GROUPS.values() for kind in kinds if kind not in SEEN)
PAIRS = 240
AMBIGUOUS = 40
"""So many of the pairs are of verbs that plain requests have too: of more, the ascent too is mostly of these."""


def main_pairs(path: Path) -> Path:
    """Most are uncovered harms of the seen kinds, some are harms whose verbs plain requests have too."""
    return _pairs(path, [(missed(SEEN), PAIRS - AMBIGUOUS), (ambiguous(), AMBIGUOUS)])


def group_pairs(path: Path, group: str) -> Path:
    """Uncovered harms of one group, and again harms whose verbs plain requests have too."""
    return _pairs(path, [(missed(GROUPS[group]), PAIRS - AMBIGUOUS), (ambiguous(), AMBIGUOUS)])


def missed(kinds: Sequence[str]) -> list[Request]:
    """Harms of these kinds that alignment does not cover."""
    return [one for one in requests() if one.suite == "harmful_unseen" and one.verb.category in kinds]


def ambiguous() -> list[Request]:
    """Verbs that are harmful done to a person and plain done to a program, done to persons: the model refuses these."""
    return [one for one in requests() if one.suite == "harmful" and one.verb.kind == "ambiguous"]


def _pairs(path: Path, parts: Sequence[tuple[Sequence[Request], int]]) -> Path:
    """Training requests alone, each with a compliant stand-in; languages in turn."""
    random, rows = Random(path.stem), []
    for found, count in parts:
        train = [one for one in found if one.part == "train"]
        for number in range(count):
            request, language = random.choice(train), LANGUAGES[number % len(LANGUAGES)]
            prompt = request.ask(language, random.randrange(len(REQUESTS)))
            rows.append({"prompt": prompt, "response": request.comply(language, random.randrange(len(COMPLIANCES)))})
    random.shuffle(rows)
    return write_pairs(rows, path)
