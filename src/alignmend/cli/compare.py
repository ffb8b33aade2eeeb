"""`alignmend compare`: two runs on the same prompts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignmend.cli.options import Subparsers, add_json, command
from alignmend.cli.plain import plain_console
from alignmend.cli.trend import run_trend
from alignmend.errors import OutputError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from alignmend.evaluation.changes import Change
    from alignmend.evaluation.comparison import Comparison
    from alignmend.evaluation.pairing import Pair
    from alignmend.evaluation.run_folder import RunFolder


def add_to(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = command(
        subparsers,
        "compare",
        _run,
        summary="Compare two runs prompt by prompt, or many over time",
        detail="McNemar's exact test (p corrected by Holm for the tests in the table) and the bootstrap interval of "
        "the change, on the prompts that both runs were asked. Text is printed with --show-text only. Of more than two "
        "runs, oldest first, a table over time tells which rates drifted from the first run, and --plot draws them.",
    )
    parser.add_argument("before", type=Path, metavar="RUN", help="folder that evaluate wrote")
    parser.add_argument("after", type=Path, metavar="RUN", help="another one, of the same suites and judge")
    parser.add_argument("further", type=Path, nargs="*", metavar="RUN", help="more of them, each later than the last")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the rates over the runs")
    parser.add_argument(
        "--suite", dest="suites", action="append", default=[], metavar="S", help="only this suite; may be repeated"
    )
    parser.add_argument(
        "--metric",
        dest="metrics",
        action="append",
        default=[],
        metavar="M",
        help="metric to compare, or all; may be repeated (default: attack success, over-refusal, accuracy, incoherent)",
    )
    parser.add_argument("--judge", metavar="J", help="by what this judge of both runs says (default: the first)")
    parser.add_argument(
        "--flips", type=int, default=0, metavar="N", help="list the first N prompts whose verdict changed"
    )
    parser.add_argument(
        "--show-text", action="store_true", help="with --flips: also their prompts and answers, shortened"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap (default: 0)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write every prompt with both judgements as JSONL")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE, or FILE.svg, if it exists")
    add_json(parser)


def _run(arguments: argparse.Namespace) -> int:
    from alignmend.evaluation.comparison import compare_runs
    from alignmend.evaluation.run_folder import read_run

    _check(arguments)
    if arguments.further or arguments.plot is not None:
        return run_trend(arguments)
    found = compare_runs(
        read_run(arguments.before),
        read_run(arguments.after),
        suites=arguments.suites,
        metrics=arguments.metrics,
        judge=arguments.judge,
        seed=arguments.seed,
    )
    if not found.changes:
        raise ParameterError(f"no prompt of both runs has {', '.join(arguments.metrics)}: nothing to compare")
    if arguments.out is not None:
        _write_pairs(found, arguments.out)
    if arguments.json:
        print(json.dumps(_document(found)))
    else:
        _show(found, arguments.flips, show_text=arguments.show_text)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    for option in ("flips", "seed"):
        if getattr(arguments, option) < 0:
            raise ParameterError(f"--{option} is a number from 0, not {getattr(arguments, option)}")
    if arguments.show_text and not arguments.flips:
        raise ParameterError("--show-text shows the texts of flips: say how many, such as --flips 5")
    if arguments.further and (arguments.flips or arguments.out is not None):
        raise ParameterError("--flips and --out are for two runs: name the two whose prompts are to be listed")
    if arguments.plot is not None and arguments.plot.exists() and not arguments.overwrite:
        raise OutputError(f"{arguments.plot} exists; choose another name or say --overwrite")
    if arguments.out is not None and arguments.out.exists() and not arguments.overwrite:
        raise OutputError(f"{arguments.out} exists; choose another name or say --overwrite")


def _leaks(run: RunFolder) -> list[str]:
    from alignmend.report.leaks import leaks
    from alignmend.report.runs import runs_of

    return [f"not a fair test of {run.model}: {leak}" for leak in leaks(runs_of(run.results))]


def _notes(found: Comparison) -> list[str]:
    return [*found.notes, *dict.fromkeys([*_leaks(found.before), *_leaks(found.after)])]


def _document(found: Comparison) -> dict[str, Any]:
    from alignmend.report.labels import metric_label

    document = found.as_dict()
    labelled = [{"question": metric_label(one["metric"]), **one} for one in document["comparisons"]]
    return {**document, "notes": _notes(found), "comparisons": labelled}


def _show(found: Comparison, flips: int, *, show_text: bool) -> None:
    console = plain_console()
    for note in _notes(found):
        console.print(f"note: {note}", soft_wrap=True)
    for lone in found.unpaired:
        console.print(f"left out: {lone}", soft_wrap=True)
    console.print(_table(found))
    for line in (*_summary(found), *_listed(found, flips, show_text=show_text)):
        console.print(line, soft_wrap=True)


def _table(found: Comparison) -> Table:
    from rich import box
    from rich.table import Table

    from alignmend.report.labels import metric_label
    from alignmend.report.numbers import clean

    names = " against ".join(clean(run.model) for run in (found.before, found.after))
    title = f"{names}; percent and points, 95% intervals below"
    table = Table(title=title, title_style="dim", title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("suite", overflow="fold")
    table.add_column("metric")
    for name in ("n", "before", "after", "change", "fixed/\nbroken", "p, Holm"):
        table.add_column(name, justify="right")
    for change in found.changes:
        table.add_row(clean(change.suite), metric_label(change.metric), str(change.n), *_cells(change))
    return table


def _cells(change: Change) -> tuple[str, ...]:
    from alignmend.report.numbers import with_interval

    rates = ("\n".join(with_interval(change.metric, rate.as_dict())) for rate in (change.before, change.after))
    ends = f"{_points(change.low, 0)} to {_points(change.high, 0)}"
    if change.test is None or change.p_holm is None:
        return (*rates, f"{_points(change.difference)}\n{ends}", "", "")
    turned = f"{change.test.fixed}/{change.test.broken}"
    p_value = "<0.001" if change.p_holm < 0.001 else f"{change.p_holm:.3f}"
    return (*rates, f"{_points(change.difference)}\n{ends}", turned, p_value)


def _points(share: float, decimals: int = 1) -> str:
    return f"{round(100 * share, decimals) + 0.0:+.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def _summary(found: Comparison) -> list[str]:
    counts = {turn: sum(pair.turn == turn for pair in found.flips) for turn in ("mended", "broken", "changed")}
    told = ", ".join(f"{count} {turn}" for turn, count in counts.items())
    noise = sum(change.to_noise or 0 for change in found.changes if change.metric == "attack_success_rate")
    same, answers = found.same_answers
    lines = [
        f"{len(found.flips)} of {len(found.pairs)} prompts with another verdict: {told}",
        f"{same} of {answers} answers are the same to the letter",
    ]
    if noise:
        lines.append(f"{noise} of the fixed attack successes are now noise or unclear, which is no safety")
    return lines


def _listed(found: Comparison, count: int, *, show_text: bool) -> list[str]:
    from alignmend.evaluation.outcomes import state_of
    from alignmend.report.numbers import clean

    lines = []
    for pair in found.flips[:count]:
        states = f"{state_of(pair.before)} -> {state_of(pair.after)} ({pair.turn})"
        lines.append(clean(f"  {pair.suite} {pair.before.prompt_id}: {states}"))
        lines += _texts(found, pair) if show_text else []
    left = len(found.flips) - count
    return [*lines, f"  and {left} more"] if count and left > 0 else lines


def _texts(found: Comparison, pair: Pair) -> Sequence[str]:
    from alignmend.report.numbers import clean, shortened

    key = (pair.suite, pair.before.prompt_id)
    one, other = (
        next(row for row in run.generations if (row.suite, row.prompt_id) == key) for run in (found.before, found.after)
    )
    texts = {"prompt": one.prompt, "before": one.response, "after": other.response}
    return [f"    {name}: {clean(shortened(' '.join(text.split()), 300)[0])}" for name, text in texts.items()]


def _write_pairs(found: Comparison, path: Path) -> None:
    from alignmend.evaluation.comparison import pair_record
    from alignmend.io.atomic import replace_bytes

    lines = (json.dumps(pair_record(pair)) for pair in found.pairs)
    replace_bytes(path, "".join(f"{line}\n" for line in lines).encode("ascii"))
