"""`alignmend report`: one page of one or more runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from alignmend.cli.options import Subparsers, add_json, command
from alignmend.errors import RecipeError

if TYPE_CHECKING:
    from alignmend.report.write import Written


def add_to(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = command(
        subparsers,
        "report",
        _run,
        summary="Put runs side by side on one page",
        detail="One self-contained HTML file without network, or Markdown for a model card. The first run is what the "
        "others are compared with, on the same prompts. Answers that may be harmful stay out of the file.",
    )
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="folder that evaluate or restore wrote, or a results.json such as demo's",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write: .html or .md")
    parser.add_argument(
        "--format",
        choices=("html", "markdown", "inspect"),
        help="default: by the ending of FILE; inspect writes logs for its viewer, answers in full, of one run",
    )
    parser.add_argument(
        "--show-text", action="store_true", help="put answers that may be harmful into the page, collapsed"
    )
    parser.add_argument(
        "--allow-leak", action="store_true", help="report prompts that were used for tuning too; the page says so"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE even if it is no report")
    add_json(parser)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.format == "inspect":
        return _inspect(arguments)
    from alignmend.report.write import write_report

    written = write_report(
        arguments.runs,
        arguments.out,
        form=arguments.format,
        show_text=arguments.show_text,
        allow_leak=arguments.allow_leak,
        overwrite=arguments.overwrite,
    )
    print(json.dumps(_as_dict(written)) if arguments.json else _line(written))
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from alignmend.evaluation.export_inspect import export_inspect

    if len(arguments.runs) != 1:
        raise RecipeError(f"inspect's logs are written of one run at a time, not of {len(arguments.runs)}")
    written = [str(path) for path in export_inspect(arguments.runs[0], arguments.out)]
    print(json.dumps({"out": written}) if arguments.json else "\n".join(written))
    return 0


def _as_dict(written: Written) -> dict[str, object]:
    return {
        "out": str(written.path),
        "bytes": written.bytes,
        "models": list(written.models),
        "suites": list(written.suites),
        "leaks": [str(leak) for leak in written.leaks],
    }


def _line(written: Written) -> str:
    models = f"{len(written.models)} models" if len(written.models) > 1 else written.models[0]
    leaks = f"; not a fair test: {'; '.join(map(str, written.leaks))}" if written.leaks else ""
    return f"{written.path}: {models}, {written.bytes:,} bytes{leaks}"
