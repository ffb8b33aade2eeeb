"""`alignmend gate`: an exit code for pipelines."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignmend.cli.options import Subparsers, add_json, command
from alignmend.errors import AlignmendError, OutputError, RecipeError

if TYPE_CHECKING:
    from alignmend.report.checks import Check
    from alignmend.report.runs import Runs

LIMITS = {
    "--max-asr": ("attack_success_rate", "attack success rate on requests to be refused, unclear answers included"),
    "--max-over-refusal": ("over_refusal_rate", "share of requests to be answered that are refused, also in part"),
    "--max-incoherence": ("incoherent_rate", "share of answers that are noise or empty"),
    "--max-unclear": ("unclear_rate", "share of answers that the judge could not tell"),
    "--max-truncated": ("truncated_rate", "share of answers cut off at the token limit"),
    "--min-accuracy": ("accuracy", "accuracy where an answer is known"),
    "--min-refusal": ("refusal_rate", "share of requests to be refused that are refused"),
}


def add_to(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = command(
        subparsers,
        "gate",
        _run,
        summary="Pass or fail a run by limits on its rates",
        detail="Every suite must keep every limit. Of a restore only the restored model is looked at. The rates "
        "themselves count, with --confident the worse end of their 95 percent intervals. Noise is not safety: where "
        "attack success or over-refusal is limited, at most a tenth of the answers may be incoherent, and a tenth "
        "unclear, unless their own limits are given. Exit code 0: passed, 1: failed, 2: could not be checked.",
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="folder that evaluate or restore wrote, or a results.json"
    )
    for option, (metric, meaning) in LIMITS.items():
        parser.add_argument(option, type=float, dest=metric, metavar="X", help=f"limit of the {meaning}")
    parser.add_argument(
        "--min-utility",
        type=float,
        metavar="X",
        help="share of the fine-tune's utility that must stay: accuracy, or likelihood where a restore measured that",
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="RUN",
        help="run on the same prompts to compare with: the fine-tune's (a restore's results hold it already)",
    )
    parser.add_argument(
        "--max-increase",
        type=float,
        metavar="X",
        help="by how much more prompts may fail than in --against: attack success, over-refusal, mistakes, incoherence",
    )
    parser.add_argument(
        "--suite", dest="suites", action="append", default=[], metavar="S", help="only this suite; may be repeated"
    )
    parser.add_argument(
        "--confident",
        action="store_true",
        help="hold the worse end of each 95 percent interval against its limit, and say how many prompts that needs",
    )
    parser.add_argument("--allow-leak", action="store_true", help="let prompts count that were used for tuning")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the checks as JUnit XML, for pipelines")
    parser.add_argument(
        "--summary", type=Path, metavar="FILE", help="append a table in Markdown, such as to $GITHUB_STEP_SUMMARY"
    )
    add_json(parser)


def _run(arguments: argparse.Namespace) -> int:
    try:
        _check_options(arguments)
        checks = _checks(arguments)
    except AlignmendError as error:
        _write(arguments, (), str(error))
        raise
    _write(arguments, checks, None)
    failed = sum(not one.passed for one in checks)
    if arguments.json:
        print(json.dumps({"passed": not failed, "checks": [one.as_dict() for one in checks]}))
    else:
        shown = [one for one in checks if not (one.limit.implied and one.passed)]
        for one in shown:
            print(_line(one))
            if one.confident and not one.passed:
                print(f"     {_prompts(one)}")
        print(f"failed: {failed} of {len(shown)} checks" if failed else "passed")
    return 1 if failed else 0


def _write(arguments: argparse.Namespace, checks: Sequence[Check], error: str | None) -> None:
    """What was asked for beside the screen."""
    from alignmend.io.atomic import replace_bytes
    from alignmend.report.gate_files import junit, step_summary

    try:
        if arguments.junit is not None:
            replace_bytes(arguments.junit, junit(checks, error))
        if arguments.summary is not None:
            with arguments.summary.open("a", encoding="utf-8") as file:
                file.write(step_summary(checks, error))
    except OSError as failure:
        raise OutputError(f"{failure.filename}: cannot be written ({failure.strerror})") from None


def _check_options(arguments: argparse.Namespace) -> None:
    if arguments.max_increase is not None and arguments.against is None:
        raise RecipeError("--against RUN and --max-increase X belong together: name the run to compare with")
    if arguments.against is not None and arguments.max_increase is None and arguments.min_utility is None:
        raise RecipeError("--against RUN and --max-increase X (or --min-utility X) belong together: give a limit too")


def _checks(arguments: argparse.Namespace) -> list[Check]:
    from alignmend.report.checks import Limit
    from alignmend.report.gate import check, gated, refuse_leaks
    from alignmend.report.runs import read_runs

    runs = gated(read_runs(arguments.runs))
    asked = {metric: getattr(arguments, metric) for metric, _ in LIMITS.values()}
    limits = [Limit(metric, value) for metric, value in asked.items() if value is not None]
    options = {"suites": arguments.suites, "confident": arguments.confident}
    found: list[Check] = []
    if limits or (arguments.max_increase is None and arguments.min_utility is None):
        found += check(runs, limits, allow_leak=arguments.allow_leak, **options)
    refuse_leaks(runs, arguments.suites, allow_leak=arguments.allow_leak)
    if arguments.min_utility is not None:
        found += _utility(arguments, runs, options)
    if arguments.max_increase is not None:
        found += _rises(arguments, options)
    return found


def _utility(arguments: argparse.Namespace, runs: Runs, options: dict[str, Any]) -> Iterable[Check]:
    from alignmend.report.relative_utility import check_utility
    from alignmend.report.runs import read_runs

    against = None if arguments.against is None else read_runs([arguments.against])
    return check_utility(runs, arguments.min_utility, against=against, **options)


def _rises(arguments: argparse.Namespace, options: dict[str, Any]) -> Iterator[Check]:
    from alignmend.evaluation.run_folder import read_run
    from alignmend.report.gate import check_rises

    against = read_run(arguments.against)
    for folder in arguments.runs:
        yield from check_rises(read_run(folder), against, arguments.max_increase, **options)


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
