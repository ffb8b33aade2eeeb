"""Families of candidates: which methods a search tries, what each needs, and between which numbers it looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

Parameters = Mapping[str, Any]


class Suggests(Protocol):
    """The part of an Optuna trial that a family asks for its numbers."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None) -> float: ...
    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


Suggest = Callable[[Suggests, int], dict[str, Any]]
"""Given a trial and the number of decoder layers, a family's parameters."""


@dataclass(frozen=True)
class Family:
    """One method with the roles that it needs and the numbers that a search tries; `first` are tried before others."""

    method: str
    summary: str
    needs: tuple[str, ...]
    suggest: Suggest
    first: tuple[Mapping[str, Any], ...]
    steered: bool = False
    step_name: str = "coefficient"
    """The number that says how far a candidate goes: more of it is safer, and dearer."""
    low_rank: bool = False
    """Whether adapters in give an adapter out."""


@dataclass(frozen=True)
class Candidate:
    """A method with its numbers."""

    family: str
    parameters: Parameters

    @property
    def label(self) -> str:
        """For tables: the family and what was chosen."""
        told = {name: value for name, value in self.parameters.items() if name not in _TOLD_BY_FAMILY}
        shown = ", ".join(f"{_SHORT.get(name, name)} {_text(value)}" for name, value in told.items())
        return f"{self.family} ({shown})" if shown else self.family


RANGES: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {
        "resta.coefficient": (0.1, 2.0, 0.025),
        "resta_weighted.coefficient": (0.3, 3.0, 0.05),
        "resta_weighted_unaligned.coefficient": (0.3, 3.0, 0.05),
        "resta_drop.coefficient": (0.1, 2.0, 0.025),
        "resta_layers.coefficient": (0.1, 2.0, 0.025),
        "harm_direction_removal.coefficient": (0.25, 4.0, 0.125),
        "harm_direction_removal_layers.coefficient": (0.25, 4.0, 0.125),
        "safety_arithmetic.coefficient": (0.25, 3.0, 0.125),
        "safety_arithmetic.steering": (0.02, 0.2, 0.02),
        "safe_patching.safety": (0.25, 2.5, 0.125),
        "safe_patching.over_safety": (0.0, 1.5, 0.125),
    }
)
"""Least, most, and the grid between."""


def _number(trial: Suggests, name: str) -> float:
    low, high, step = RANGES[name]
    return trial.suggest_float(name, low, high, step=step)


_TOLD_BY_FAMILY = {"direction"}
_SHORT = {"layer_coefficients": "layers", "steering_coefficient": "steering"}


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        factors = list(value.values())
        return f"{factors[0]:.2g} to {factors[-1]:.2g}"
    if isinstance(value, list | tuple):
        return f"{value[0]}-{value[-1]}" if value else "none"
    return str(value)


def _resta(trial: Suggests, layers: int) -> dict[str, Any]:
    return {"coefficient": _number(trial, "resta.coefficient")}


def _weighted(name: str, direction: str) -> Suggest:
    def suggest(trial: Suggests, layers: int) -> dict[str, Any]:
        return {
            "coefficient": _number(trial, f"{name}.coefficient"),
            "beta": trial.suggest_categorical(f"{name}.beta", (1.0, 3.0)),
            "direction": direction,
        }

    return suggest


def _weighted_first(name: str, *tries: tuple[float, float]) -> tuple[Mapping[str, Any], ...]:
    """By beta and coefficient."""
    return tuple({f"{name}.beta": beta, f"{name}.coefficient": coefficient} for beta, coefficient in tries)


def _resta_drop(trial: Suggests, layers: int) -> dict[str, Any]:
    return {
        "coefficient": _number(trial, "resta_drop.coefficient"),
        "density": trial.suggest_categorical("resta_drop.density", (0.3, 0.5, 0.7, 0.9)),
    }


def _resta_layers(trial: Suggests, layers: int) -> dict[str, Any]:
    coefficient = _number(trial, "resta_layers.coefficient")
    tilt = trial.suggest_categorical("resta_layers.tilt", (-0.8, -0.4, 0.4, 0.8))
    return {"coefficient": coefficient, "layer_coefficients": _tilted(tilt, layers)}


def _tilted(tilt: float, layers: int) -> dict[str, float]:
    """Factors along a line from the first layer to the last, 1 in the middle."""
    last = max(1, layers - 1)
    return {str(layer): round(1 + tilt * (2 * layer / last - 1), 4) for layer in range(layers)}


def _harm_direction_removal(trial: Suggests, layers: int) -> dict[str, Any]:
    return {
        "coefficient": _number(trial, "harm_direction_removal.coefficient"),
        "density": trial.suggest_categorical("harm_direction_removal.density", (0.05, 0.1, 0.2, 0.4)),
    }


