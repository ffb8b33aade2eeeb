"""The command line: parses, prints, exits; nothing else in the package does.

Exit codes: 0 done, 1 a gate that failed, 2 wrong use or bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from alignmend.cli import (
    apply,
    audit,
    chat,
    compare,
    complete,
    convert,
    demo,
    diff,
    doctor,
    edit,
    evaluate,
    explain,
    gate,
    judge,
    list_,
    moments,
    organism,
    private,
    report,
    restore,
    run,
    scores,
    train,
    vector,
    verify,
)
from alignmend.cli.colour import coloured, wants_colour
from alignmend.cli.guard import guarded, is_not_utf8, tell
from alignmend.cli.plain import visible_streams
from alignmend.errors import OutputError

COMMANDS = (
    demo,
    restore,
    apply,
    run,
    explain,
    verify,
    evaluate,
    judge,
    compare,
    report,
    gate,
    chat,
    train,
    scores,
    moments,
    private,
    vector,
    edit,
    diff,
    audit,
    organism,
    convert,
    list_,
    doctor,
    complete,
)


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False} | options)  # a beginning that is unique today is not for ever
        self.color = False  # Python's own, from 3.14 on: its codes would be written out

    def print_help(self, file: Any = None) -> None:
        """With colours on a terminal, past the stream that makes commands to it visible."""
        stream = sys.stdout if file is None else file
        if not wants_colour(stream):
            super().print_help(file)
            return
        getattr(stream, "rich_proxied_file", stream).write(coloured(self.format_help()))

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: {message}\n{self.prog} --help shows the options\n")


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = _Parser(
        prog="alignmend",
        description="Restore the safety of a language model after fine-tuning or editing, by arithmetic on its "
        "weights, and prove it.",
        epilog="Start with  alignmend demo.  Every command has its own --help.",
    )
    top.add_argument(
        "--version", action="store_true", help="print the versions of alignmend and its libraries and exit"
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for command in COMMANDS:
        command.add_to(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    with visible_streams():
        try:
            try:
                return _main(argv)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:  # the reader of our output has gone, which is its right
            _forget_output()
            return 0
        except OutputError as error:
            _forget_output()
            tell(f"alignmend: {error}")
            return 2


def _main(argv: Sequence[str] | None) -> int:
    top = parser()
    for given in sys.argv[1:] if argv is None else argv:
        if is_not_utf8(given):  # records, keys and cards hold paths as text
            top.error(f"{given} is not UTF-8: rename it, or set the terminal to UTF-8")
    arguments = top.parse_args(argv)
    if arguments.version:
        _print_versions()
        return 0
    if arguments.command is None:
        top.print_help(sys.stderr)
        return 2
    return guarded(lambda: _in_session(arguments), arguments)


def _in_session(arguments: argparse.Namespace) -> int:
    from alignmend.io.session import one_session

    with one_session():
        code: int = arguments.run(arguments)
    return code


def _print_versions() -> None:
    import platform
    from importlib.metadata import version

    from alignmend.restore.machine import library_versions

    print(f"alignmend {version('alignmend')}")
    print(f"Python {platform.python_version()}")
    for name, found in library_versions().items():
        print(f"{name} {found}")


def _forget_output() -> None:
    """Let what is left of the output go nowhere, so that the interpreter does not try again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
