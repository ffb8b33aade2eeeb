"""Between which numbers a search looks, and how a trial's numbers become parameters.

A method's own file may declare its ranges; those of the other families are here.

Families nest. Where the smaller one (`Space.holds`) is searched as well, the larger one leaves the value out at which
both are the same: what is known already is not measured again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from alignmend.methods.candidates import Between, OneOf


class Suggests(Protocol):
    """The part of an Optuna trial that a family asks for its numbers."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None) -> float: ...
    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


@dataclass(frozen=True)
class Space:
    """What numbers depend on: decoder layers, and the families that are searched beside."""

    layers: int
    families: frozenset[str] = field(default_factory=frozenset)

    def holds(self, family: str) -> bool:
        """Whether it is searched as well."""
        return family in self.families


Suggest = Callable[[Suggests, Space], dict[str, Any]]
"""Given a trial and what numbers depend on, a family's parameters."""

RANGES: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {
        "resta.coefficient": (0.1, 2.0, 0.025),
        "resta_weighted.coefficient": (0.3, 3.0, 0.05),
        "resta_weighted_unaligned.coefficient": (0.3, 3.0, 0.05),
        "resta_drop.coefficient": (0.1, 2.0, 0.025),
        "resta_layers.coefficient": (0.1, 2.0, 0.025),
        "harm_direction_removal.coefficient": (0.25, 4.0, 0.125),
        "harm_direction_removal_layers.coefficient": (0.25, 6.0, 0.125),
        "safety_arithmetic.coefficient": (0.25, 4.0, 0.125),
        "safety_arithmetic.steering": (0.0, 0.2, 0.02),
        "safe_patching.safety": (0.25, 2.5, 0.125),
        "safe_patching.over_safety": (0.0, 1.5, 0.125),
    }
)
"""Least, most, and the grid between."""
WHOLE_TILT, WHOLE_DENSITY, EVERY_LAYER, UNSTEERED = 0.0, 1.0, "all", 0.0
"""Values at which a family is the one that it grew from."""
_HDR_DENSITIES = (0.05, 0.1, 0.2, 0.4)


def _number(trial: Suggests, name: str, *, above_least: bool = False) -> float:
    low, high, step = RANGES[name]
    return trial.suggest_float(name, low + step if above_least else low, high, step=step)


def _chosen(trial: Suggests, name: str, whole: Any, others: tuple[Any, ...], *, nested: bool) -> Any:
    return trial.suggest_categorical(name, others if nested else (whole, *others))


def one_number(family: str) -> Suggest:
    """A coefficient."""

    def suggest(trial: Suggests, space: Space) -> dict[str, Any]:
        return {"coefficient": _number(trial, f"{family}.coefficient")}

    return suggest


def declared(family: str, numbers: Mapping[str, Between | OneOf]) -> Suggest:
    """What a method's own file says is searched."""

    def one(trial: Suggests, name: str, among: Between | OneOf) -> Any:
        if isinstance(among, OneOf):
            return trial.suggest_categorical(f"{family}.{name}", among.values)
        return trial.suggest_float(f"{family}.{name}", among.least, among.most, step=among.step)

    def suggest(trial: Suggests, space: Space) -> dict[str, Any]:
        return {name: one(trial, name, among) for name, among in numbers.items()}

    return suggest


def weighted(name: str, direction: str) -> Suggest:
    """A coefficient and beta, along a direction."""

    def suggest(trial: Suggests, space: Space) -> dict[str, Any]:
        return {
            "coefficient": _number(trial, f"{name}.coefficient"),
            "beta": trial.suggest_categorical(f"{name}.beta", (1.0, 3.0)),
            "direction": direction,
        }

    return suggest


def resta_drop(trial: Suggests, space: Space) -> dict[str, Any]:
    """A coefficient and a share that stays."""
    nested = space.holds("resta")
    return {
        "coefficient": _number(trial, "resta_drop.coefficient"),
        "density": _chosen(trial, "resta_drop.density", WHOLE_DENSITY, (0.3, 0.5, 0.7, 0.9), nested=nested),
    }


def resta_layers(trial: Suggests, space: Space) -> dict[str, Any]:
    """A coefficient and a tilt over the layers."""
    coefficient = _number(trial, "resta_layers.coefficient")
    nested = space.holds("resta")
    tilt = _chosen(trial, "resta_layers.tilt", WHOLE_TILT, (-0.8, -0.4, 0.4, 0.8), nested=nested)
    return {"coefficient": coefficient, "layer_coefficients": _tilted(tilt, space.layers)}


def _tilted(tilt: float, layers: int) -> dict[str, float]:
    """Factors along a line from the first layer to the last, 1 in the middle."""
    last = max(1, layers - 1)
    return {str(layer): round(1 + tilt * (2 * layer / last - 1), 4) for layer in range(layers)}


def harm_direction_removal(trial: Suggests, space: Space) -> dict[str, Any]:
    """A coefficient and a share."""
    return {
        "coefficient": _number(trial, "harm_direction_removal.coefficient"),
        "density": trial.suggest_categorical("harm_direction_removal.density", _HDR_DENSITIES),
    }


def harm_direction_removal_layers(trial: Suggests, space: Space) -> dict[str, Any]:
    """The same, and which half of the layers."""
    name = "harm_direction_removal_layers"
    nested = space.holds("harm_direction_removal")
    where = _chosen(trial, f"{name}.where", EVERY_LAYER, ("lower", "middle", "upper"), nested=nested)
    found = {
        "coefficient": _number(trial, f"{name}.coefficient"),
        "density": trial.suggest_categorical(f"{name}.density", _HDR_DENSITIES),
    }
    return found if where == EVERY_LAYER else {**found, "layers": _part(where, space.layers)}


def _part(where: str, layers: int) -> list[int]:
    half = max(1, layers // 2)
    start = {"lower": 0, "middle": (layers - half) // 2, "upper": layers - half}[where]
    return list(range(start, start + half))


def safety_arithmetic(trial: Suggests, space: Space) -> dict[str, Any]:
    """A coefficient, a share, and a strength of steering."""
    nested = space.holds("harm_direction_removal")
    return {
        "coefficient": _number(trial, "safety_arithmetic.coefficient"),
        "density": trial.suggest_categorical("safety_arithmetic.density", _HDR_DENSITIES),
        "steering_coefficient": _number(trial, "safety_arithmetic.steering", above_least=nested),
    }


def safe_patching(trial: Suggests, space: Space) -> dict[str, Any]:
    """A mode, a rate, a share, and two coefficients."""
    rate = trial.suggest_categorical("safe_patching.rate", (0.03, 0.1, 0.3))
    return {
        "mode": trial.suggest_categorical("safe_patching.mode", ("strict", "conflict")),
        "safety_coefficient": _number(trial, "safe_patching.safety"),
        "over_safety_coefficient": _number(trial, "safe_patching.over_safety"),
        "density": trial.suggest_categorical("safe_patching.density", (0.3, 0.6, 1.0)),
        "safety_rate": rate,
        "over_safety_rate": rate,
    }
