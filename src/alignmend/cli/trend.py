"""`alignmend compare` of many runs: a table over time."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from alignmend.cli.plain import plain_console
from alignmend.errors import ParameterError

if TYPE_CHECKING:
    from rich.table import Table

    from alignmend.evaluation.changes import Change
    from alignmend.report.trend import Step, Trend


def run_trend(arguments: argparse.Namespace) -> int:
    """Print the table or JSON, and write the plot."""
    from alignmend.evaluation.run_folder import read_run
    from alignmend.io.atomic import replace_bytes
    from alignmend.report.trend import trend, trend_svg

    runs = [read_run(place) for place in (arguments.before, arguments.after, *arguments.further)]
    found = trend(runs, suites=arguments.suites, metrics=arguments.metrics, judge=arguments.judge, seed=arguments.seed)
    if not found.steps:
        raise ParameterError("the runs share no metric that could be compared")
    if arguments.plot is not None:
        replace_bytes(arguments.plot, trend_svg(found).encode())
    if arguments.json:
        steps = [step.as_dict() for step in found.steps]
        print(json.dumps({"runs": list(found.runs), "notes": list(found.notes), "steps": steps}))
        return 0
    console = plain_console()
    for note in found.notes:
        console.print(f"note: {note}", soft_wrap=True)
    console.print(_table(found))
    worse = [step for step in found.steps if step.verdict == "worse"]
    told = ", ".join(f"{step.metric} on {step.suite} in {step.run}" for step in worse)
    console.print(f"worse than the first run: {told}" if worse else "no rate is worse than the first run beyond chance")
    if arguments.plot is not None:
        console.print(f"{arguments.plot}: plot", soft_wrap=True)
    return 0


def _table(found: Trend) -> Table:
    from rich import box
    from rich.table import Table

    from alignmend.report.labels import metric_label
    from alignmend.report.numbers import clean

    title = f"{len(found.runs)} runs, oldest first; percent and points; p by Holm over the whole table"
    table = Table(title=title, title_style="dim", title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    for name in ("suite", "metric", "run"):
        table.add_column(name, overflow="fold")
    for name in ("n", "rate", "from\nfirst", "from\nlast", "p, Holm", ""):
        table.add_column(name, justify="right")
    before: tuple[str, str] | None = None
    for step in found.steps:
        place = (step.suite, step.metric)
        named = ("", "") if place == before else (clean(step.suite), metric_label(step.metric))
        table.add_row(*named, clean(step.run), str(step.rate.n), f"{100 * step.rate.value:.1f}%", *_cells(step))
        before = place
    return table


def _cells(step: Step) -> tuple[str, str, str, str]:
    p_value = step.from_first.p_holm if step.from_first is not None else None
    shown = "" if p_value is None else "<0.001" if p_value < 0.001 else f"{p_value:.3f}"
    return _points(step.from_first), _points(step.from_previous), shown, step.verdict


def _points(change: Change | None) -> str:
    return "" if change is None else f"{100 * change.difference + 0.0:+.1f}".replace("-", "\N{MINUS SIGN}")
