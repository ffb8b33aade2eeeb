"""What the candidates need and the user does not have: made once by training, kept private, found again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from alignmend.io.atomic import private_files
from alignmend.io.private import mark_private
from alignmend.recipes.schema import Data, ModelReference, Recipe
from alignmend.restore.candidates import Choice, Operands, moments_training, text_fields
from alignmend.restore.opening import Opened
from alignmend.restore.parts import Progress, check_makeable, lacking, make_parts, path_of
from alignmend.restore.request import Request

_REASON = "Parts of a restore on their way: models trained to be worse. Never publish them."


def operands_of(opened: Opened) -> Operands:
    """The models that were given."""
    given = {"unaligned": opened.references["unaligned"]} if "unaligned" in opened.references else {}
    return Operands(opened.references["finetuned"], opened.references["aligned"], given)


def make_missing(operands: Operands, choice: Choice, request: Request, place: Path, progress: Progress) -> Operands:
    """Train what `choice` needs and `operands` lacks in `place`; parts of an earlier run are taken as they are."""
    return replace(operands, parts={**operands.parts, **_made(_trained(operands, choice, request), place, progress)})


def make_moments(operands: Operands, choice: Choice, request: Request, place: Path, progress: Progress) -> Operands:
    """Take the input moments that `choice` needs over the texts of `operands`, in `place`, or find them there."""
    return replace(operands, parts={**operands.parts, **_made(_weighed(operands, choice, request), place, progress)})


def _made(recipes: Sequence[Recipe], place: Path, progress: Progress) -> dict[str, ModelReference]:
    for recipe in recipes:
        check_makeable(recipe, Path(), lacking(recipe))  # before hours of training
    parts: dict[str, ModelReference] = {}
    for recipe in recipes:
        place.mkdir(parents=True, exist_ok=True)
        mark_private(place, _REASON)
        with private_files():
            parts |= dict(make_parts(recipe, Path(), place, resume=True, progress=progress))
    return parts


def must_train(operands: Operands, choice: Choice, request: Request) -> bool:
    """Whether `choice` needs parts that were not given."""
    return bool(_wanted(operands, choice, request))


def unmade(operands: Operands, choice: Choice, request: Request, place: Path) -> list[str]:
    """The parts that `choice` needs and that are not in `place` yet: they appear there whole."""
    roles = [role for recipe in _wanted(operands, choice, request) for role in lacking(recipe)]
    return [role for role in roles if not path_of(place, role).exists()]


def _wanted(operands: Operands, choice: Choice, request: Request) -> list[Recipe]:
    """A recipe for each set of parts: it lacks them, and making what a recipe lacks is known."""
    return [*_weighed(operands, choice, request), *_trained(operands, choice, request)]


def _weighed(operands: Operands, choice: Choice, request: Request) -> list[Recipe]:
    if not (choice.needs("moments") and operands.texts):
        return []
    return [
        Recipe(
            method="resta_weighted",
            models={"finetuned": operands.finetuned, "aligned": operands.aligned},
            data=Data().model_copy(update=text_fields({kind: str(path) for kind, path in operands.texts.items()})),
            training=moments_training(request),
        )
    ]


def _trained(operands: Operands, choice: Choice, request: Request) -> list[Recipe]:
    if request.harmful_data is None:
        return []
    methods = []
    if choice.needs("unaligned") and "unaligned" not in operands.given:
        methods.append("resta")
    if choice.needs("patches"):
        methods.append("safe_patching")
    data = Data(harmful_pairs=str(request.harmful_data.resolve()))
    return [
        Recipe(method=method, models=operands.models(method), data=data, training=request.training)
        for method in methods
    ]
