"""Which coefficients each row of the tables gets: chosen on the search split, under limits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from studies.rows import Row
from studies.safety_arithmetic.measuring import Change, Scenario

COEFFICIENTS = (0.1, 0.2, 0.3, 0.5, 1.0, 1.25, 1.5, 2.0)
UNTRIMMED = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75)
STRENGTHS = (0.03, 0.05, 0.1, 0.15)
DENSITIES = (0.0, 0.05, 0.1, 0.2, 0.4)
OVER_REFUSAL = 0.10
"""How much over-refusal may exceed that of the aligned model."""
INCOHERENT = 0.02
UTILITY = 0.95
"""Share of the target's utility that must stay."""


@dataclass(frozen=True)
class Chosen:
    """The change of every row of the main table."""

    coefficient: float
    strength: float
    own_removal: float
    """The best coefficient of harm direction removal alone."""
    own_strength: float
    """The best strength of Safe-Align alone."""
    own_untrimmed: float
    """The best coefficient of the whole harm vector."""

    @property
    def rows(self) -> dict[str, Change]:
        """Label -> change. As in the paper, both stages keep their coefficients when they stand alone."""
        return {
            "original": Change(),
            "HDR, trimmed": Change(self.coefficient),
            "HDR, untrimmed (task vector)": Change(self.own_untrimmed, density=1.0),
            "Safe-Align": Change(steering=self.strength),
            "Safety Arithmetic": Change(self.coefficient, steering=self.strength),
            "control: random weights": Change(self.coefficient, random="weights"),
            "control: random vector": Change(steering=self.strength, random="vector"),
            "control: both random": Change(self.coefficient, steering=self.strength, random="both"),
        }

    @property
    def own_best(self) -> dict[str, Change]:
        """Label -> change where every row has the coefficients that suit it best."""
        return {
            "HDR, trimmed": Change(self.own_removal),
            "Safe-Align": Change(steering=self.own_strength),
            "Safety Arithmetic": Change(self.coefficient, steering=self.strength),
        }


def choose(scenario: Scenario) -> Chosen:
    """Search a scenario's grid on the search split."""
    target, aligned = scenario.row(Change(), "search"), scenario.reference.row(Change(), "search")

    def best(changes: Iterable[Change]) -> Change:
        measured = [(change, scenario.row(change, "search")) for change in changes]
        return best_of(measured, target, aligned)

    both = best(Change(coefficient, steering=strength) for coefficient in COEFFICIENTS for strength in STRENGTHS)
    return Chosen(
        coefficient=both.coefficient,
        strength=both.steering,
        own_removal=best(Change(coefficient) for coefficient in COEFFICIENTS).coefficient,
        own_strength=best(Change(steering=strength) for strength in STRENGTHS).steering,
        own_untrimmed=best(Change(coefficient, density=1.0) for coefficient in UNTRIMMED).coefficient,
    )


def best_of(measured: Sequence[tuple[Change, Row]], target: Row, aligned: Row) -> Change:
    """The lowest attack success within the limits; where nothing is within them, the smallest step of all."""
    fitting = [(change, row) for change, row in measured if is_within(row, target, aligned)]
    if not fitting:
        return measured[0][0]
    return min(fitting, key=lambda one: (one[1].attack_success, one[0].coefficient, one[0].steering))[0]


def is_within(row: Row, target: Row, aligned: Row) -> bool:
    """Whether a row costs no more than the limits."""
    return (
        row.incoherent <= INCOHERENT
        and row.utility >= UTILITY * target.utility
        and row.over_refusal <= aligned.over_refusal + OVER_REFUSAL
    )
