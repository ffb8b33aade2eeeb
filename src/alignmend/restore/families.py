"""Families of candidates: which methods a search tries, in which order, what each needs, and where each begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from alignmend.errors import RecipeError
from alignmend.methods.candidates import Between, Candidates
from alignmend.methods.registry import Method, method_names, methods
from alignmend.restore import family_numbers as numbers
from alignmend.restore.family_numbers import Suggest

__all__ = ["FAMILIES", "ORDER", "RANGES", "Candidate", "Family", "Nesting", "Numbers", "Parameters", "Suggest"]

Parameters = Mapping[str, Any]
Numbers = Mapping[str, Any]
"""What a trial holds: numbers by `family.name`."""


@dataclass(frozen=True)
class Nesting:
    """How a family holds a smaller one: it begins at the best that is found of that."""

    inner: str
    """The smaller family."""
    lift: Callable[[Numbers], Numbers]
    """Its numbers as the larger one's, at the value at which both are the same."""
    neutral: tuple[str, Any]
    """That value, by name."""
    starts: Callable[[Numbers], tuple[Numbers, ...]]
    """From lifted numbers, what to try first."""


@dataclass(frozen=True)
class Family:
    """One method with the roles that it needs and the numbers that a search tries; `first` are tried before others."""

    method: str
    summary: str
    needs: tuple[str, ...]
    suggest: Suggest
    first: tuple[Numbers, ...]
    numbers: int
    """How many a search chooses; a family with more of them gets more candidates."""
    steered: bool = False
    step_name: str = "coefficient"
    """The number that says how far a candidate goes: more of it is safer, and dearer."""
    low_rank: bool = False
    """Whether adapters in give an adapter out."""
    nesting: Nesting | None = None
    without_unaligned: bool = False
    """Tried by itself only where there is no unaligned model: what it costs, others spare."""
    warning: str = ""
    """What it costs, told before it is tried."""


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


def _at(name: str, **values: Any) -> Numbers:
    return {f"{name}.{key}": value for key, value in values.items()}


def _lifted(inner: str, outer: str, **added: Any) -> Callable[[Numbers], Numbers]:
    """The numbers of one family under the name of another."""

    def lift(found: Numbers) -> Numbers:
        own = {f"{outer}.{name.partition('.')[2]}": value for name, value in found.items()}
        step = f"{outer}.coefficient"
        return {**own, step: on_grid(step, own[step]), **_at(outer, **added)}

    return lift


def _moved(outer: str, *moves: Mapping[str, Any], longer: float = 1.0) -> Callable[[Numbers], tuple[Numbers, ...]]:
    """The same numbers with some of them others; `longer` times the coefficient."""
    step = f"{outer}.coefficient"

    def starts(found: Numbers) -> tuple[Numbers, ...]:
        return tuple({**found, step: on_grid(step, longer * found[step]), **_at(outer, **move)} for move in moves)

    return starts


