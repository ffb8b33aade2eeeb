"""Which prompts are in two sets: the same, nearly the same, or translations of each other.

Prompts used to train, fit or search never count in a report without saying so. Two prompts are `exact` duplicates when
they agree but for case, punctuation and white space; `near` when the Jaccard similarity of their 8-grams is above 0.6.
Grams are of words, of characters in scripts that do not separate words; where one of two prompts has fewer than
8 of them, grams of 3 are compared instead. A prompt with fewer than 3 has only exact duplicates. Of a transformed
prompt the original counts.
"""

from __future__ import annotations

import random
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Literal

from alignmend.errors import ParameterError
from alignmend.evaluation.records import Prompt
from alignmend.evaluation.suites import Suite

THRESHOLD = 0.6
LONG, SHORT = 8, 3
_MOST_SHORT_GRAMS = int((LONG - SHORT) / THRESHOLD)
"""A prompt with fewer than 8 words has at most 5 grams of 3; one with more grams than this cannot be near to it."""
OverlapKind = Literal["exact", "near", "translation"]
_WITHOUT_SPACES = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF), (0x20000, 0x323AF),
)  # fmt: skip
"""Thai and Lao, Burmese, Khmer, Han and Kana."""


@dataclass(frozen=True)
class Overlap:
    """A prompt of `suite` and one of `other_suite` that count as one; `similarity` is 1 unless they are `near`."""

    suite: str
    prompt_id: str
    other_suite: str
    other_id: str
    kind: OverlapKind
    similarity: float

    def as_dict(self) -> dict[str, object]:
        """Plain JSON."""
        return asdict(self)


def find_overlaps(used: Sequence[Suite], reported: Sequence[Suite]) -> tuple[Overlap, ...]:
    """Every prompt of `reported` that `used` has too: as it is, nearly, or in another language.

    In an `Overlap` the prompt is of `reported`, the other one of `used`; the order is that of `reported`, then `used`.
    """
    documents = [_Document(prompt) for suite in (*reported, *used) for prompt in suite.prompts]
    boundary = sum(len(suite.prompts) for suite in reported)
    pairs = _pairs(documents, translations=True)
    found = {pair: match for pair, match in pairs.items() if pair[0] < boundary <= pair[1]}
    return _as_overlaps(documents, found)


def near_duplicates(suites: Sequence[Suite]) -> tuple[Overlap, ...]:
    """All `exact` and `near` duplicates within and among `suites`; each pair once, translations left out."""
    documents = [_Document(prompt) for suite in suites for prompt in suite.prompts]
    return _as_overlaps(documents, _pairs(documents, translations=False))


def split_by_group(suite: Suite, fraction: float, seed: int = 0) -> tuple[Suite, Suite]:
    """`suite` in two: a part to search on, about `fraction` of every category, and the rest to report.

    Duplicates and translations stay together. The same seed gives the same parts; prompts say `split` is `search` or
    `report`.
    """
    search, report = split_together([suite], fraction, seed)
    return search[0], report[0]


def split_together(
    suites: Sequence[Suite], fraction: float, seed: int = 0
) -> tuple[tuple[Suite, ...], tuple[Suite, ...]]:
    """As `split_by_group`, for suites that share prompts: what is searched on in one is reported in none."""
    if not 0 < fraction < 1:
        raise ParameterError(f"the fraction to search on is {fraction}; it must lie between 0 and 1")
    documents = [_Document(prompt) for suite in suites for prompt in suite.prompts]
    chosen = _chosen(documents, _groups(len(documents), _pairs(documents, translations=True)), fraction, seed)
    parts: tuple[list[Suite], list[Suite]] = ([], [])
    start = 0
    for suite in suites:
        places = range(start, start + len(suite.prompts))
        start = places.stop
        for part, name, wanted in zip(parts, ("search", "report"), (True, False), strict=True):
            kept = [prompt for place, prompt in zip(places, suite.prompts, strict=True) if (place in chosen) is wanted]
            part.append(_part(suite, kept, name, seed))
    return tuple(parts[0]), tuple(parts[1])


class _Document:
    """A prompt as it is compared."""

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt
        text = str(prompt.extra.get("original_prompt", prompt.text))
        words = _words(text)
        self.key = " ".join(words) or text.strip()
        self.long = _grams(words, LONG)
        short = _grams(words, SHORT)
        self.short = short if len(short) <= _MOST_SHORT_GRAMS else frozenset()
        self.is_short = len(words) < LONG


