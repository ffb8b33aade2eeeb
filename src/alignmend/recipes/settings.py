"""`--set key=value`: change a recipe from the command line."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import yaml

from alignmend.errors import RecipeError
from alignmend.recipes.lines import Document, KeyPath, parse_yaml

_BLOCKS = ("method", "models", "parameters", "data", "training", "scores", "output")


def override(document: Document, settings: Sequence[str]) -> Document:
    """The document with each `key=value` put in; a key without a block is a parameter, a value is read as YAML."""
    value: dict[str, Any] = copy.deepcopy(dict(document.value))
    given: dict[KeyPath, str] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise RecipeError(f"--set takes key=value, such as  --set coefficient=0.4, not {setting!r}")
        path = key.strip().split(".")
        path = path if path[0] in _BLOCKS else ["parameters", *path]
        _put(value, path, _parsed(text, setting), setting)
        given[tuple(path)] = setting
    return replace(document, value=value, settings=given)


def _parsed(text: str, setting: str) -> object:
    try:
        found = parse_yaml(f"value: {text}", "--set").value
    except (RecipeError, yaml.YAMLError):
        raise RecipeError(f"--set {setting}: the value is not YAML") from None
    if len(found) != 1:
        raise RecipeError(f"--set {setting!r} gives more than one value")
    return found["value"]


def _put(value: dict[str, Any], path: list[str], new: object, setting: str) -> None:
    for part in path[:-1]:
        inner = value.setdefault(part, {})
        if inner is None:  # a block that is there but empty
            inner = value[part] = {}
        if isinstance(inner, str):  # a model given as plain text
            inner = value[part] = {"path": inner}
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {setting}: {part} has no keys of its own")
        value = inner
    value[path[-1]] = new
