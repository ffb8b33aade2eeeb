"""`layers: edited` in a recipe: the layers that an edit changed and their neighbours, found between two checkpoints."""

from __future__ import annotations

from pathlib import Path

from alignmend.errors import MismatchError
from alignmend.recipes.build import open_models
from alignmend.recipes.schema import Recipe

EDITED = "edited"


def with_area(recipe: Recipe, folder: Path) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with its layers named, and a note that tells of them; as it is where it does not ask for an edit.

    Reads both checkpoints (arXiv 2406.11801, eq. 11-13). Raises `MismatchError` where `target` is no edit of `aligned`.
    """
    if recipe.parameters.get("layers") != EDITED:
        return recipe, ()
    from alignmend.editing.locate import KIND_WORDS, locate

    models = open_models(recipe, folder)
    for role in ("aligned", "target"):
        if models[role].change is not None:
            raise MismatchError(f"layers: {EDITED} compares two full checkpoints, and {role} is an adapter")
    original, edited = (models[role].root.folder.path for role in ("aligned", "target"))
    found = locate(original, edited)
    if not found.area:
        raise MismatchError(
            f"layers: {EDITED}: between {original} and {edited} there is {KIND_WORDS[found.kind]}, which is no "
            "edit of a few layers",
            advice="name the layers, or leave them out to take all",
        )
    changed, area = (", ".join(map(str, layers)) for layers in (found.layers, found.area))
    note = f"the edit changed layer {changed}; both stages act on layers {area} alone"
    return recipe.model_copy(update={"parameters": {**recipe.parameters, "layers": list(found.area)}}), (note,)