def _harm_direction_removal_layers(trial: Suggests, layers: int) -> dict[str, Any]:
    name = "harm_direction_removal_layers"
    where = trial.suggest_categorical(f"{name}.where", ("lower", "middle", "upper"))
    return {
        "coefficient": _number(trial, f"{name}.coefficient"),
        "density": trial.suggest_categorical(f"{name}.density", (0.1, 0.4)),
        "layers": _part(where, layers),
    }


def _part(where: str, layers: int) -> list[int]:
    half = max(1, layers // 2)
    start = {"lower": 0, "middle": (layers - half) // 2, "upper": layers - half}[where]
    return list(range(start, start + half))


def _safety_arithmetic(trial: Suggests, layers: int) -> dict[str, Any]:
    return {
        "coefficient": _number(trial, "safety_arithmetic.coefficient"),
        "density": trial.suggest_categorical("safety_arithmetic.density", (0.1, 0.4)),
        "steering_coefficient": _number(trial, "safety_arithmetic.steering"),
    }


def _safe_patching(trial: Suggests, layers: int) -> dict[str, Any]:
    rate = trial.suggest_categorical("safe_patching.rate", (0.03, 0.1, 0.3))
    return {
        "mode": trial.suggest_categorical("safe_patching.mode", ("strict", "conflict")),
        "safety_coefficient": _number(trial, "safe_patching.safety"),
        "over_safety_coefficient": _number(trial, "safe_patching.over_safety"),
        "density": trial.suggest_categorical("safe_patching.density", (0.3, 0.6, 1.0)),
        "safety_rate": rate,
        "over_safety_rate": rate,
    }


_VECTOR = ("aligned", "unaligned")
FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "resta": Family(
            "resta",
            "RESTA: the safety vector added",
            _VECTOR,
            _resta,
            tuple({"resta.coefficient": value} for value in (0.5, 1.0, 0.25)),
            low_rank=True,
        ),
        "resta_weighted": Family(
            "resta_weighted",
            "aligned - finetuned, weighed by the inputs that it meets: no unaligned model",
            ("aligned", "moments"),
            _weighted("resta_weighted", "aligned-finetuned"),
            _weighted_first("resta_weighted", (1.0, 1.2), (3.0, 1.8), (1.0, 0.75), (3.0, 1.2)),
            low_rank=True,
        ),
        "resta_weighted_unaligned": Family(
            "resta_weighted",
            "RESTA's safety vector, weighed by the inputs that it meets",
            (*_VECTOR, "moments"),
            _weighted("resta_weighted_unaligned", "aligned-unaligned"),
            _weighted_first("resta_weighted_unaligned", (1.0, 0.85), (3.0, 1.2), (1.0, 1.2)),
            low_rank=True,
        ),
        "resta_drop": Family(
            "resta",
            "RESTA_d: the task delta thinned at random first",
            _VECTOR,
            _resta_drop,
            ({"resta_drop.coefficient": 0.5, "resta_drop.density": 0.7},),
        ),
        "resta_layers": Family(
            "resta",
            "RESTA, stronger in early or in late layers",
            _VECTOR,
            _resta_layers,
            ({"resta_layers.coefficient": 0.5, "resta_layers.tilt": 0.4},),
            low_rank=True,
        ),
        "harm_direction_removal": Family(
            "harm_direction_removal",
            "Harm Direction Removal: the largest weights of the harm vector subtracted",
            _VECTOR,
            _harm_direction_removal,
            tuple(
                {"harm_direction_removal.coefficient": value, "harm_direction_removal.density": 0.1}
                for value in (1.0, 2.5)
            ),
        ),
        "harm_direction_removal_layers": Family(
            "harm_direction_removal",
            "Harm Direction Removal in half of the layers",
            _VECTOR,
            _harm_direction_removal_layers,
            (),
        ),
        "safety_arithmetic": Family(
            "safety_arithmetic",
            "Safety Arithmetic: Harm Direction Removal and a steering vector on top",
            (*_VECTOR, "pairs"),
            _safety_arithmetic,
            (
                {
                    "safety_arithmetic.coefficient": 1.0,
                    "safety_arithmetic.density": 0.1,
                    "safety_arithmetic.steering": 0.1,
                },
            ),
            steered=True,
        ),
        "safe_patching": Family(
            "safe_patching",
            "SafePatching: a safety and an over-safety patch where they do not conflict",
            ("patches",),
            _safe_patching,
            tuple(
                {
                    "safe_patching.rate": 0.1,
                    "safe_patching.mode": mode,
                    "safe_patching.safety": 1.0,
                    "safe_patching.over_safety": over_safety,
                    "safe_patching.density": 0.3,
                }
                for mode, over_safety in (("strict", 0.5), ("conflict", 0.25))
            ),
            step_name="safety",
        ),
    }
)
