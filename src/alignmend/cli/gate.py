"""`alignmend gate`: an exit code for pipelines."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignmend.cli.options import Subparsers, add_json, command
from alignmend.errors import AlignmendError, OutputError

if TYPE_CHECKING:
    from alignmend.report.checks import Check

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
    from alignmend.api.gating import gate

    limits = {option[2:].replace("-", "_"): getattr(arguments, metric) for option, (metric, _) in LIMITS.items()}
    try:
        result = gate(
            arguments.runs,
            **limits,
            min_utility=arguments.min_utility,
            against=arguments.against,
            max_increase=arguments.max_increase,
            suites=arguments.suites,
            confident=arguments.confident,
            allow_leak=arguments.allow_leak,
        )
    except AlignmendError as error:
        _write(arguments, (), str(error))
        raise
    _write(arguments, result.checks, None)
    if arguments.json:
        print(json.dumps(result.as_dict()))
    else:
        for line in result.lines():
            print(line)
    return 0 if result.passed else 1


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
