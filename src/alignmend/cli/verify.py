"""`alignmend verify`: whether an output is still what its manifest says."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from alignmend.cli.options import Subparsers, add_json, command
from alignmend.errors import FileFormatError, VerificationError

if TYPE_CHECKING:
    from alignmend.io.verify import VerifyReport


def add_to(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = command(
        subparsers,
        "verify",
        _run,
        summary="Check an output folder against its manifest",
        detail="Every file's existence, size, SHA-256 and header; exit code 2 lists what is wrong.",
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="folder", help="folder that alignmend wrote")
    parser.add_argument(
        "--of-files",
        action="store_true",
        help="the names are files: verify the outputs that hold them, pass over other files (for pre-commit)",
    )
    add_json(parser)


def _run(arguments: argparse.Namespace) -> int:
    from alignmend.io.verify import verify

    folders = _owning(arguments.folders) if arguments.of_files else arguments.folders
    problems = []
    for folder in folders:
        try:
            _tell(verify(folder), as_json=arguments.json)
        except (VerificationError, FileFormatError) as error:
            if len(folders) == 1:
                raise
            problems.append(str(error))
    if problems:
        raise VerificationError("\n".join(problems))
    if not folders and not arguments.json:
        print("none of these files belongs to an output of alignmend: nothing to verify")
    return 0


def _tell(report: VerifyReport, *, as_json: bool) -> None:
    if not as_json:
        print(report.summary)
        return
    document = {
        "folder": str(report.folder),
        "files": report.files,
        "bytes": report.bytes,
        "unhashed": list(report.unhashed),
    }
    print(json.dumps(document))


def _owning(files: list[Path]) -> list[Path]:
    """The folders with a manifest in or above which the files lie, each once."""
    from alignmend.io.manifest import MANIFEST_NAME

    found: dict[Path, None] = {}
    for file in files:
        owner = next((place for place in file.absolute().parents if (place / MANIFEST_NAME).is_file()), None)
        if owner is not None:
            found[owner] = None
    return list(found)
