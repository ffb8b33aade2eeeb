"""Many runs in order, oldest first: every rate, and whether it drifted from the first run or the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from xml.sax.saxutils import escape

from alignmend.errors import RecipeError
from alignmend.evaluation.changes import Change
from alignmend.evaluation.comparison import MAIN, compare_runs
from alignmend.evaluation.metrics import LOWER_IS_BETTER, Rate
from alignmend.evaluation.run_folder import RunFolder
from alignmend.evaluation.statistics import holm
from alignmend.report.axes import HEIGHT, WIDTH, Frame, grid
from alignmend.report.labels import metric_label
from alignmend.report.numbers import clean

SURE = 0.05
"""Corrected p-value below which a change counts as more than chance."""
_TONES = ("#b3261e", "#9a6700", "#1a7f37", "#57606a", "#0969da", "#8250df")
_STYLE = (
    ".grid{stroke:#d0d7de;fill:none}.tick,.axis,.legend,.name{font:11px sans-serif;fill:#57606a}"
    ".name{font-weight:bold;fill:#24292f}.line{fill:none;stroke-width:1.8}.whisker{stroke-width:1;opacity:.5}"
)


@dataclass(frozen=True)
class Step:
    """One rate of one run; the changes are paired, `None` for the first run. p-values are corrected for the table."""

    run: str
    suite: str
    metric: str
    rate: Rate
    from_first: Change | None
    from_previous: Change | None

    @property
    def verdict(self) -> str:
        """`worse` or `better` than the first run beyond chance, else nothing."""
        change = self.from_first
        if change is None or change.p_holm is None or change.p_holm >= SURE:
            return ""
        return "worse" if (change.difference > 0) == LOWER_IS_BETTER[self.metric] else "better"

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        told = {"run": self.run, "suite": self.suite, "metric": self.metric, **self.rate.as_dict()}
        sides = {"from_first": self.from_first, "from_previous": self.from_previous}
        changes = {name: None if one is None else one.as_dict() for name, one in sides.items()}
        return {**told, **changes, "verdict": self.verdict}


@dataclass(frozen=True)
class Trend:
    """The steps in order of suite, metric and run, and what to know of them."""

    runs: tuple[str, ...]
    steps: tuple[Step, ...]
    notes: tuple[str, ...]


def trend(
    runs: Sequence[RunFolder],
    *,
    suites: Sequence[str] = (),
    metrics: Sequence[str] = (),
    judge: str | None = None,
    seed: int = 0,
) -> Trend:
    """Every run against the first and against the one before, prompt by prompt.

    McNemar's tests are corrected together, by Holm. Raises `RecipeError` for fewer than two runs, or where runs were
    asked other prompts, `MismatchError` for other judges.
    """
    if len(runs) < 2:
        raise RecipeError("a trend needs two runs or more, oldest first")
    names = _names(runs)
    asked = {"suites": suites, "metrics": metrics or MAIN, "judge": judge, "seed": seed}
    found: dict[tuple[int, bool], dict[tuple[str, str], Change]] = {}
    notes: list[str] = []
    for index in range(1, len(runs)):
        for is_first, other in ((True, 0), (False, index - 1)):
            compared = compare_runs(runs[other], runs[index], **asked)  # type: ignore[arg-type]
            if compared.unpaired:
                raise RecipeError(
                    f"{runs[other].path} and {runs[index].path} were not asked the same prompts "
                    f"({compared.unpaired[0]}): name suites that are the same with --suite"
                )
            found[index, is_first] = {(one.suite, one.metric): one for one in compared.changes}
            notes += compared.notes
    found = _corrected(found)
    keys = list(dict.fromkeys(key for changes in found.values() for key in changes))
    steps = []
    for suite, metric in keys:
        for index, run in enumerate(runs):
            rate = run.metrics(judge).get(suite, {}).get(metric)
            if rate is not None:
                sides = (found.get((index, is_first), {}).get((suite, metric)) for is_first in (True, False))
                steps.append(Step(names[index], suite, metric, rate, *sides))
    return Trend(names, tuple(steps), tuple(dict.fromkeys(notes)))


def _names(runs: Sequence[RunFolder]) -> tuple[str, ...]:
    """The folders' names; with their parents' where several are alike."""
    short = [run.path.resolve().name for run in runs]
    if len(set(short)) == len(short):
        return tuple(short)
    long = ["/".join(run.path.resolve().parts[-2:]) for run in runs]
    return tuple(long if len(set(long)) == len(long) else (f"{index}: {name}" for index, name in enumerate(short, 1)))


def _corrected(
    found: dict[tuple[int, bool], dict[tuple[str, str], Change]],
) -> dict[tuple[int, bool], dict[tuple[str, str], Change]]:
    """With the p-values of all different tests corrected together; the second run's are one and the same twice."""
    places = [
        (side, key)
        for side, changes in found.items()
        for key, change in changes.items()
        if change.test is not None and side != (1, False)
    ]
    values = holm([change.test.p_value for side, key in places if (change := found[side][key]).test is not None])
    made = {side: dict(changes) for side, changes in found.items()}
    for (side, key), value in zip(places, values, strict=True):
        made[side][key] = replace(made[side][key], p_holm=value)
    if (1, True) in made:
        made[1, False] = made[1, True]
    return made


