"""A recipe that was written to be uploaded: what it tells by a hash is found in the report folder beside it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from alignmend.errors import RecipeError
from alignmend.io.published import HASHED, reported
from alignmend.recipes.lines import Document, KeyPath, read_yaml

_BLOCKS = ("models", "data")


def found_again(document: Document, path: Path) -> Document:
    """The document at `path` with every hash replaced by the place that the recipe in the report folder names.

    Raises `RecipeError` where there is none.
    """
    hashed = [place for block in _BLOCKS for place in _hashes(document.value.get(block), (block,))]
    if not hashed:
        return document
    whole = reported(path.resolve().parent) / path.name
    known = read_yaml(whole).value if whole.is_file() and whole.resolve() != path.resolve() else {}
    value: dict[str, Any] = copy.deepcopy(dict(document.value))
    for place in hashed:
        found = _at(known, place)
        if not isinstance(found, str) or found.startswith(HASHED):
            shown = ".".join(str(part) for part in place)
            role = ".".join(str(part) for part in place[:2])
            raise RecipeError(
                f"{document.where(place)}: {shown} is told by a hash alone, since a recipe that is uploaded names "
                "neither places nor unaligned models",
                advice=f"give  --set {role}=FOLDER , or keep {whole} beside it",
            )
        _put(value, place, found)
    return replace(document, value=value)


def _hashes(value: object, place: KeyPath) -> Iterator[KeyPath]:
    if isinstance(value, str) and value.startswith(HASHED):
        yield place
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _hashes(one, (*place, key))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _hashes(one, (*place, number))


def _at(value: Any, place: KeyPath) -> object:
    for part in place:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _put(value: Any, place: KeyPath, new: str) -> None:
    for part in place[:-1]:
        value = value[part]
    value[place[-1]] = new
