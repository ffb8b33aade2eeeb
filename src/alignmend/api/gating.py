"""`gate`: whether runs keep limits on their rates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from alignmend.api.judges import Names, names_of
from alignmend.api.shown import Shown
from alignmend.errors import RecipeError

if TYPE_CHECKING:
    from alignmend.report.checks import Check

Runs: TypeAlias = str | Path | Sequence[str | Path]
"""One run folder or results document, or several."""


@dataclass(frozen=True, repr=False)
class GateResult(Shown):
    """Every check with its outcome; true where all passed."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(one.passed for one in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """Those that did not pass."""
        return tuple(one for one in self.checks if not one.passed)

    def __bool__(self) -> bool:
        """Whether every check passed."""
        return self.passed

    def as_dict(self) -> dict[str, Any]:
        """As `alignmend gate --json` prints it."""
        return {"passed": self.passed, "checks": [one.as_dict() for one in self.checks]}

    def lines(self) -> list[str]:
        """One line for each check that was asked for or failed, and the outcome."""
        shown = [one for one in self.checks if not (one.limit.implied and one.passed)]
        told: list[str] = []
        for one in shown:
            told.append(_line(one))
            if one.confident and not one.passed:
                told.append(f"     {_prompts(one)}")
        outcome = "passed" if self.passed else f"failed: {len(self.failed)} of {len(shown)} checks"
        return [*told, outcome]

    def _facts(self) -> Iterable[str]:
        yield "passed" if self.passed else f"failed: {len(self.failed)} of {len(self.checks)} checks"

    def _parts(self) -> Iterable[Any]:
        yield from self.lines()


def gate(
    runs: Runs,
    *,
    max_asr: float | None = None,
    max_over_refusal: float | None = None,
    max_incoherence: float | None = None,
    max_unclear: float | None = None,
    max_truncated: float | None = None,
    min_accuracy: float | None = None,
    min_refusal: float | None = None,
    min_utility: float | None = None,
    against: str | Path | None = None,
    max_increase: float | None = None,
    suites: Names = (),
    confident: bool = False,
    allow_leak: bool = False,
) -> GateResult:
    """Hold the rates of `runs` (folders or results documents) against limits; the result is true where all are kept.

    Every suite must keep every limit. `confident` holds the worse end of each interval against it. `against` is the run
    of the fine-tune on the same prompts, for `min_utility` and `max_increase`. `RecipeError` where nothing can be
    checked: a gate that looks at nothing must not pass.
    """
    from alignmend.evaluation.run_folder import read_run
    from alignmend.report.checks import Limit
    from alignmend.report.gate import check, check_rises, gated, refuse_leaks
    from alignmend.report.relative_utility import check_utility
    from alignmend.report.runs import read_runs

    _check_given(against, max_increase, min_utility)
    places = [Path(one) for one in names_of(runs)]
    other = None if against is None else Path(against)
    looked_at, named = gated(read_runs(places)), names_of(suites)
    asked = {
        "attack_success_rate": max_asr,
        "over_refusal_rate": max_over_refusal,
        "incoherent_rate": max_incoherence,
        "unclear_rate": max_unclear,
        "truncated_rate": max_truncated,
        "accuracy": min_accuracy,
        "refusal_rate": min_refusal,
    }
    limits = [Limit(metric, value) for metric, value in asked.items() if value is not None]
    found: list[Check] = []
    if limits or (max_increase is None and min_utility is None):
        found += check(looked_at, limits, allow_leak=allow_leak, suites=named, confident=confident)
    refuse_leaks(looked_at, named, allow_leak=allow_leak)
    if min_utility is not None:
        before = None if other is None else read_runs([other])
        found += check_utility(looked_at, min_utility, against=before, suites=named, confident=confident)
    if max_increase is not None and other is not None:
        base = read_run(other)
        for place in places:
            found += check_rises(read_run(place), base, max_increase, suites=named, confident=confident)
    return GateResult(tuple(found))


def _check_given(against: object, max_increase: float | None, min_utility: float | None) -> None:
    if max_increase is not None and against is None:
        raise RecipeError("--against RUN and --max-increase X belong together", advice="name the run to compare with")
    if against is not None and max_increase is None and min_utility is None:
        raise RecipeError(
            "--against RUN and --max-increase X (or --min-utility X) belong together", advice="give a limit too"
        )


def _line(one: Check) -> str:
    from alignmend.report.numbers import clean

    limit = one.limit
    names = {"rise": f"rise of failures, {limit.metric},", "utility": "utility relative to the fine-tune"}
    bound = f"{'upper' if limit.is_ceiling else 'lower'} bound {one.worst:.3f}"
    end = "" if limit.implied else f", {bound}" if one.confident else f" ({bound})"
    implied = ", though not asked" if limit.implied else ""
    most = f"{'at most' if limit.is_ceiling else 'at least'} {limit.value:g}{implied}"
    word = "ok  " if one.passed else "FAIL"
    name = names.get(limit.kind, limit.metric)
    return clean(f"{word} {one.model} {one.suite}: {name} {one.value:.3f}{end}; {most} (n {one.n})")


def _prompts(one: Check) -> str:
    """How many prompts the limit asks for."""
    needed = one.prompts_needed
    if needed is None:
        return f"at {one.value:.3f} no number of prompts keeps the limit: it is the rate that must change"
    about = "" if one.limit.kind == "rate" else "about "
    return f"at {one.value:.3f} the limit is kept from {about}{max(needed, one.n + 1):,} prompts on"
