"""An answer as counts of its letters and words in a row: what the answer classifier weighs.

Pieces of 2 to 5 characters and of 1 to 3 words, each hashed to a number; words of the question are one word, so that
the topic does not count. All of it is integer arithmetic, the same on every machine.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from math import log

import numpy as np
from numpy.typing import NDArray

BUCKETS = 1 << 16
"""Numbers for pieces of characters; pieces of words have as many of their own, after these."""
CHARACTERS = (2, 5)
WORDS = (1, 3)
SAMPLE = 2500
"""Characters that are looked at, from the beginning."""
ASKED = "qqq"
_STEM = 5
_LONG_WORD = 4
_UNIT = 64
_MOST = 1000
_GROWTH = np.array([0, *(round(_UNIT * (1 + log(count))) for count in range(1, _MOST + 1))], dtype=np.int64)
"""What a count weighs: its logarithm, in whole numbers."""
_TOKEN = re.compile(r"[a-z0-9']+|[.!?;:\n]+")
_WORD = re.compile(r"[a-z0-9']+")
_QUOTES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "＇": "'", "`": "'", "“": '"', "”": '"'})
_STEP, _MIX = np.uint32(0x01000193), np.uint32(0x9E3779B1)

Counts = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Buckets, and what each weighs."""


def features(prompt: str, response: str, empty_words: Sequence[str]) -> tuple[Counts, Counts]:
    """The pieces of characters and the pieces of words in `response`."""
    text = _without_topic(prompt, response, frozenset(empty_words))
    spaced = f" {' '.join(text.split())} "
    letters = np.frombuffer(spaced.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    words = np.array([zlib.crc32(token.encode()) for token in _TOKEN.findall(text)], dtype=np.uint32)
    return _counted(letters, *CHARACTERS, 0, gap=ord(" ")), _counted(words, *WORDS, BUCKETS)


def _without_topic(prompt: str, response: str, empty_words: frozenset[str]) -> str:
    plain = response[:SAMPLE].translate(_QUOTES).lower()
    asked = {word[:_STEM] for word in _WORD.findall(prompt.lower()) if _tells(word, empty_words)}

    def other(found: re.Match[str]) -> str:
        word = found.group()
        return ASKED if word[:_STEM] in asked and _tells(word, empty_words) else word

    return _WORD.sub(other, plain)


def _tells(word: str, empty_words: frozenset[str]) -> bool:
    return len(word) >= _LONG_WORD and word not in empty_words


def _counted(codes: NDArray[np.uint32], shortest: int, longest: int, offset: int, gap: int = -1) -> Counts:
    """The pieces of `shortest` to `longest` codes, hashed; with what their counts weigh.

    A piece may begin or end with `gap`, but has none inside.
    """
    gaps = np.cumsum(codes == gap)
    hashed, found = codes * _MIX, []
    for length in range(1, longest + 1):
        if length > 1:
            hashed = hashed[:-1] * _STEP ^ codes[length - 1 :] * _MIX
        if length >= shortest:
            whole = (hashed * _MIX) >> np.uint32(16)
            found.append(whole[gaps[length - 2 : len(codes) - 1] == gaps[: len(whole)]] if length > 2 else whole)
    buckets, counts = np.unique(np.concatenate(found), return_counts=True)
    return buckets.astype(np.int64) + offset, _GROWTH[np.minimum(counts, _MOST)]