class _Spacing(dict[int, str]):
    """What a character becomes: nothing, a space, itself, or itself between spaces."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if character in "'’":
            spaced = ""
        elif unicodedata.category(character)[0] in "PSZC":
            spaced = " "
        elif any(first <= code <= last for first, last in _WITHOUT_SPACES):
            spaced = f" {character} "
        else:
            spaced = character
        self[code] = spaced
        return spaced


_SPACING = _Spacing()


def _words(text: str) -> list[str]:
    return unicodedata.normalize("NFKC", text).casefold().translate(_SPACING).split()


def _grams(words: Sequence[str], size: int) -> frozenset[str]:
    return frozenset(" ".join(words[start : start + size]) for start in range(len(words) - size + 1))


_Pair = tuple[int, int]
_Match = tuple[OverlapKind, float]


def _pairs(documents: Sequence[_Document], *, translations: bool) -> dict[_Pair, _Match]:
    """Every pair of places with what it is; the first kind that fits in the order exact, near, translation."""
    found: dict[_Pair, _Match] = {}
    for pair in _same(documents, [document.key for document in documents]):
        found[pair] = ("exact", 1.0)
    long = [document.long for document in documents]
    short = [document.short for document in documents]
    for pair, similarity in _near(long):
        found.setdefault(pair, ("near", similarity))
    for (one, other), similarity in _near(short):
        if documents[one].is_short or documents[other].is_short:
            found.setdefault((one, other), ("near", similarity))
    if translations:
        for pair in _same(documents, [document.prompt.extra.get("source_id") for document in documents]):
            found.setdefault(pair, ("translation", 1.0))
    return found


def _same(documents: Sequence[_Document], keys: Sequence[str | None]) -> Iterator[_Pair]:
    places: dict[str, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        if key is not None:
            places[key].append(place)
    for group in places.values():
        yield from combinations(group, 2)


def _near(sets: Sequence[frozenset[str]]) -> Iterator[tuple[_Pair, float]]:
    """Pairs above the threshold. Sets that share that much also share one of their rarest grams (Chaudhuri, Ganti,
    Kaushik 2006: prefix filter), so only those are looked up.
    """
    frequency = Counter(gram for grams in sets for gram in grams)
    index: dict[str, list[int]] = defaultdict(list)
    for place, grams in enumerate(sets):
        rarest = sorted(grams, key=lambda gram: (frequency[gram], gram))
        rarest = rarest[: len(grams) - int(THRESHOLD * len(grams))]
        for other in sorted({other for gram in rarest for other in index[gram]}):
            similarity = len(grams & sets[other]) / len(grams | sets[other])
            if similarity > THRESHOLD:
                yield (other, place), similarity
        for gram in rarest:
            index[gram].append(place)


def _as_overlaps(documents: Sequence[_Document], pairs: Mapping[_Pair, _Match]) -> tuple[Overlap, ...]:
    prompts = [document.prompt for document in documents]
    return tuple(
        Overlap(prompts[one].suite, prompts[one].id, prompts[other].suite, prompts[other].id, kind, similarity)
        for (one, other), (kind, similarity) in sorted(pairs.items())
    )


def _groups(size: int, pairs: Iterable[_Pair]) -> list[list[int]]:
    """Places joined by pairs, directly or through others."""
    leader = list(range(size))

    def find(place: int) -> int:
        while leader[place] != place:
            leader[place] = leader[leader[place]]
            place = leader[place]
        return place

    for one, other in pairs:
        first, second = sorted((find(one), find(other)))
        leader[second] = first
    groups: dict[int, list[int]] = defaultdict(list)
    for place in range(size):
        groups[find(place)].append(place)
    return list(groups.values())


def _chosen(documents: Sequence[_Document], groups: list[list[int]], fraction: float, seed: int) -> set[int]:
    """Places of whole groups, about `fraction` of each category; a group counts for that of its first prompt."""
    shuffled = random.Random(seed).sample(groups, len(groups))
    category = {group[0]: documents[group[0]].prompt.category for group in groups}
    wanted: Counter[str | None] = Counter()
    for group in groups:
        wanted[category[group[0]]] += len(group)
    room = {name: round(fraction * size) for name, size in wanted.items()}
    chosen: set[int] = set()
    for group in shuffled:
        name = category[group[0]]
        if len(group) <= room[name]:
            room[name] -= len(group)
            chosen.update(group)
    return chosen


def _part(suite: Suite, kept: Sequence[Prompt], name: str, seed: int) -> Suite:
    if not kept:
        raise ParameterError(
            f"suite {suite.name!r} ({len(suite.prompts)} prompts) cannot be split: nothing is left to {name};",
            advice="take another fraction or a larger suite",
        )
    note = f"{name} part: {len(kept)} of {len(suite.prompts)} prompts, seed {seed}"
    origin = None if suite.origin is None else replace(suite.origin, notes=(*suite.origin.notes, note))
    prompts = tuple(prompt.model_copy(update={"split": name}) for prompt in kept)
    return replace(suite, prompts=prompts, origin=origin)
