"""`alignmend apply`: a recipe's weight arithmetic, streamed to a checkpoint."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from alignmend.cli.options import Subparsers, add_adapter, add_json, add_settings, add_threads, command
from alignmend.cli.progress import progress

if TYPE_CHECKING:
    from alignmend.execution.save import Saved


def add_to(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = command(
        subparsers,
        "apply",
        _run,
        summary="Compute a recipe and write the checkpoint",
        detail="Reads every input once, in blocks; memory does not depend on the model's size.",
        interrupted="; run the same command with --resume to go on",
    )
    parser.add_argument("recipe", type=Path, help="YAML file with method, models and parameters")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder to write; it appears whole or not at all"
    )
    add_settings(parser)
    parser.add_argument("--resume", action="store_true", help="continue a run that was killed; ends in the same bytes")
    parser.add_argument("--overwrite", action="store_true", help="replace what is in DIR")
    add_adapter(parser)
    parser.add_argument("--no-hash", action="store_true", help="leave the outputs' SHA-256 out of the manifest")
    parser.add_argument(
        "--hash-inputs",
        action="store_true",
        help="put the inputs' full SHA-256 into the manifest (reads them once more)",
    )
    parser.add_argument(
        "--allow-nonfinite", action="store_true", help="carry NaN and infinity through instead of refusing them"
    )
    parser.add_argument(
        "--allow-unrelated",
        action="store_true",
        help="go on although a model does not look like a descendant of the aligned one",
    )
    parser.add_argument(
        "--diagnose",
        action="store_true",
        help="measure task delta and safety vector on every weight, tensor by tensor, instead of on a sample "
        "(reads the inputs once more)",
    )
    add_threads(parser)
    add_json(parser)


def _run(arguments: argparse.Namespace) -> int:
    from alignmend.recipes.apply import Switches, apply_recipe
    from alignmend.recipes.schema import load_recipe

    recipe, _ = load_recipe(arguments.recipe, arguments.settings)
    switches = Switches(
        threads=arguments.threads,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        hash=not arguments.no_hash,
        hash_inputs=arguments.hash_inputs,
        allow_nonfinite=arguments.allow_nonfinite,
        as_adapter=arguments.as_adapter,
        adapter_rank=arguments.adapter_rank,
        allow_unrelated=arguments.allow_unrelated,
        diagnose=arguments.diagnose,
    )
    with progress() as report:
        written = apply_recipe(recipe, arguments.recipe.parent, arguments.out, switches, report)
    for saved in written:
        print(json.dumps(document(saved)) if arguments.json else summary(saved))
    return 0


def document(saved: Saved) -> dict[str, object]:
    """What `--json` prints of an output."""
    manifest = saved.manifest
    return {
        "out": str(saved.path),
        "expression": manifest.expression,
        "outputs": [output.model_dump() for output in manifest.outputs],
        "rounding": None if manifest.rounding is None else manifest.rounding.model_dump(),
        "vectors": None if manifest.vectors is None else manifest.vectors.model_dump(),
        "warnings": list(saved.warnings),
        "notes": manifest.notes,
    }


def summary(saved: Saved) -> str:
    """What the screen shows of an output."""
    from alignmend.io.shards import human_bytes

    manifest = saved.manifest
    size = sum(output.bytes for output in manifest.outputs)
    lines = [
        f"{saved.path}: {manifest.expression}",
        f"  wrote     {human_bytes(size)} in {len(manifest.outputs)} files, manifest and model card",
    ]
    if manifest.rounding is not None and manifest.rounding.relative_error:
        lost, dtype = manifest.rounding.relative_error, manifest.rounding.dtype.lower()
        lines.append(f"  rounding  {lost:.1%} of the step's norm is lost to {dtype}")
    lines += [f"  note      {note}" for note in manifest.notes if note not in saved.warnings]
    lines += [f"  WARNING   {warning}" for warning in saved.warnings]
    return "\n".join([*lines, f"  check     alignmend verify {shlex.quote(str(saved.path))}"])
