"""YAML that remembers on which line each key stands, and refuses what YAML would let pass."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import yaml

from alignmend.errors import RecipeError

KeyPath: TypeAlias = tuple[str | int, ...]
MAX_BYTES = 1_000_000
MAX_DEPTH = 50


class _Loader(yaml.SafeLoader):
    """Reads `1e-3` as the number that it is; the YAML 1.1 of the library wants a point in it."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))


@dataclass(frozen=True)
class Document:
    """A parsed YAML mapping."""

    value: Mapping[str, object]
    lines: Mapping[KeyPath, int]
    """Line, from 1, of every key and list item."""
    name: str
    """For messages: the file's name."""
    settings: Mapping[KeyPath, str] = field(default_factory=dict)
    """What was put in from the command line, as it was written there."""

    def where(self, path: KeyPath) -> str:
        """`recipe.yaml, line 7`, as near to `path` as the document has one, or the setting that put it there."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.settings:
                return f"--set {self.settings[path[:length]]}"
            if path[:length] in self.lines:
                return f"{self.name}, line {self.lines[path[:length]]}"
        return self.name


def read_yaml(path: Path) -> Document:
    """Read a YAML mapping; raises `RecipeError` for what is missing, malformed, or given twice."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode("utf-8")
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RecipeError(f"{path} is not UTF-8 text: is it a recipe?") from None
    if len(raw) > MAX_BYTES:
        raise RecipeError(f"{path} has over {MAX_BYTES:,} bytes: is it a recipe?")
    return parse_yaml(text, path.name)


def parse_yaml(text: str, name: str) -> Document:
    """Parse a YAML mapping; `name` is for messages."""
    lines: dict[KeyPath, int] = {}
    try:
        _refuse_bombs(text, name)
        node = yaml.compose(text, Loader=_Loader)
        if node is not None:
            _note_lines(node, (), lines, name)
        value = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError(f"{name}, line {line}: {error.problem or 'not YAML'}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RecipeError(f"{name} is not YAML: {error}") from None
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise RecipeError(f"{name} must be a mapping with keys such as method, models, parameters")
    return Document(value, lines, name)


def _refuse_bombs(text: str, name: str) -> None:
    """References, a few of which can stand for billions of values, and nesting that takes the parser ages."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise RecipeError(
                f"{name}, line {line}: *{event.anchor} refers to another place", advice="write the value itself"
            )
        if depth > MAX_DEPTH:
            raise RecipeError(f"{name}, line {line}: more than {MAX_DEPTH} levels: is it a recipe?")


def _note_lines(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], name: str) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[Hashable] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise RecipeError(f"{name}, line {key.start_mark.line + 1}: a key must be plain text")
            if key.value in seen:
                raise RecipeError(f"{name}, line {key.start_mark.line + 1}: {key.value!r} is given twice")
            seen.add(key.value)
            lines[(*path, key.value)] = key.start_mark.line + 1
            _note_lines(value, (*path, key.value), lines, name)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            lines[(*path, number)] = item.start_mark.line + 1
            _note_lines(item, (*path, number), lines, name)
