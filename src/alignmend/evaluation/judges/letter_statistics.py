"""Which language a text in a script of many is in, by how common its pairs and triples of letters are in each.

The numbers are made by `studies/judge_languages.py` from the n-grams that lingua (Apache-2.0) ships.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FILE = Path(__file__).parent / "data" / "languages" / "letters.npz"
STEP = 0.1
"""Natural logarithms are kept in steps of this."""


@dataclass(frozen=True)
class LetterStatistics:
    """The languages of one script, and for each n-gram a row of scores, one per language.

    `words` adds rows for whole words; all scores are natural logarithms.
    """

    languages: tuple[str, ...]
    rows: Mapping[str, int]
    words: Mapping[str, int]
    scores: NDArray[np.float64]

    def of(self, words: Sequence[str]) -> NDArray[np.float64]:
        """How much more likely `words` are in each language than in all of them on average."""
        rows = [self.rows[gram] for word in words for gram in ngrams_of(word) if gram in self.rows]
        rows += [self.words[word] for word in words if word in self.words]
        return self.scores[rows].sum(axis=0) if rows else np.zeros(len(self.languages))


def ngrams_of(word: str) -> Iterable[str]:
    """The triples of letters in `word`; a shorter word is its own."""
    return [word[start : start + 3] for start in range(len(word) - 2)] if len(word) > 2 else (word,)


def letter_statistics(script: str, common: Mapping[str, Collection[str]], weight: float) -> LetterStatistics:
    """The shipped statistics of `latin`, `cyrillic` or `arabic`.

    A common word of a language speaks for it by `weight`, divided by how many languages have it.
    """
    with np.load(FILE, allow_pickle=False) as arrays:
        languages = arrays[f"{script}_languages"].tolist()
        grams = arrays[f"{script}_ngrams"].tolist()
        scores = arrays[f"{script}_scores"].astype(np.float64) * STEP
    words = sorted({word for language in languages for word in common.get(language, ())})
    having = np.array([[word in common.get(language, ()) for language in languages] for word in words])
    added = weight * having / having.sum(axis=1, keepdims=True) if words else np.zeros((0, len(languages)))
    return LetterStatistics(
        languages=tuple(languages),
        rows={gram: row for row, gram in enumerate(grams)},
        words={word: len(grams) + row for row, word in enumerate(words)},
        scores=np.concatenate([scores, added]),
    )
