"""How much of the fine-tune's utility is left: accuracies as shares of the fine-tune's, suite by suite."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from alignmend.errors import MismatchError, RecipeError
from alignmend.evaluation.statistics import Z_95
from alignmend.report.checks import Check, Limit
from alignmend.report.gate import FINETUNED, asked_rates
from alignmend.report.runs import Measured, Runs

ACCURACY, UTILITY = "accuracy", "utility"
Suites = Mapping[str, Mapping[str, Any]]


def check_utility(
    runs: Runs,
    limit: float,
    *,
    against: Runs | None = None,
    suites: Collection[str] = (),
    confident: bool = False,
) -> tuple[Check, ...]:
    """Each suite's utility relative to the fine-tune, which must be at least `limit`, of every model but the fine-tune.

    The fine-tune is the model of `against`, else `finetuned` of the same results. A suite's utility is its accuracy, as
    a share of the fine-tune's; or its metric `utility`, which is relative already. Suites of which the fine-tune knows
    no answer say nothing. Raises `RecipeError` where there is no fine-tune or nothing to compare, `MismatchError` where
    a suite has other prompts.
    """
    floor = Limit(UTILITY, limit, kind="utility")
    models = [one for one in runs.models if against is not None or one.model != FINETUNED]
    found = []
    for measured in models or runs.models:
        compared = [*_checks(measured, _finetuned(measured, runs, against), floor, suites, confident)]
        if not compared:
            raise RecipeError(
                f"the run of {measured.label} has no utility to check: no suite with an accuracy or utility that the "
                "fine-tune has above 0;",
                advice="evaluate a suite with known answers",
            )
        found += compared
    return tuple(found)


def _finetuned(measured: Measured, runs: Runs, against: Runs | None) -> Measured:
    if against is not None:
        named = [one for one in against.models if one.model == FINETUNED] or list(against.models)
        if len(named) > 1:
            raise RecipeError(
                f"--against holds several models ({', '.join(one.label for one in named)}), none or several of them "
                f"{FINETUNED!r}",
                advice="name the fine-tune's own run",
            )
        return named[0]
    rates = measured.document.get("models", {}).get(FINETUNED)
    if rates is None or measured.model == FINETUNED:
        raise RecipeError(
            f"--min-utility is relative to the fine-tune, and the results of {measured.label} hold no other model "
            f"called {FINETUNED!r}",
            advice="name its run with --against RUN",
        )
    return Measured(FINETUNED, FINETUNED, rates, {}, measured.document)


def _checks(
    measured: Measured, finetuned: Measured, limit: Limit, suites: Collection[str], confident: bool
) -> Iterator[Check]:
    before = asked_rates(finetuned, ())
    for suite, rates in asked_rates(measured, suites).items():
        if UTILITY in rates:
            rate = rates[UTILITY]
            yield Check(measured.label, suite, limit, rate["value"], rate["low"], rate["n"], confident)
        elif ACCURACY in rates:
            _check_comparable(suite, measured, finetuned, before)
            known, rate = (_unrounded(of[ACCURACY]) for of in (before[suite], rates))
            if known[0] > 0:
                yield Check(
                    measured.label, suite, limit, rate[0] / known[0], ratio_low(*rate, *known), rate[1], confident
                )


def _unrounded(rate: Mapping[str, Any]) -> tuple[float, int]:
    """The share of n that a rate of six decimals stands for, and n."""
    n = int(rate["n"])
    return round(rate["value"] * n) / n, n


def _check_comparable(suite: str, measured: Measured, finetuned: Measured, before: Suites) -> None:
    if ACCURACY not in before.get(suite, {}):
        raise RecipeError(
            f"{measured.label} has an accuracy on {suite}, the fine-tune has none",
            advice="evaluate the fine-tune on it too, or name the suites to look at with --suite",
        )
    hashes = {one.document.get("suites", {}).get(suite, {}).get("sha256") for one in (measured, finetuned)}
    if len(hashes) > 1:
        raise MismatchError(f"suite {suite!r} has other prompts for the fine-tune than for {measured.label}")


def ratio_low(value: float, n: int, before: float, before_n: int) -> float:
    """The lower end of the 95 % interval of `value` / `before`, two rates over `n` and `before_n` prompts.

    Katz's interval of a ratio (1978), log-normal with variance (1 - p) / (n p) + (1 - q) / (m q), on rates that count a
    success and a failure more: two runs without a mistake do not prove that there is none. Prompts are not paired, so
    it is wider than it need be where both were asked the same. Never above the ratio itself.
    """
    after_share, before_share = ((rate * size + 1) / (size + 2) for rate, size in ((value, n), (before, before_n)))
    variance = (1 - after_share) / ((n + 2) * after_share) + (1 - before_share) / ((before_n + 2) * before_share)
    low = after_share / before_share * math.exp(-Z_95 * math.sqrt(variance))
    return min(value / before, low)
