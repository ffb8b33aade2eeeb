"""`alignmend demo`: watch a model that lost its safety get it back, with the proof."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from alignmend.cli.options import Subparsers, command
from alignmend.cli.plain import plain_console
from alignmend.cli.progress import progress


def add_to(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = command(
        subparsers,
        "demo",
        _run,
        summary="Restore the safety of a tiny fine-tuned model and prove it",
        detail="Needs no download: the models ship with the package. Writes report.html, results.json and the restored "
        "checkpoints.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("alignmend-demo"),
        metavar="DIR",
        help="folder to write (default: alignmend-demo)",
    )
    parser.add_argument(
        "--rebuild", action="store_true", help="train the models afresh instead of taking those that ship (minutes)"
    )
    parser.add_argument("--seed", type=int, default=None, help="train another family with this seed; implies --rebuild")
    parser.add_argument("--json", action="store_true", help="print results.json instead of the table")


def _run(arguments: argparse.Namespace) -> int:
    from alignmend.report.terminal import table
    from alignmend.restore.demo import run_demo, train_family

    with progress() as report:
        family = None
        if arguments.rebuild or arguments.seed is not None:
            family = train_family(arguments.out, seed=arguments.seed or 0, progress=report)
        demo = run_demo(arguments.out, family=family, progress=report)
    if arguments.json:
        print(json.dumps(demo.results, sort_keys=True))
        return 0 if demo.restored else 1
    console = plain_console()
    console.print(table(demo.results))
    for line in demo.lines:
        console.print(line, soft_wrap=True)
    return 0 if demo.restored else 1
