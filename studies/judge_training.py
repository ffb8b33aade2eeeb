"""The default judge's classifier for English answers, trained on people's labels and on answers written for it.

Logistic regression of three classes with a ridge, solved through the inner products of the answers, as there are fewer
answers than features. `python -m studies.judge_training` writes the file that the package ships.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alignmend.evaluation.judges.answer_classifier import AnswerClassifier, save
from alignmend.evaluation.judges.answer_features import BUCKETS, Counts, features
from alignmend.evaluation.judges.phrase_rules import RefusalRule, refusal_rules
from alignmend.evaluation.judges.phrase_signs import signs_in
from studies.judge_answers import composed
from studies.judge_points import LABELS, Labelled

Array = NDArray[np.float64]
FILE = Path("src/alignmend/evaluation/judges/data/classifier/en.npz")
STRENGTH = 0.1
"""The ridge: half of it times the squared weights is added to the loss."""
SIGN_SIZE = 0.3
"""How much a sign weighs beside all pieces of characters, or of words, together."""
CONSTANT_SIZE = 3.0
PARTIAL_WEIGHT = 2.0
"""Partial refusals are few and hard: together they count twice as much as each other label."""
FEWEST = 2
"""A piece that occurs in fewer answers is left out."""
_LARGEST_RARITY = 255
_CHUNK = 1 << 13
_JITTER = 1e-6


class Design:
    """All training answers as numbers: rows of integers by bucket, and the signs."""

    def __init__(self, rule: RefusalRule, answers: Sequence[Labelled]) -> None:
        empty = rule.questions.empty_words
        self.names = (*rule.phrase_signs, *rule.structure_signs)
        self.counts = [features(each.prompt, each.response, empty) for each in answers]
        seen = [signs_in(rule, each.prompt, each.response) for each in answers]
        self.signs = np.array([[signs.get(name, 0.0) for name in self.names] for signs in seen])
        self.rarity = self._rarity()
        self._lengths = [[_length(counts, self.rarity) for counts in both] for both in self.counts]

    def _rarity(self) -> NDArray[np.uint8]:
        """The logarithm of the inverse share of answers with a piece, in steps such that the rarest has 255."""
        having = np.zeros(2 * BUCKETS)
        for both in self.counts:
            for buckets, _ in both:
                having[buckets] += 1
        known = 1 + np.log((1 + len(self.counts)) / (1 + having))
        scaled = np.round(known / known[having >= FEWEST].max() * _LARGEST_RARITY)
        return np.where(having >= FEWEST, scaled, 0).astype(np.uint8)

    def rows(self, low: int, high: int) -> NDArray[np.float32]:
        """The features of every answer in buckets [low, high), each kind of length 1 in all."""
        found = np.zeros((len(self.counts), high - low), dtype=np.float32)
        for place, (both, lengths) in enumerate(zip(self.counts, self._lengths, strict=True)):
            for (buckets, values), length in zip(both, lengths, strict=True):
                first, last = np.searchsorted(buckets, (low, high))
                here = buckets[first:last]
                found[place, here - low] = values[first:last] * self.rarity[here] / length
        return found

    def products(self) -> Array:
        """The inner product of every two answers."""
        signs = SIGN_SIZE * self.signs
        total = signs @ signs.T + CONSTANT_SIZE**2
        for low in range(0, 2 * BUCKETS, _CHUNK):
            rows = self.rows(low, low + _CHUNK)
            total += rows @ rows.T
        return total


def _length(counts: Counts, rarity: NDArray[np.uint8]) -> float:
    buckets, values = counts
    weighed = values * rarity[buckets]
    return max(1.0, math.sqrt((weighed * weighed).sum()))


def trained(labelled: Sequence[Labelled], written: Sequence[Labelled]) -> AnswerClassifier:
    """The classifier of both; each half counts the same, and each label in it but for `PARTIAL_WEIGHT`."""
    rule = refusal_rules()["en"]
    answers = [*labelled, *written]
    design = Design(rule, answers)
    truth = np.array([LABELS.index(each.label) for each in answers])
    weights = np.zeros(len(answers))
    for half in (np.arange(len(answers)) < len(labelled), np.arange(len(answers)) >= len(labelled)):
        for label in range(len(LABELS)):
            here = half & (truth == label)
            weights[here] = (PARTIAL_WEIGHT if label == 1 else 1.0) * len(labelled) / len(LABELS) / max(1, here.sum())
    return _classifier(design, _dual(design.products(), truth, weights))


def _classifier(design: Design, dual: Array) -> AnswerClassifier:
    weights = np.concatenate(
        [design.rows(low, low + _CHUNK).T.astype(float) @ dual for low in range(0, 2 * BUCKETS, _CHUNK)]
    )
    weights -= weights.mean(axis=1, keepdims=True)
    scale = float(np.abs(weights).max()) / np.iinfo(np.int16).max
    return AnswerClassifier(
        signs=design.names,
        constant=np.round(CONSTANT_SIZE**2 * dual.sum(axis=0), 4),
        sign_weights=np.round(SIGN_SIZE**2 * design.signs.T @ dual, 4),
        rarity=design.rarity,
        weights=np.round(weights / scale).astype(np.int16),
        scale=scale,
    )


def _dual(products: Array, truth: NDArray[np.int64], weights: Array) -> Array:
    """What each answer adds to the weights of each class (answers x 3)."""
    root = np.linalg.cholesky(products + _JITTER * np.eye(len(products)))
    wanted = np.eye(len(LABELS))[truth]

    def loss(flat: Array) -> tuple[float, Array]:
        point = flat.reshape(-1, len(LABELS))
        scores = root @ point
        scores -= scores.max(axis=1, keepdims=True)
        logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        value = -float((weights[:, None] * wanted * logs).sum()) + 0.5 * STRENGTH * float((point**2).sum())
        slope = root.T @ (weights[:, None] * (np.exp(logs) - wanted)) + STRENGTH * point
        return value, slope.ravel()

    point = minimum(loss, np.zeros(len(products) * len(LABELS))).reshape(-1, len(LABELS))
    return np.linalg.solve(root.T, point)


def minimum(loss: Callable[[Array], tuple[float, Array]], start: Array, memory: int = 20, most: int = 400) -> Array:
    """L-BFGS with halved steps, for a smooth convex loss."""
    point, (value, slope) = start, loss(start)
    steps: list[Array] = []
    bends: list[Array] = []
    for _ in range(most):
        if float(np.abs(slope).max()) < 1e-5:
            break
        way = -_two_loops(slope, steps, bends)
        size = 1.0 if steps else min(1.0, 1.0 / float(np.abs(slope).sum()))
        while True:
            there = point + size * way
            new_value, new_slope = loss(there)
            if new_value <= value + 1e-4 * size * float(slope @ way) or size < 1e-12:
                break
            size /= 2
        steps.append(there - point)
        bends.append(new_slope - slope)
        steps, bends = steps[-memory:], bends[-memory:]
        point, value, slope = there, new_value, new_slope
    return point


def _two_loops(slope: Array, steps: Sequence[Array], bends: Sequence[Array]) -> Array:
    """The slope times the inverse curvature that the last steps show."""
    way, shares = slope.copy(), []
    for step, bend in zip(reversed(steps), reversed(bends), strict=True):
        share = float(step @ way) / float(step @ bend)
        shares.append(share)
        way -= share * bend
    if steps:
        way *= float(steps[-1] @ bends[-1]) / float(bends[-1] @ bends[-1])
    for step, bend, share in zip(steps, bends, reversed(shares), strict=True):
        way += step * (share - float(bend @ way) / float(step @ bend))
    return way


def main() -> None:
    """Train on the labelled answers of all of `MODELS` and the written ones, and write the file that ships."""
    from studies.judges import MODELS, data_folder, read_labelled

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FILE)
    arguments = parser.parse_args()
    labelled = [each for name in MODELS.values() for each in read_labelled(data_folder() / name)]
    save(trained(labelled, composed()), arguments.out)
    print(f"wrote {arguments.out}: {arguments.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
