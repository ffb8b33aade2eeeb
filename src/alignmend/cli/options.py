"""Options that several commands share, and their types."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeAlias

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def command(
    subparsers: Subparsers,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    summary: str,
    detail: str = "",
    interrupted: str = "",
) -> argparse.ArgumentParser:
    """Add a command; `interrupted` is told after Ctrl-C."""
    made = subparsers.add_parser(
        name,
        help=summary[0].lower() + summary[1:],
        description=f"{summary}. {detail}".strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter if "\n" in detail else argparse.HelpFormatter,
    )
    made.set_defaults(run=run, interrupted=interrupted)
    return made


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`, for machines."""
    parser.add_argument(
        "--json", action="store_true", help="print JSON instead of text; of a sweep, one object on each line"
    )


def add_threads(parser: argparse.ArgumentParser) -> None:
    """`--threads N`; results do not depend on it."""
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="threads to use (default: one per core, at most 8); never changes a byte",
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """`--set key=value`, repeatable."""
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change the recipe, such as coefficient=0.4 or models.aligned=./chat; may be repeated",
    )


def add_adapter(parser: argparse.ArgumentParser) -> None:
    """Options for an adapter as the output."""
    parser.add_argument(
        "--as-adapter",
        action="store_true",
        help="write a PEFT adapter, where the result is a sum of adapters on one base",
    )
    parser.add_argument(
        "--adapter-rank",
        type=int,
        metavar="N",
        help="with --as-adapter: the nearest adapter of rank N at most, its error told, instead of the exact one",
    )
