"""`alignmend run`: a recipe with everything that it lacks: harm model, patches, steering vector."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

from alignmend.cli.options import Subparsers, add_adapter, add_json, add_settings, add_threads, command
from alignmend.cli.progress import progress


def add_to(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = command(
        subparsers,
        "run",
        _run,
        summary="Make what a recipe lacks, then apply it",
        detail="Models that the recipe does not name are trained from data.harmful_pairs, a steering vector is fitted "
        "on data.contrast_pairs; data.sequence patches again with every file. Trained parts are "
        "private and removed at the end.",
        interrupted="; run the same command with --resume to go on",
    )
    parser.add_argument("recipe", type=Path, help="YAML file with method, models, parameters and data")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    add_settings(parser)
    parser.add_argument("--resume", action="store_true", help="continue a run that was killed")
    parser.add_argument("--overwrite", action="store_true", help="replace what is in DIR")
    parser.add_argument("--keep-private", action="store_true", help="keep trained parts, in DIR-private")
    parser.add_argument(
        "--allow-unrelated",
        action="store_true",
        help="go on although a model does not look like a descendant of the aligned one",
    )
    add_adapter(parser)
    add_threads(parser)
    add_json(parser)


def _run(arguments: argparse.Namespace) -> int:
    from alignmend.cli.apply import document, summary
    from alignmend.recipes.apply import Switches
    from alignmend.recipes.schema import load_recipe
    from alignmend.restore.continual import run_sequence
    from alignmend.restore.parts import PARTS
    from alignmend.restore.recipe_run import run_recipe

    recipe, _ = load_recipe(arguments.recipe, arguments.settings, lacking=PARTS)
    switches = Switches(
        threads=arguments.threads,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        as_adapter=arguments.as_adapter,
        adapter_rank=arguments.adapter_rank,
        allow_unrelated=arguments.allow_unrelated,
    )
    folder, kept = arguments.recipe.parent, arguments.keep_private
    with progress() as report:
        if recipe.data.sequence:
            runs = run_sequence(recipe, folder, arguments.out, switches, keep_private=kept, progress=report)
        else:
            runs = (run_recipe(recipe, folder, arguments.out, switches, keep_private=kept, progress=report),)
    for ran in runs:
        for saved in ran.written:
            kept_at = None if ran.parts is None else str(ran.parts)
            print(json.dumps({**document(saved), "private": kept_at}) if arguments.json else summary(saved))
        if ran.parts is not None and not arguments.json:
            print(f"  PRIVATE   do not publish; alignmend private clean {shlex.quote(str(ran.parts))}  removes it")
    return 0
