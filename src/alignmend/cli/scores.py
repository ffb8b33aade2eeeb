"""`alignmend scores`: how much each weight matters for the answers of a file of pairs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignmend.cli.options import Subparsers, add_json, command
from alignmend.cli.progress import progress

if TYPE_CHECKING:
    from alignmend.training.scoring import Scored

_DETAIL = """SNIP: the mean over samples of
|W * dL/dW|, L a sample's mean loss per answer token. Wanda: |W| times the norm
of what enters its column. am.open_scores reads the result; where a ranking
meets a tensor without scores, none of its weights counts as a top one."""


def add_to(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = command(subparsers, "scores", _run, summary="Score each weight's importance for answers", detail=_DETAIL)
    parser.add_argument(
        "--model", required=True, metavar="M", help="a folder or hub id, or the folder of an adapter or a delta"
    )
    parser.add_argument("--adapter", metavar="A", help="adapter that is merged into M before it is scored")
    parser.add_argument("--base", metavar="B", help="the model before patching, for --weights base and patch")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="PAIRS", help="JSONL with prompt and response, or messages"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE|DIR",
        help="a name that ends in .safetensors is one file, another a folder; it appears whole or not at all",
    )
    _add_choices(parser)
    _add_numbers(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace what is at FILE or in DIR")
    add_json(parser)


def _add_choices(parser: argparse.ArgumentParser) -> None:
    """What `ScoreSettings` takes by name; options that are not given are left to its defaults."""
    options = (
        ("--method", ("snip", "wanda"), "gradients or activations (default: snip)"),
        ("--weights", ("patched", "base", "patch"), "W of SNIP: M's weights, those of B, or M - B (default: patched)"),
        ("--tokens", ("answer", "question"), "where the loss is (default: answer)"),
        (
            "--order",
            ("absolute-then-mean", "mean-then-absolute"),
            "absolute value of each sample, or of their mean (default: absolute-then-mean)",
        ),
        (
            "--dtype",
            ("float32", "bfloat16"),
            "of the scores (default: float32; bfloat16 is half the size and has ties)",
        ),
    )
    for name, choices, meaning in options:
        parser.add_argument(name, choices=choices, default=argparse.SUPPRESS, help=meaning)
    parser.add_argument(
        "--kinds",
        metavar="NAMES",
        default=argparse.SUPPRESS,
        help="every parameter of these kinds, with commas between: attention, mlp, norm, embedding, other "
        "(default: the matrices of linear layers inside decoder layers)",
    )
    parser.add_argument("--all", action="store_true", help="every parameter, of all kinds")


def _add_numbers(parser: argparse.ArgumentParser) -> None:
    options: tuple[tuple[str, Any, str, str], ...] = (
        ("--samples", int, "N", "pairs to use, drawn where there are more (default: 128)"),
        ("--batch-size", int, "N", "pairs at once; the same scores for any (default: 1)"),
        ("--layers-at-once", int, "N", "less memory: score N layers, then pass over the pairs again (default: all)"),
        ("--max-length", int, "N", "longest row in tokens; longer answers are cut (default: 1024)"),
        ("--seed", int, "N", "draws the pairs (default: 0)"),
        ("--template", str, "T", "as in train (default: chat, or raw without a chat template)"),
    )
    for name, kind, metavar, meaning in options:
        parser.add_argument(name, type=kind, metavar=metavar, default=argparse.SUPPRESS, help=meaning)


def _run(arguments: argparse.Namespace) -> int:
    from alignmend.training.scoring import write_scores

    settings = _settings(arguments)
    with progress() as report:
        scored = write_scores(
            arguments.model,
            arguments.data,
            arguments.out,
            settings,
            adapter=arguments.adapter,
            base=arguments.base,
            overwrite=arguments.overwrite,
            progress=report,
        )
    print(json.dumps(_document(scored)) if arguments.json else _summary(scored))
    return 0


def _settings(arguments: argparse.Namespace) -> Any:
    from dataclasses import fields

    from alignmend.algebra.names import KINDS
    from alignmend.errors import ParameterError
    from alignmend.training.score_settings import ScoreSettings

    given = {field.name: vars(arguments)[field.name] for field in fields(ScoreSettings) if field.name in arguments}
    if arguments.all and "kinds" in given:
        raise ParameterError("--all and --kinds contradict each other", advice="give one of them")
    if "kinds" in given:
        given["kinds"] = tuple(name.strip() for name in given["kinds"].split(",") if name.strip())
    if arguments.all:
        given["kinds"] = KINDS
    return ScoreSettings(**given)


def _document(scored: Scored) -> dict[str, object]:
    manifest = scored.manifest
    return {
        "out": str(scored.path),
        "tensors": scored.tensors,
        "weights": scored.weights,
        "parameters": manifest.parameters,
        "outputs": [output.model_dump() for output in manifest.outputs],
        "notes": manifest.notes,
    }


def _summary(scored: Scored) -> str:
    from alignmend.io.shards import human_bytes

    manifest = scored.manifest
    size = sum(output.bytes for output in manifest.outputs)
    return "\n".join(
        [
            f"{scored.path}: {manifest.expression}",
            f"  scored      {scored.weights:,} weights in {scored.tensors} tensors",
            f"  wrote       {human_bytes(size)}",
            *(f"  note        {note}" for note in manifest.notes),
        ]
    )