def trend_svg(found: Trend) -> str:
    """A chart for each suite, one below the other: rates with their intervals over the runs."""
    suites = list(dict.fromkeys(step.suite for step in found.steps))
    height = HEIGHT + 30
    charts = [
        f'<g transform="translate(0 {number * height})">{_chart(found, suite)}</g>'
        for number, suite in enumerate(suites)
    ]
    width, whole = WIDTH + 190, height * max(1, len(suites))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {whole}" width="{width}" height="{whole}" '
        f'role="img" aria-label="rates over {len(found.runs)} runs"><style>{_STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(charts)}</svg>\n'
    )


def _chart(found: Trend, suite: str) -> str:
    frame = Frame(1, len(found.runs), padding=14)
    count = len(found.runs)
    ticks = sorted({1 + round(index * (count - 1) / min(7, count - 1)) for index in range(min(8, count))})
    parts = [f'<text class="name" x="6" y="14">{escape(clean(suite))}</text>', grid(frame, ticks, "run", _number)]
    metrics = list(dict.fromkeys(step.metric for step in found.steps if step.suite == suite))
    for number, metric in enumerate(metrics):
        tone = _TONES[number % len(_TONES)]
        steps = [step for step in found.steps if (step.suite, step.metric) == (suite, metric)]
        places = [(frame.x(1 + found.runs.index(step.run)), step) for step in steps]
        path = "L".join(f"{x} {frame.y(step.rate.value)}" for x, step in places)
        parts.append(f'<path class="line" stroke="{tone}" d="M{path}"/>')
        for x, step in places:
            ends = f"{frame.y(step.rate.low)}V{frame.y(step.rate.high)}"
            parts.append(f'<path class="whisker" stroke="{tone}" d="M{x} {ends}"/>')
            title = escape(clean(f"{step.run}: {metric_label(metric)} {100 * step.rate.value:.1f}% {step.verdict}"))
            size = 5 if step.verdict else 3
            dot = f'<circle cx="{x}" cy="{frame.y(step.rate.value)}" r="{size}" fill="{tone}">'
            parts.append(f"{dot}<title>{title}</title></circle>")
        parts.append(
            f'<rect x="{WIDTH + 4}" y="{36 + 18 * number}" width="10" height="10" fill="{tone}"/>'
            f'<text class="legend" x="{WIDTH + 20}" y="{45 + 18 * number}">{escape(metric_label(metric))}</text>'
        )
    return "".join(parts)


def _number(value: float) -> str:
    return f"{value:g}"
