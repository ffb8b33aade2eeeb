"""`alignmend complete`: the script that completes commands and options in a shell."""

from __future__ import annotations

import argparse

from alignmend.cli.options import Subparsers, command
from alignmend.errors import missing_extra

SHELLS = ("bash", "zsh", "tcsh")


def add_to(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = command(
        subparsers,
        "complete",
        _run,
        summary="Print the script that completes alignmend's commands and options in a shell",
        detail="bash:  alignmend complete bash > ~/.local/share/bash-completion/completions/alignmend\n"
        "zsh:   alignmend complete zsh > ~/.zsh/completions/_alignmend, that folder being in fpath\n"
        "The script is made once and starts nothing while you type: make it anew after an update.",
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help="bash, zsh or tcsh")


def _run(arguments: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError:
        raise missing_extra("shtab", "completion") from None
    from alignmend.cli import parser

    print(shtab.complete(parser(), arguments.shell))
    return 0
