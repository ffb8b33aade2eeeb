"""`alignmend compare`: two runs on the same prompts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from alignmend.cli.options import Subparsers, add_json, command
from alignmend.cli.plain import plain_console
from alignmend.cli.trend import run_trend
from alignmend.errors import OutputError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alignmend.api.comparing import ComparisonResult
    from alignmend.evaluation.comparison import Comparison
    from alignmend.evaluation.pairing import Pair


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
    from alignmend.api.comparing import compare

    _check(arguments)
    if arguments.further or arguments.plot is not None:
        return run_trend(arguments)
    result = compare(
        arguments.before,
        arguments.after,
        suites=arguments.suites,
        metrics=arguments.metrics,
        judge=arguments.judge,
        seed=arguments.seed,
        out=arguments.out,
        overwrite=arguments.overwrite,
    )
    if arguments.json:
        print(json.dumps(result.as_dict()))
    else:
        _show(result, arguments.flips, show_text=arguments.show_text)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    for option in ("flips", "seed"):
        if getattr(arguments, option) < 0:
            raise ParameterError(f"--{option} is a number from 0, not {getattr(arguments, option)}")
    if arguments.show_text and not arguments.flips:
        raise ParameterError("--show-text shows the texts of flips", advice="say how many, such as --flips 5")
    if arguments.further and (arguments.flips or arguments.out is not None):
        raise ParameterError("--flips and --out are for two runs", advice="name the two whose prompts are to be listed")
    if arguments.plot is not None and arguments.plot.exists() and not arguments.overwrite:
        raise OutputError(f"{arguments.plot} exists", advice="choose another name or say --overwrite")


def _show(result: ComparisonResult, flips: int, *, show_text: bool) -> None:
    console = plain_console()
    for note in result.notes:
        console.print(f"note: {note}", soft_wrap=True)
    for lone in result.comparison.unpaired:
        console.print(f"left out: {lone}", soft_wrap=True)
    console.print(result.table())
    for line in (*result.summary(), *_listed(result.comparison, flips, show_text=show_text)):
        console.print(line, soft_wrap=True)


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
