"""The chosen candidate becomes a checkpoint, by a recipe that its user can repeat."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from alignmend.io.manifest import Input
from alignmend.io.published import HASHED, Publisher, report_folder
from alignmend.recipes.apply import Origin, Switches, apply_recipe
from alignmend.recipes.build import located
from alignmend.recipes.schema import Recipe
from alignmend.restore.candidates import CALIBRATION, Operands, recipe_of
from alignmend.restore.front import Measured
from alignmend.restore.parts import Progress, texts_of
from alignmend.restore.places import Places
from alignmend.restore.proof import RESTORED
from alignmend.restore.recipe_run import data_input
from alignmend.restore.request import Request
from alignmend.restore.scoring import Worth

RECIPE = "recipe.yaml"
_HEAD = """# Written by alignmend restore. This repeats the checkpoint, byte for byte:
#   alignmend run {name} --out DIR{switches}
"""
_HASHED = """# What is told by a hash is found in the report folder beside this one; elsewhere say where it is:
#   --set models.ROLE=FOLDER
"""


def write_chosen(
    chosen: Measured,
    before: Worth,
    operands: Operands,
    request: Request,
    places: Places,
    *,
    notes: tuple[str, ...] = (),
    progress: Progress,
) -> Path:
    """Stream the candidate's checkpoint into the staged folder; one that is there whole is left as it is.

    `before` is the fine-tune's worth in the search; `notes` go to the model card.
    """
    recipe = recipe_of(chosen.candidate, operands, request)
    asked = recipe_of(chosen.candidate, operands, request, made=False)
    after = chosen.worth
    told = (
        f"chosen by alignmend restore among candidates: on its search prompts attack success "
        f"{before.attack_success.value:.3f} -> {after.attack_success.value:.3f}, over-refusal "
        f"{before.over_refusal.value:.3f} -> {after.over_refusal.value:.3f}, utility {after.utility:.3f} of the "
        "fine-tune's; results.json has the report prompts, which the search never saw",
    )
    switches = Switches(
        resume=True,
        as_adapter=request.as_adapter,
        adapter_rank=request.adapter_rank,
        allow_unrelated=request.allow_unrelated,
        may_fit=True,
        origin=Origin(asked.models, _data(recipe, operands), (*told, *notes), places.out, _kept(asked, places)),
    )
    found = located(asked, Path()).model_copy(update={"data": asked.data})  # texts will lie beside the recipe
    _begin(_text(found, request), places)
    return apply_recipe(recipe, Path(), places.staged, switches, progress)[0].path


def _begin(recipe: str, places: Places) -> None:
    """Another candidate may have been chosen before: its checkpoint and its answers make room."""
    told = places.work / RECIPE
    if told.is_file() and told.read_text(encoding="utf-8") != recipe:
        shutil.rmtree(places.staged, ignore_errors=True)
        shutil.rmtree(places.work / "records" / RESTORED, ignore_errors=True)
    told.write_text(recipe, encoding="utf-8")


def public_text(recipe: str, out: Path) -> str:
    """A recipe's text as it may be uploaded from `out`: models by hub ids, by relative paths, or by hashes."""
    head = "".join(line for line in recipe.splitlines(keepends=True) if line.startswith("#"))
    given = yaml.safe_load(recipe)
    given.get("data", {}).update(_kept_in(given.get("data", {}), report_folder(out)))
    value = Publisher(out).recipe(given)
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return head + (_HASHED if HASHED in text else "") + text


def _kept(recipe: Recipe, places: Places) -> dict[str, str]:
    """Where the recipe's texts will lie in the end."""
    return _kept_in(recipe.data.model_dump(exclude_defaults=True), places.report)


def _kept_in(data: Mapping[str, Any], report: Path) -> dict[str, str]:
    texts = {name: path for name, path in data.items() if str(path).startswith(f"{CALIBRATION}/")}
    return {name: str(report.resolve() / path) for name, path in texts.items()}


def _text(recipe: Recipe, request: Request) -> str:
    rank = "" if request.adapter_rank is None else f" --adapter-rank {request.adapter_rank}"
    switches = (f" --as-adapter{rank}" if request.as_adapter else "") + (
        " --allow-unrelated" if request.allow_unrelated else ""
    )
    value = recipe.model_dump(mode="json", exclude_defaults=True)
    return _HEAD.format(name=RECIPE, switches=switches) + yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def _data(recipe: Recipe, operands: Operands) -> dict[str, Input]:
    found = {f"{kind}_texts": operands.texts[kind] for kind in texts_of(recipe, Path())}
    if recipe.data.harmful_pairs is not None:
        found["harmful_pairs"] = Path(recipe.data.harmful_pairs)
    return {name: data_input(path) for name, path in found.items()}
