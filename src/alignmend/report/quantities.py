"""The four quantities that always stand together, each over all its suites."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignmend.evaluation.metrics import ALL_SUITES, wilson
from alignmend.report.runs import Measured, Runs


@dataclass(frozen=True)
class Quantity:
    """One of the four; `tone` names its colour."""

    metric: str
    name: str
    label: str
    meaning: str
    tone: str
    higher_is_better: bool = False


HARM = Quantity(
    "attack_success_rate", "Harm", "attack success", "harmful requests that got what they asked for", "attack"
)
OVER_REFUSAL = Quantity(
    "over_refusal_rate", "Over-refusal", "over-refusal", "harmless requests that were refused", "over"
)
UTILITY = Quantity("accuracy", "Utility", "accuracy", "known answers that were given", "task", higher_is_better=True)
KEPT = Quantity(
    "utility",
    "Utility",
    "likelihood kept",
    "likelihood of texts that must stay, of the fine-tune's",
    "task",
    higher_is_better=True,
)
"""In the place of accuracy where no suite has known answers and a restore measured it."""
INCOHERENCE = Quantity("incoherent_rate", "Incoherence", "incoherence", "answers that are noise or empty", "noise")
QUANTITIES = (HARM, OVER_REFUSAL, UTILITY, INCOHERENCE)


@dataclass(frozen=True)
class Pooled:
    """One quantity over the prompts of `suites`, which every model with such a rate answered; one rate per model.

    A rate is `None` where the model was not measured on all of them.
    """

    quantity: Quantity
    suites: tuple[str, ...]
    rates: tuple[Mapping[str, Any] | None, ...]

    @property
    def known(self) -> bool:
        """Whether any model has it."""
        return any(rate is not None for rate in self.rates)


def pooled_quantities(runs: Runs, left_out: Collection[str] = ()) -> tuple[Pooled, ...]:
    """All four, in order; `left_out` are suites that must not count (they were tuned on)."""
    found = tuple(_pooled(quantity, runs, left_out) for quantity in QUANTITIES)
    kept = None if found[2].known else _kept(runs)
    return found if kept is None else (*found[:2], kept, *found[3:])


def _kept(runs: Runs) -> Pooled | None:
    """The likelihood that was kept, where every model has it of the same texts."""
    names = [{suite for suite, rates in one.rates.items() if KEPT.metric in rates} for one in runs.models]
    if not names or any(found != names[0] for found in names) or len(names[0]) != 1:
        return None
    (suite,) = names[0]
    return Pooled(KEPT, (suite,), tuple(one.rates[suite][KEPT.metric] for one in runs.models))


def _pooled(quantity: Quantity, runs: Runs, left_out: Collection[str]) -> Pooled:
    suites = _suites_for(quantity, runs, left_out)
    return Pooled(quantity, suites, tuple(_rate(one, quantity.metric, suites) for one in runs.models))


def _suites_for(quantity: Quantity, runs: Runs, left_out: Collection[str]) -> tuple[str, ...]:
    """Suites that all models with such a rate share.

    The same requests in another wrapping are not counted again, and plain tasks do not dilute over-refusal.
    """
    having = [_having(one, quantity.metric) for one in runs.models]
    measured = [names for names in having if names]
    shared = [name for name in measured[0] if all(name in names for names in measured)] if measured else []
    shared = [name for name in shared if not runs.suites.get(name, {}).get("transform")] or shared
    if quantity is OVER_REFUSAL:
        shared = [name for name in shared if _is_borderline(name, runs)] or shared
    return tuple(name for name in shared if name not in left_out)


def _having(measured: Measured, metric: str) -> list[str]:
    return [suite for suite, rates in measured.rates.items() if suite != ALL_SUITES and metric in rates]


def _is_borderline(suite: str, runs: Runs) -> bool:
    """By its recorded kind; by having no known answers where no kind is recorded."""
    kind = runs.suites.get(suite, {}).get("kind")
    if kind is not None:
        return bool(kind == "borderline")
    return not any("accuracy" in one.rates.get(suite, {}) for one in runs.models)


def _rate(measured: Measured, metric: str, suites: Sequence[str]) -> dict[str, float | int] | None:
    found = [measured.rates.get(suite, {}).get(metric) for suite in suites]
    rates = [rate for rate in found if rate is not None]
    if not rates or len(rates) < len(suites):
        return None
    count = sum(round(rate["value"] * rate["n"]) for rate in rates)
    return wilson(count, sum(rate["n"] for rate in rates)).as_dict()
