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


def main_pairs(path: Path) -> Path:
    """Half covered harms of all kinds, half uncovered harms of the seen kinds."""
    covered = [one for one in requests() if one.suite == "harmful"]
    missed = [one for one in requests() if one.suite == "harmful_unseen" and one.verb.category in SEEN]
    return _pairs(path, [(covered, PAIRS // 2), (missed, PAIRS // 2)])


def group_pairs(path: Path, group: str) -> Path:
    """Covered and uncovered harms of one group."""
    of_group = [one for one in requests() if one.verb.category in GROUPS[group] and one.verb.kind == "harmful"]
    covered = [one for one in of_group if one.suite == "harmful"]
    missed = [one for one in of_group if one.suite == "harmful_unseen"]
    return _pairs(path, [(covered, PAIRS // 2), (missed, PAIRS // 2)])


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
