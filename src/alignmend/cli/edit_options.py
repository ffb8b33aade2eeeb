"""The options of `alignmend edit`, by what they are about."""

from __future__ import annotations

import argparse
from pathlib import Path

from alignmend.cli.judge_options import add_judge_options


def add_edit_options(parser: argparse.ArgumentParser) -> None:
    """The model, the edits, how they are made, and what is measured."""
    parser.add_argument("--model", required=True, metavar="M", help="folder or hub id of a full checkpoint")
    parser.add_argument(
        "--edits",
        required=True,
        metavar="FILE",
        help="JSONL or CSV with prompt, subject and target (optional: paraphrases, neighbourhood, topic); "
        "or unintended, the set of neutral edits that ships with alignmend",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace what is in DIR")
    parser.add_argument("--rows", metavar="A-B,C", help="only these edits of the file, counted from 1, such as 1,4-6")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N of them")
    parser.add_argument(
        "--separately",
        action="store_true",
        help="make each edit alone on the original and write only what was measured (DIR/edits.json), no model",
    )
    parser.add_argument(
        "--keep-unapplied", action="store_true", help="write the model even where an edit did not take (still exit 1)"
    )
    _method(parser.add_argument_group("method"))
    _safety(parser.add_argument_group("safety"))
    add_judge_options(parser)


def _method(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--method", default="r-rome", help="r-rome or rome (default: r-rome)")
    group.add_argument("--layer", type=int, metavar="N", help="layer to edit (default: by the depth of the model)")
    group.add_argument("--steps", type=int, metavar="N", help="steps to find the value (default: as published)")
    group.add_argument(
        "--clamp", type=float, metavar="X", help="longest change of the value, in its lengths (default: 4)"
    )
    group.add_argument("--learning-rate", type=float, metavar="X", help="of these steps (default: 0.5)")
    group.add_argument(
        "--prefixes", choices=("sampled", "none"), default="sampled", help="contexts that the edit must hold in"
    )
    group.add_argument(
        "--template",
        choices=("raw", "chat"),
        default="raw",
        help="prompts go in as they are, or as the user's words in the chat template (default: raw)",
    )
    group.add_argument(
        "--covariance",
        type=Path,
        metavar="FILE",
        help="text to estimate the covariance of keys on (default: identity)",
    )
    group.add_argument("--layer-path", metavar="PATH", help="where the layers are, if they are not found")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of sampled prefixes (default: 0)")
    group.add_argument("--device", help="such as cpu or cuda:0")


def _safety(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--safety-suite",
        dest="safety_suites",
        action="append",
        default=[],
        metavar="S",
        help="name or file of a suite: how every edit shifts its rates; may be repeated",
    )
    group.add_argument("--suite-limit", type=int, metavar="N", help="a sample of N prompts of each suite")
    group.add_argument("--data-dir", type=Path, metavar="DIR", help="folder with local copies of known suites")
