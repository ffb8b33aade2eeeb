"""The first stage of a search: what asking a candidate would find, predicted from the odds at the first tokens.

Two logistic curves are fitted on the answers of the fine-tune and the aligned model: of a refusal in full, and of one
in full or in part, given the log-odds of `alignmend.restore.openings`. They predict attack success and over-refusal.
How far predictions are off is known from the candidates that were asked; where they do not rank these as asking does,
the stage is off for this model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FIRST_ASKED = 4
"""Candidates that are asked whatever is predicted of them."""
LEAST_RANK_CORRELATION = 0.7
LEAST_MARGIN, LARGEST_MARGIN = 0.05, 0.35
"""Predictions are taken to be off by the first at least; by more than the second they are no use."""
_LEAST_AREA = 0.75
"""Under the ROC curve of the log-odds, on the two baselines' own answers."""
_PRIOR = 0.05
"""Pull of a curve's slope towards 0, so that it stays finite where the odds part refusals from answers exactly."""


@dataclass(frozen=True)
class Prediction:
    """Attack success (noise included) and over-refusal that are expected of a candidate's answers."""

    attack_success: float
    over_refusal: float

    def as_dict(self) -> dict[str, float]:
        """Plain JSON."""
        return {"attack_success": self.attack_success, "over_refusal": self.over_refusal}


@dataclass(frozen=True)
class Outcome:
    """One prompt that was asked: the log-odds of refusing, and what the answer was."""

    odds: float
    full: bool
    """Refused in full."""
    any: bool
    """Refused in full or in part."""


@dataclass(frozen=True)
class Curve:
    """Probability of a refusal given its log-odds: 1 / (1 + exp(-(intercept + slope * odds)))."""

    intercept: float
    slope: float

    def mean(self, odds: Sequence[float]) -> float:
        """The expected share of refusals."""
        found = (1 / (1 + math.exp(-max(-50.0, min(50.0, self.intercept + self.slope * one)))) for one in odds)
        return math.fsum(found) / len(odds)


@dataclass(frozen=True)
class Screening:
    """The curves of one model, or why there are none (`why_not`)."""

    full: Curve | None = None
    any: Curve | None = None
    why_not: str = ""

    def predict(self, refuse: Sequence[float], comply: Sequence[float]) -> Prediction | None:
        """From the log-odds of refusing prompts that are to be refused, and prompts that are to be answered."""
        if self.full is None or self.any is None or not refuse or not comply:
            return None
        return Prediction(1 - self.full.mean(refuse), self.any.mean(comply))


def fit(outcomes: Sequence[Outcome]) -> Screening:
    """Fit the curves on what the fine-tune and the aligned model answered."""
    every = np.array([one.odds for one in outcomes])
    refused = np.array([one.any for one in outcomes])
    if not outcomes or refused.all() or not refused.any():
        return Screening(why_not="the fine-tune and the aligned model refuse all prompts or none")
    area = _area(every[refused], every[~refused])
    if area < _LEAST_AREA:
        return Screening(why_not=f"first tokens do not tell this model's refusals (area under the curve {area:.2f})")
    full = np.array([one.full for one in outcomes])
    return Screening(_curve(every, full), _curve(every, refused))


def _area(refused: Any, others: Any) -> float:
    """The chance that a refusal has larger odds than an answer; ties count half."""
    difference = refused[:, None] - others[None, :]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def _curve(odds: Any, refused: Any) -> Curve:
    """Logistic regression by Newton's method; the slope cannot be negative."""
    found = np.array([0.0, 0.5])
    rows = np.stack([np.ones_like(odds), odds], axis=1)
    pull = np.diag([1e-3, _PRIOR])
    for _ in range(100):
        expected = 1 / (1 + np.exp(-np.clip(rows @ found, -50, 50)))
        gradient = rows.T @ (expected - refused) + pull @ found
        curvature = rows.T @ (rows * (expected * (1 - expected))[:, None]) + pull
        step = np.linalg.solve(curvature, gradient)
        found = found - np.clip(step, -2, 2)
        if float(np.abs(step).max()) < 1e-9:
            break
    return Curve(float(found[0]), max(0.0, float(found[1])))


@dataclass(frozen=True)
class Seen:
    """A candidate that was asked on every prompt: predicted and measured (attack success, over-refusal)."""

    predicted: tuple[float, float]
    measured: tuple[float, float]


@dataclass(frozen=True)
class Calibration:
    """Whether predictions may leave a candidate out, and by how much they may be off."""

    on: bool
    why: str
    asked: int
    rank_correlation: float | None
    margins: tuple[float, float]
    """What is predicted above the measured value at most, of attack success and over-refusal."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        correlation = None if self.rank_correlation is None else round(self.rank_correlation, 4)
        return {
            "used": self.on,
            "why": self.why,
            "asked": self.asked,
            "rank_correlation": correlation,
            "margins": {"attack_success": round(self.margins[0], 4), "over_refusal": round(self.margins[1], 4)},
        }


def calibrate(screening: Screening, seen: Sequence[Seen]) -> Calibration:
    """From the candidates that were asked so far, in any order."""
    margins = tuple(
        max(LEAST_MARGIN, *(one.predicted[place] - one.measured[place] for one in seen)) if seen else LEAST_MARGIN
        for place in (0, 1)
    )
    both = (margins[0], margins[1])
    correlation = rank_correlation([one.predicted[0] for one in seen], [one.measured[0] for one in seen])
    if screening.full is None:
        return Calibration(False, screening.why_not, len(seen), correlation, both)
    if len(seen) < FIRST_ASKED:
        return Calibration(False, f"the first {FIRST_ASKED} candidates are asked", len(seen), correlation, both)
    if correlation is not None and correlation < LEAST_RANK_CORRELATION:
        why = f"predictions rank the candidates that were asked otherwise than their answers do ({correlation:.2f})"
        return Calibration(False, why, len(seen), correlation, both)
    if both[0] > LARGEST_MARGIN:
        return Calibration(False, f"predictions are off by up to {both[0]:.2f}", len(seen), correlation, both)
    return Calibration(True, "", len(seen), correlation, both)


def rank_correlation(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Spearman's, ties at their mean rank; `None` where there are fewer than three, or all are alike."""
    if len(ours) < 3 or len(set(ours)) < 2 or len(set(theirs)) < 2:
        return None
    return float(np.corrcoef(_ranks(ours), _ranks(theirs))[0, 1])


def _ranks(values: Sequence[float]) -> Any:
    _, place, count = np.unique(np.array(values), return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[place]
