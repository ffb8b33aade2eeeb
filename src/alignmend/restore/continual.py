"""Patching again and again, as new kinds of harm arrive: every round starts from what the one before has written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignmend.errors import OutputError, RecipeError
from alignmend.io.atomic import replace_bytes
from alignmend.recipes.apply import Switches
from alignmend.recipes.build import beside, sweep
from alignmend.recipes.schema import Data, ModelReference, Recipe
from alignmend.restore.parts import PARTS, Progress, Trained, check_makeable, lacking
from alignmend.restore.recipe_run import Ran, run_recipe
from alignmend.training.pairs import read_pairs

ROUNDS_NAME = "rounds.json"
_TARGET = "target"
_ROUND = re.compile(rf"\.?(round-\d+|{re.escape(ROUNDS_NAME)})")
"""What may lie in the folder of a sequence: rounds, their private parts, hidden work on them."""


@dataclass(frozen=True)
class Round:
    """One round of a sequence, from 1."""

    number: int
    pairs: str
    recipe: Recipe
    out: Path

    def record(self, ran: Ran) -> dict[str, Any]:
        """Plain JSON: what was learned from, what it started from, what each patch kept, what was written."""
        manifest = ran.written[0].manifest
        return {
            "round": self.number,
            "out": self.out.name,
            "target": manifest.inputs[_TARGET].model_dump(mode="json"),
            "harmful_pairs": manifest.data["harmful_pairs"].model_dump(mode="json"),
            "parameters": manifest.parameters,
            "patches": [patch.model_dump(mode="json", exclude={"tensors"}) for patch in manifest.patches],
            "outputs": [output.model_dump(mode="json") for output in manifest.outputs],
            "notes": manifest.notes,
        }


def rounds_of(recipe: Recipe, folder: Path, out: Path) -> Iterator[Round]:
    """The rounds of `recipe.data.sequence`, `out/round-1`, `out/round-2`, ...; each is a recipe of its own.

    Seeds of the random masks follow one another, so that no round thins the same weights as the one before.
    Raises `RecipeError` where the recipe's method makes no patches of its target, or the recipe brings them along.
    """
    made = [role for role in lacking(recipe) if PARTS[role].of == _TARGET]
    if not any(isinstance(PARTS[role], Trained) for role in made):
        raise RecipeError(
            "data.sequence patches again and again, so it needs a method that trains patches of its target, such as "
            "safe_patching, and no patches under models"
        )
    if recipe.data.harmful_pairs is not None:
        raise RecipeError("data has both sequence and harmful_pairs", advice="put the first file of the sequence there")
    if len(sweep(recipe)) > 1:
        raise RecipeError(
            "data.sequence patches one model again and again", advice="give every parameter one value, no sweep"
        )
    target, seed = recipe.models[_TARGET], _seed(recipe)
    for number, pairs in enumerate(recipe.data.sequence, 1):
        given = recipe.data.model_copy(update={"sequence": [], "harmful_pairs": pairs})
        step = recipe.model_copy(
            update={
                "models": {**recipe.models, _TARGET: target},
                "parameters": {**recipe.parameters, "seed": seed + number - 1},
                "data": Data.model_validate(given.model_dump()),
            }
        )
        place = out / f"round-{number}"
        yield Round(number, pairs, step, place)
        target = ModelReference(path=str(place))


def run_sequence(
    recipe: Recipe,
    folder: Path,
    out: Path,
    switches: Switches,
    *,
    keep_private: bool = False,
    progress: Progress | None = None,
) -> tuple[Ran, ...]:
    """Run every round of the sequence; `out/rounds.json` tells of those that are done. The last folder is the result.

    All files are read before the first round. A sequence that was killed continues with `switches.resume`; a round
    whose target was made anew does not count as done.
    """
    rounds = list(rounds_of(recipe, folder, out))
    missing = [one.pairs for one in rounds if not beside(one.pairs, folder).is_file()]
    if missing:
        raise RecipeError(f"data.sequence: there is no file {missing[0]}")
    for one in rounds:
        read_pairs(beside(one.pairs, folder))
    check_makeable(rounds[0].recipe, folder, lacking(rounds[0].recipe))
    _check_place(out)
    done: list[Ran] = []
    switches = replace(switches, within=out)
    for one in rounds:
        ran = run_recipe(
            one.recipe, folder, one.out, switches, keep_private=keep_private, progress=_numbered(one, progress)
        )
        done.append(ran)
        records = [each.record(found) for each, found in zip(rounds, done, strict=False)]
        replace_bytes(out / ROUNDS_NAME, (json.dumps(records, indent=2, sort_keys=True) + "\n").encode())
    return tuple(done)


def _check_place(out: Path) -> None:
    """Refuse to put rounds among other things."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} exists and is not a folder", advice="choose another name")
    others = [path.name for path in sorted(out.iterdir()) if not _ROUND.match(path.name)] if out.is_dir() else []
    if others:
        raise OutputError(f"{out} holds other things than rounds, such as {others[0]}", advice="choose another folder")


def _numbered(one: Round, progress: Progress | None) -> Progress | None:
    if progress is None:
        return None
    return lambda what, done, total: progress(f"round {one.number}: {what}", done, total)


def _seed(recipe: Recipe) -> int:
    seed = recipe.parameters.get("seed", 0)
    return seed if isinstance(seed, int) else 0
