"""`alignmend private`: find the folders that must not be published, and remove them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from alignmend.cli.options import Subparsers, add_json, command

if TYPE_CHECKING:
    from alignmend.io.private import PrivateFolder


def add_to(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = command(
        subparsers,
        "private",
        _run,
        summary="List or remove hazardous working files",
        detail="Finds the folders at and below DIR whose manifest or marker says that they are private: harm models, "
        "patches, unfinished training runs. Links are not followed.",
    )
    parser.add_argument("action", choices=["list", "clean"], help="show them; remove them, after asking")
    parser.add_argument("places", type=Path, nargs="+", metavar="DIR", help="where to look")
    parser.add_argument("--yes", action="store_true", help="remove without asking")
    add_json(parser)


def _run(arguments: argparse.Namespace) -> int:
    from alignmend.io.private import find_private

    found = find_private(arguments.places)
    if arguments.action == "list":
        print(json.dumps([_document(one) for one in found]) if arguments.json else _listed(found))
        return 0
    return _clean(arguments, found)


def _clean(arguments: argparse.Namespace, found: tuple[PrivateFolder, ...]) -> int:
    from alignmend.io.private import remove_private

    if found and not arguments.yes:
        print(_listed(found), file=sys.stderr)
        if not _agreed():
            print("nothing was removed", file=sys.stderr)
            found = ()
    for one in found:
        remove_private(one)
        if not arguments.json:
            print(f"removed {one.path}")
    if arguments.json:
        print(json.dumps([_document(one) for one in found]))
    elif not found and arguments.yes:
        print("no private folder")
    return 0


def _agreed() -> bool:
    from alignmend.errors import ParameterError

    if sys.stdin is None or not sys.stdin.isatty():
        raise ParameterError("nothing was removed: there is no terminal to ask on;", advice="pass --yes to remove them")
    print("remove all of them for ever? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _listed(found: tuple[PrivateFolder, ...]) -> str:
    from alignmend.io.shards import human_bytes

    lines = [f"{human_bytes(one.bytes):>10}  {one.path}  ({one.description})" for one in found]
    lines += [f"{'':>10}  holds {inner}, which is not private" for one in found for inner in one.publishable]
    return "\n".join(lines) or "no private folder"


def _document(one: PrivateFolder) -> dict[str, object]:
    return {
        "path": str(one.path),
        "bytes": one.bytes,
        "description": one.description,
        "publishable": [str(path) for path in one.publishable],
    }
