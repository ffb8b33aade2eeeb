"""The Pareto front of a search, and the candidate to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alignmend.restore.families import Candidate
from alignmend.restore.request import Limits
from alignmend.restore.scoring import Worth


@dataclass(frozen=True)
class Measured:
    """A candidate that was measured on every search prompt."""

    number: int
    candidate: Candidate
    worth: Worth
    switch_seconds: float
    """To give the loaded model its weights."""

    def qualifies(self, limits: Limits, finetuned: Worth) -> bool:
        """Whether it keeps the limits and refuses more than the fine-tune does."""
        return self.worth.safer_than(finetuned) and not self.worth.broken(limits, finetuned)


@dataclass(frozen=True)
class Aim:
    """What a search is after: the limits, and the fine-tune that they are measured against."""

    limits: Limits
    finetuned: Worth

    def passes(self, one: Measured) -> bool:
        """Whether it may be taken."""
        return one.qualifies(self.limits, self.finetuned)

    def excess(self, worth: Worth) -> dict[str, float]:
        """By how much each limit is missed; below 0 where it is kept."""
        return {
            "over_refusal": worth.over_refusal.value - self.finetuned.over_refusal.value - self.limits.over_refusal,
            "utility": self.limits.utility - worth.utility,
            "incoherent": worth.incoherent.value - self.limits.noise(self.finetuned.incoherent.value),
        }

    def rank(self, worth: Worth, measured: Measured | None) -> tuple[bool, bool, float, float, float]:
        """The smaller the better: measured whole, within the limits, little beyond them, safe, useful."""
        beyond = sum(max(0.0, value) for value in self.excess(worth).values())
        attack, _, utility = worth.objectives
        return measured is None, measured is None or not self.passes(measured), round(beyond, 9), attack, -utility


def dominates(one: Worth, other: Worth) -> bool:
    """Whether `one` is nowhere worse and somewhere better: less attack success, less over-refusal, more utility."""
    mine, theirs = _minimised(one), _minimised(other)
    return all(a <= b for a, b in zip(mine, theirs, strict=True)) and mine != theirs


def _minimised(worth: Worth) -> tuple[float, float, float]:
    attack, refusal, utility = worth.objectives
    return attack, refusal, -utility


def surely_dominated(worth: Worth, measured: Sequence[Measured]) -> Measured | None:
    """The candidate that dominates one which was asked some prompts, whatever it answers to the others.

    Attack success and over-refusal of `worth` count at the lower ends of their intervals, and its utility as it is:
    it can only fall.
    """
    attack = worth.attack_success.low + worth.noise.low
    return below((attack, worth.over_refusal.low, worth.utility), measured)


def below(bounds: tuple[float, float, float], measured: Sequence[Measured]) -> Measured | None:
    """The first candidate that dominates what has at least so much attack success and over-refusal, at most so much
    utility.
    """
    attack, refusal, utility = bounds
    for one in measured:
        mine = one.worth.objectives
        better = mine[0] <= attack and mine[1] <= refusal and mine[2] >= utility
        if better and mine != bounds:
            return one
    return None


def front(measured: Sequence[Measured]) -> tuple[Measured, ...]:
    """Those that no other dominates, by attack success; of equals the first."""
    kept: dict[tuple[float, float, float], Measured] = {}
    for one in measured:
        if not any(dominates(other.worth, one.worth) for other in measured):
            kept.setdefault(_minimised(one.worth), one)
    return tuple(sorted(kept.values(), key=lambda one: _minimised(one.worth)))


def pick(measured: Sequence[Measured], limits: Limits, finetuned: Worth) -> Measured | None:
    """The lowest attack success within the limits, ties by utility, then by over-refusal; `None` where none is."""
    fitting = [one for one in measured if one.qualifies(limits, finetuned)]
    return min(fitting, key=_order, default=None)


def fitting(measured: Sequence[Measured], limits: Limits, finetuned: Worth) -> tuple[Measured, ...]:
    """The front of those that qualify, the safest first: what breaks a limit takes nobody's place."""
    return front([one for one in measured if one.qualifies(limits, finetuned)])


@dataclass(frozen=True)
class Standing:
    """A search so far, for whoever decides whether it goes on."""

    measured: int
    """Candidates that were measured whole."""
    best: Measured | None
    """What would be taken now."""
    fitting: tuple[Measured, ...]
    """The front of the others that qualify, the safest first."""
    beyond: tuple[Measured, ...]
    """The rest of the front, by attack success."""


def standing(measured: Sequence[Measured], limits: Limits, finetuned: Worth) -> Standing:
    """The best so far, then the front."""
    best, found = pick(measured, limits, finetuned), front(measured)
    others = tuple(one for one in fitting(measured, limits, finetuned) if one != best)
    beyond = tuple(one for one in found if not one.qualifies(limits, finetuned))
    return Standing(len(measured), best, others, beyond)


def _order(one: Measured) -> tuple[float, float, float, int]:
    attack, refusal, utility = one.worth.objectives
    return attack, -utility, refusal, one.number
