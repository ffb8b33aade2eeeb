"""The letter statistics by which the default judge knows languages: made from the n-grams that lingua ships.

Needs a copy of `lingua-language-detector` 1.4 (Apache-2.0, on PyPI) and `brotli`; the result ships with the package, so
only who changes it needs them. `python -m studies.judge_languages FOLDER`, FOLDER being lingua's `language-models`.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignmend.evaluation.judges.letter_statistics import FILE, STEP, ngrams_of

_LATIN = (
    "af az ca cs cy da de en eo es et eu fi fr ga hr hu id is it jv la lg lt lv mi nb nl pl pt ro sk sl sn so sq st sv "
    "sw tl tr ts vi xh yo zu"
)
SCRIPTS = {
    "latin": ("[a-zß-öø-ɏḀ-ỹ]+", _LATIN.split()),
    "cyrillic": ("[а-яѐ-ӿ]+", ["be", "bg", "kk", "mk", "mn", "ru", "sr", "uk"]),
    "arabic": ("[ء-ۿ]+", ["ar", "fa", "ur"]),
}
TOP = 2000
"""So many of the commonest letter triples of each language are kept, and a fourth as many pairs."""
RAREST = {1: 1e-3, 2: 2e-5, 3: 3e-6}
"""An n-gram that a language does not have counts as this rare."""
Frequencies = Mapping[str, float]


def shipped(folder: Path, language: str, kind: str) -> Frequencies:
    """The n-grams of one length and language in lingua's files: how often the last letter follows those before it."""
    import brotli  # type: ignore[import-not-found]

    raw = brotli.decompress((folder / language / f"{kind}.json.br").read_bytes())
    found: dict[str, float] = {}
    for fraction, grams in json.loads(raw)["ngrams"].items():
        part, whole = map(int, fraction.split("/"))
        found.update(dict.fromkeys(grams.split(), part / whole))
    return found


def from_lingua(folder: Path, language: str) -> dict[int, Frequencies]:
    """How often each single letter, pair and triple of letters occurs."""
    single = shipped(folder, language, "unigrams")
    pairs = {gram: p * single.get(gram[0], 0) for gram, p in shipped(folder, language, "bigrams").items()}
    triples = {gram: p * pairs.get(gram[:2], 0) for gram, p in shipped(folder, language, "trigrams").items()}
    return {1: single, 2: pairs, 3: triples}


def from_texts(texts: Sequence[str]) -> dict[int, Frequencies]:
    """The same, counted in texts."""
    found: dict[int, Frequencies] = {}
    words = [word for text in texts for word in re.findall(r"[^\W\d_]+", text.lower())]
    for length in (1, 2, 3):
        counts: dict[str, int] = {}
        for word in words:
            for start in range(len(word) - length + 1):
                gram = word[start : start + length]
                counts[gram] = counts.get(gram, 0) + 1
        total = sum(counts.values())
        found[length] = {gram: count / total for gram, count in counts.items()}
    return found


def table(frequencies: Mapping[str, Mapping[int, Frequencies]], letters: str) -> tuple[list[str], NDArray[np.int8]]:
    """The kept n-grams, and a row for each: its logarithm by language, less the mean, in steps of `STEP`."""
    kept: set[str] = set()
    for each in frequencies.values():
        for length, count in ((3, TOP), (2, TOP // 4), (1, 60)):
            grams = [gram for gram in each[length] if re.fullmatch(letters, gram)]
            kept.update(_commonest(each[length], grams, count))
    order = sorted(kept)
    rows = np.array(
        [[max(each[len(gram)].get(gram, 0.0), RAREST[len(gram)]) for each in frequencies.values()] for gram in order]
    )
    logs = np.log(rows)
    logs -= logs.mean(axis=1, keepdims=True)
    return order, np.clip(np.round(logs / STEP), -127, 127).astype(np.int8)


def _commonest(frequencies: Frequencies, grams: Sequence[str], count: int) -> list[str]:
    return sorted(grams, key=lambda gram: (-frequencies[gram], gram))[:count]


def main() -> None:
    """Write the file that the package ships."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="lingua's folder language-models")
    parser.add_argument("javanese", type=Path, help="MultiJail's prompts as JSONL: Javanese is not in lingua")
    parser.add_argument("--out", type=Path, default=FILE)
    arguments = parser.parse_args()
    rows = map(json.loads, arguments.javanese.read_text(encoding="utf-8").splitlines())
    javanese = from_texts([row["prompt"] for row in rows if row["language"] == "jv"])
    arrays: dict[str, Any] = {}
    for script, (letters, languages) in SCRIPTS.items():
        found = {each: javanese if each == "jv" else from_lingua(arguments.folder, each) for each in languages}
        grams, scores = table(found, letters)
        assert all(gram in ngrams_of(gram) for gram in grams)
        arrays[f"{script}_languages"] = np.array(languages)
        arrays[f"{script}_ngrams"] = np.array(grams)
        arrays[f"{script}_scores"] = scores
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(arguments.out, **arrays)
    print(f"wrote {arguments.out}: {arguments.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
