"""`alignmend doctor`: what is installed, what this machine can do, and what is missing for what."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from alignmend.cli.options import Subparsers, add_json, command


def add_to(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = command(
        subparsers,
        "doctor",
        _run,
        summary="Show what is installed, what this machine can do, and what each missing extra would give",
        detail="Versions, device, dtypes, free memory and disk, hub login (no token is shown), sandbox, extras. "
        "Exit code 1 where something would stop the work. Good to paste into a report of a fault.",
    )
    parser.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help="where outputs would go (default: this folder)"
    )
    add_json(parser)


def _run(arguments: argparse.Namespace) -> int:
    from alignmend.restore.machine import machine

    lines = machine(arguments.out)
    if arguments.json:
        print(json.dumps([vars(one) for one in lines]))
    else:
        for one in lines:
            print(f"{one.level:<7}  {one.topic:<18} {one.told}")
    return 1 if any(one.level == "problem" for one in lines) else 0
