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
    chat,
    compare,
    convert,
    demo,
    diff,
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
from alignmend.errors import AlignmendError, OutputError, is_out_of_memory

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
    organism,
    convert,
    list_,
)


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False} | options)  # a beginning that is unique today is not for ever

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
    top.add_argument("--version", action="store_true", help="print the version and exit")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for command in COMMANDS:
        command.add_to(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    try:
        try:
            return _main(argv)
        finally:
            _flush()
    except BrokenPipeError:  # the reader of our output has gone, which is its right
        _forget_output()
        return 0
    except OutputError as error:
        _forget_output()
        print(f"alignmend: {error}", file=sys.stderr)
        return 2


def _main(argv: Sequence[str] | None) -> int:
    top = parser()
    arguments = top.parse_args(argv)
    if arguments.version:
        from importlib.metadata import version

        print(f"alignmend {version('alignmend')}")
        return 0
    if arguments.command is None:
        top.print_help(sys.stderr)
        return 2
    return _guarded(arguments)


def _flush() -> None:
    try:
        if sys.stdout is not None:  # it is None where the caller has closed it
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot print: {error.strerror}") from None


def _forget_output() -> None:
    """Let what is left of the output go nowhere, so that the interpreter does not try again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _guarded(arguments: argparse.Namespace) -> int:
    try:
        code: int = arguments.run(arguments)
    except AlignmendError as error:
        print(f"alignmend {arguments.command}: {error}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print(f"alignmend {arguments.command}: {_without_memory(error)}{arguments.interrupted}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nalignmend {arguments.command}: interrupted{arguments.interrupted}", file=sys.stderr)
        return 130
    return code


def _without_memory(error: BaseException) -> str:
    said = (str(error).splitlines() or [""])[0]
    return f"out of memory{f' ({said})' if said else ''}: free memory, or use a smaller model or another --device"
