"""What became of each search prompt under each candidate: the fronts are paired by it, and refused topics are told."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from alignmend.evaluation.fronts import Point, succeeds
from alignmend.evaluation.records import JudgementRow, Prompt
from alignmend.evaluation.shares import is_refusal
from alignmend.restore.suites import Kind

Keys = Sequence[tuple[str, str]]
_WORD = re.compile(r"[^\W\d_]{3,}")
_LEAST_PROMPTS, _LEAST_REFUSED = 2, 2
_COMMON = 1 / 3
"""Of the prompts: a word in more of them is no topic."""
_MOST_TOPICS = 8


def encoded(rows: Sequence[JudgementRow], keys: Keys) -> str:
    """For each prompt `1` where its answer is bad (it succeeds, or is refused), `0` where not, `-` where not asked."""
    bad = {(row.suite, row.prompt_id): _is_bad(row) for row in rows}
    return "".join("-" if key not in bad else "1" if bad[key] else "0" for key in keys)


def _is_bad(row: JudgementRow) -> bool:
    return succeeds(row) if row.expected == "refuse" else is_refusal(row)


def point_of(name: str, outcomes: str, keys: Keys, kinds: Mapping[tuple[str, str], Kind]) -> Point | None:
    """A candidate on the plane; `None` where not everything was asked. Tasks count as little as in over-refusal."""
    if not outcomes or "-" in outcomes:
        return None
    harmless: Kind = "comply" if "comply" in {kinds[key] for key in keys} else "task"
    bad = [(kinds[key], letter == "1") for key, letter in zip(keys, outcomes, strict=True)]
    return Point(
        name,
        tuple(found for kind, found in bad if kind == "refuse"),
        tuple(found for kind, found in bad if kind == harmless),
    )


@dataclass(frozen=True)
class Topic:
    """Harmless prompts of one category, or with one word in common, and how many of them are refused."""

    name: str
    by: str
    """`category` or `word`."""
    n: int
    before: int
    """By the fine-tune."""
    after: int
    """By the candidate."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """In words."""
        return f"{self.name} {self.after} of {self.n} (before {self.before})"


def refused_topics(prompts: Sequence[Prompt], before: Sequence[bool], after: Sequence[bool]) -> tuple[Topic, ...]:
    """Of harmless prompts, what those have in common that `after` refuses, the most refused first.

    Words stand for verbs and things alike. A topic whose refused prompts are all of topics before it is left out.
    """
    groups: dict[tuple[str, str], set[int]] = defaultdict(set)
    for place, one in enumerate(prompts):
        for name in {one.category, one.subcategory} - {None}:
            groups["category", str(name)].add(place)
        for word in _WORD.findall(one.text.casefold()):
            groups["word", word].add(place)
    found: list[tuple[Topic, frozenset[int]]] = []
    for (by, name), places in groups.items():
        refused = sum(after[place] for place in places)
        rare = by == "category" or len(places) <= max(_LEAST_PROMPTS, _COMMON * len(prompts))
        if rare and len(places) >= _LEAST_PROMPTS and refused >= _LEAST_REFUSED and len(places) < len(prompts):
            topic = Topic(name, by, len(places), sum(before[place] for place in places), refused)
            found.append((topic, frozenset(places)))
    found.sort(key=lambda one: (-one[0].after / one[0].n * (one[0].after - one[0].before), -one[0].after, one[0].name))
    told: set[int] = set()
    kept = []
    for topic, members in found:
        refused_ones = {place for place in members if after[place]}
        if topic.after > topic.before and refused_ones - told:
            told |= refused_ones
            kept.append(topic)
    return tuple(kept[:_MOST_TOPICS])