_VECTOR = ("aligned", "unaligned")
_HDR, _HDR_LAYERS, _SAFETY = "harm_direction_removal", "harm_direction_removal_layers", "safety_arithmetic"
ORDER = (
    "resta_weighted",
    "resta_weighted_unaligned",
    "closed_form",
    "resta",
    "conflict_mask",
    "pre_post_merge",
    "safe_delta",
    "resta_layers",
    "resta_drop",
    _HDR,
    _HDR_LAYERS,
    _SAFETY,
    "safe_patching",
)
"""What is tried first, where it is there; other families follow."""
_KNOWN: Mapping[str, Family] = {
    "resta": Family(
        "resta",
        "RESTA: the safety vector added",
        _VECTOR,
        numbers.one_number("resta"),
        tuple(_at("resta", coefficient=value) for value in (0.5, 1.0, 0.25)),
        1,
        low_rank=True,
    ),
    "resta_weighted": Family(
        "resta_weighted",
        "aligned - finetuned, weighed by the inputs that it meets: no unaligned model",
        ("aligned", "moments"),
        numbers.weighted("resta_weighted", "aligned-finetuned"),
        tuple(_at("resta_weighted", beta=beta, coefficient=g) for beta, g in ((1.0, 1.2), (3.0, 1.8))),
        2,
        low_rank=True,
    ),
    "resta_weighted_unaligned": Family(
        "resta_weighted",
        "RESTA's safety vector, weighed by the inputs that it meets",
        (*_VECTOR, "moments"),
        numbers.weighted("resta_weighted_unaligned", "aligned-unaligned"),
        tuple(_at("resta_weighted_unaligned", beta=beta, coefficient=g) for beta, g in ((1.0, 0.85), (3.0, 1.2))),
        2,
        low_rank=True,
    ),
    "resta_layers": Family(
        "resta",
        "RESTA, stronger in early or in late layers",
        _VECTOR,
        numbers.resta_layers,
        (),
        2,
        low_rank=True,
        nesting=Nesting(
            "resta",
            _lifted("resta", "resta_layers", tilt=numbers.WHOLE_TILT),
            ("resta_layers.tilt", numbers.WHOLE_TILT),
            _moved("resta_layers", {"tilt": 0.4}, {"tilt": -0.4}),
        ),
    ),
    "resta_drop": Family(
        "resta",
        "RESTA_d: the task delta thinned at random first",
        _VECTOR,
        numbers.resta_drop,
        (),
        2,
        nesting=Nesting(
            "resta",
            _lifted("resta", "resta_drop", density=numbers.WHOLE_DENSITY),
            ("resta_drop.density", numbers.WHOLE_DENSITY),
            _moved("resta_drop", {"density": 0.9}, {"density": 0.7}),
        ),
    ),
    _HDR: Family(
        _HDR,
        "Harm Direction Removal: the largest weights of the harm vector subtracted",
        _VECTOR,
        numbers.harm_direction_removal,
        tuple(_at(_HDR, coefficient=value, density=0.1) for value in (1.0, 2.5)),
        2,
    ),
    _HDR_LAYERS: Family(
        _HDR,
        "Harm Direction Removal in half of the layers",
        _VECTOR,
        numbers.harm_direction_removal_layers,
        (),
        3,
        nesting=Nesting(
            _HDR,
            _lifted(_HDR, _HDR_LAYERS, where=numbers.EVERY_LAYER),
            (f"{_HDR_LAYERS}.where", numbers.EVERY_LAYER),
            _moved(_HDR_LAYERS, {"where": "middle"}, {"where": "lower"}, longer=1.5),
        ),
    ),
    _SAFETY: Family(
        _SAFETY,
        "Safety Arithmetic: Harm Direction Removal and a steering vector on top",
        (*_VECTOR, "pairs"),
        numbers.safety_arithmetic,
        (),
        3,
        steered=True,
        nesting=Nesting(
            _HDR,
            _lifted(_HDR, _SAFETY, steering=numbers.UNSTEERED),
            (f"{_SAFETY}.steering", numbers.UNSTEERED),
            _moved(_SAFETY, {"steering": 0.02}, {"steering": 0.06}),
        ),
    ),
    "safe_patching": Family(
        "safe_patching",
        "SafePatching: a safety and an over-safety patch where they do not conflict",
        ("patches",),
        numbers.safe_patching,
        tuple(
            _at("safe_patching", rate=0.1, mode=mode, safety=1.0, over_safety=over_safety, density=0.3)
            for mode, over_safety in (("strict", 0.5), ("conflict", 0.25))
        ),
        5,
        step_name="safety",
    ),
}
_UNALIGNED = {"unaligned", "harmful"}
_PLAYED = {"finetuned", "target", "aligned", *_UNALIGNED, "moments"}
"""Operands that a restore has for a method."""


def _declared(method: Method, said: Candidates) -> Family:
    """The family that a method's own file offers; what it needs is read from the function's arguments."""
    needed = [one.name for one in method.arguments.values() if one.is_operand and one.required]
    if unknown := [name for name in needed if name not in _PLAYED]:
        raise RecipeError(
            f"method {method.name!r} offers itself to the search, but needs {', '.join(unknown)}, which it lacks:",
            advice=f"it has {', '.join(sorted(_PLAYED))}",
        )
    if not {"finetuned", "target"} & set(needed):
        raise RecipeError(f"method {method.name!r} offers itself to the search, but takes no finetuned and no target")
    if missing := sorted(set(said.numbers) - set(method.arguments)):
        raise RecipeError(f"method {method.name!r} has no {', '.join(missing)}, which it says is searched")
    needs = {"unaligned" if name in _UNALIGNED else name for name in needed} - {"finetuned", "target"}
    return Family(
        method.name,
        said.summary,
        tuple(name for name in ("aligned", "unaligned", "moments") if name in needs),
        numbers.declared(method.name, said.numbers),
        tuple(_at(method.name, **one) for one in said.first),
        len(said.numbers),
        step_name=said.step_name,
        low_rank=said.low_rank,
        without_unaligned=said.without_unaligned,
        warning=said.warning,
    )


_OFFERED = {name: method.candidates for name, method in methods().items() if method.candidates is not None}
_ALL = {**_KNOWN, **{name: _declared(methods()[name], said) for name, said in _OFFERED.items()}}
FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        name: _ALL[name]
        for name in dict.fromkeys((*ORDER, *_ALL))
        if name in _ALL and _ALL[name].method in method_names()
    }
)
"""By name, in the order in which they are tried; of methods that there are."""
RANGES: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    dict(numbers.RANGES)
    | {
        f"{name}.{number}": (among.least, among.most, among.step)
        for name, said in _OFFERED.items()
        for number, among in said.numbers.items()
        if isinstance(among, Between)
    }
)
"""Least, most, and the grid between, of every number that is searched."""


def on_grid(name: str, value: float) -> float:
    """The nearest number that a search may try."""
    low, high, step = RANGES[name]
    return round(min(high, max(low, low + round((value - low) / step) * step)), 6)
