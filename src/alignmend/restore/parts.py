"""What a recipe may lack and `run` can make: harm models and patches, trained from the recipe's harmful pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from alignmend.errors import RecipeError
from alignmend.methods.registry import get_method
from alignmend.recipes.build import beside, open_models
from alignmend.recipes.schema import ModelReference, Recipe

if TYPE_CHECKING:
    from alignmend.restore.recipe_run import Progress


@dataclass(frozen=True)
class Trained:
    """A role that is another role's model, trained on the harmful pairs."""

    objective: Literal["descent", "ascent"]
    of: tuple[str, ...]
    """Roles that it may start from; the first that the recipe has is taken."""


PARTS: Mapping[str, Trained] = MappingProxyType(
    {
        "harmful": Trained("descent", ("aligned",)),
        "unaligned": Trained("descent", ("aligned",)),
        "safety": Trained("ascent", ("target",)),
        "over_safety": Trained("descent", ("target",)),
    }
)
"""By role, whatever the method."""


def lacking(recipe: Recipe) -> tuple[str, ...]:
    """Roles that the recipe's method needs and the recipe does not name, in the order in which they are made."""
    needed = {name for name, one in get_method(recipe.method).arguments.items() if one.is_model and one.required}
    return tuple(role for role in PARTS if role in needed and role not in recipe.models)


def check_makeable(recipe: Recipe, folder: Path, roles: Sequence[str]) -> None:
    """Raise `RecipeError` where something that is needed to make `roles` is not there."""
    if not roles:
        return
    told = " and ".join(f"models.{role}" for role in roles)
    if recipe.data.harmful_pairs is None:
        raise RecipeError(f"{told} is missing: name it, or give data.harmful_pairs to train it from")
    if not beside(recipe.data.harmful_pairs, folder).is_file():
        raise RecipeError(f"data.harmful_pairs: there is no file {recipe.data.harmful_pairs}")
    for role in roles:
        start = _start(recipe, role)
        if open_models(recipe, folder)[start].change is not None:
            raise RecipeError(f"models.{role} is trained from {start}, which is an adapter: merge it first")


def stand_in(recipe: Recipe) -> Recipe:
    """The recipe with each role that it lacks filled by the model that the part will be trained from."""
    filled = {role: recipe.models[_start(recipe, role)] for role in lacking(recipe)}
    return recipe.model_copy(update={"models": {**recipe.models, **filled}})


def make_parts(
    recipe: Recipe, folder: Path, place: Path, *, resume: bool, progress: Progress
) -> Iterator[tuple[str, ModelReference]]:
    """Train what the recipe lacks into folders of `place`, which stay private; yields each role as it is there."""
    from alignmend.training.run import train_model
    from alignmend.training.settings import TrainSettings

    for role in lacking(recipe):
        assert recipe.data.harmful_pairs is not None
        model = open_models(recipe, folder)[_start(recipe, role)].root.folder.path
        settings = TrainSettings(objective=PARTS[role].objective, **_settings(recipe, PARTS[role]))
        train_model(
            model,
            beside(recipe.data.harmful_pairs, folder),
            place / role,
            settings,
            resume=resume,
            overwrite=not resume,
            progress=lambda what, done, total, role=role: progress(f"train {role}", done, total),  # type: ignore[misc]
        )
        yield role, ModelReference(path=str((place / role).resolve()), base=_base(recipe, role))


def _start(recipe: Recipe, role: str) -> str:
    return next(one for one in PARTS[role].of if one in recipe.models)


def _base(recipe: Recipe, role: str) -> str | None:
    """An adapter says what it stands on."""
    return None if recipe.training.lora_rank is None else _start(recipe, role)


def _settings(recipe: Recipe, part: Trained) -> dict[str, Any]:
    given = recipe.training.model_dump()
    if part.objective != "ascent":
        given.pop("stop_loss")
    return given
