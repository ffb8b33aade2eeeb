"""What changes along one coefficient: the values of the figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from studies.figures import Curve
from studies.rows import pooled
from studies.safety_arithmetic.grid import DENSITIES
from studies.safety_arithmetic.measuring import Change
from studies.safety_arithmetic.tables import WHOLE, Study

COEFFICIENTS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
STRENGTHS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)


def density_curve(study: Study) -> Curve:
    """Stage 1 alone at the chosen coefficient."""
    return _curve(study, DENSITIES, lambda one, value: replace(one, density=value, steering=0.0))


def coefficient_curve(study: Study, *, steered: bool = False) -> Curve:
    """Stage 1 at the paper's density, with or without stage 2 at the chosen strength."""
    return _curve(
        study,
        COEFFICIENTS,
        lambda one, value: replace(one, coefficient=value, steering=one.steering if steered else 0.0),
    )


def strength_curve(study: Study) -> Curve:
    """Stage 2 at several strengths on top of the chosen stage 1."""
    return _curve(study, STRENGTHS, lambda one, value: replace(one, steering=value))


def _curve(study: Study, values: Sequence[float], change: Callable[[Change, float], Change]) -> Curve:
    whole = study.changes(WHOLE)
    return [(value, pooled(study.measured([change(one, value) for one in whole]))) for value in values]
