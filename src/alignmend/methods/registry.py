"""Every method, found by its file: what it takes, read from its signature; what it means, read from its docstring.

A new file in this folder with one public function of its own name is a new method; nothing else has to be told. Other
packages name theirs by entry points.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import UnionType

import alignmend.methods
from alignmend import plugins
from alignmend.algebra.values import Checkpoint, Moments, Scores
from alignmend.docstrings import docstring
from alignmend.errors import RecipeError
from alignmend.io.manifest import Method as MethodRecord
from alignmend.methods.candidates import Candidates
from alignmend.methods.steered import Steered
from alignmend.nearest import nearest

ENTRY_POINTS = "alignmend.methods"
"""The group under which installed packages name methods: `name = "module:function"`."""
_NOT_METHODS = {"candidates", "registry", "steered"}
_PAPER = re.compile(r"^Paper: (.+?), \"(.+?)\",\s+arXiv (\S+?)$", re.MULTILINE | re.DOTALL)
_ORIGIN = re.compile(r"^Origin: this project", re.MULTILINE)
_EQUATION = re.compile(r"^Equation: (.+?)\n\n", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^\| (?P<argument>\w+) \| (?P<symbol>[^|]+) \| (?P<meaning>.+) \|$", re.MULTILINE)


@dataclass(frozen=True)
class Argument:
    """One argument of a method."""

    name: str
    annotation: object
    """Its type, resolved."""
    required: bool
    default: object
    symbol: str
    meaning: str

    @property
    def is_model(self) -> bool:
        """Whether it takes a checkpoint, or several."""
        return self.annotation == Checkpoint or self.many or self.annotation == (Checkpoint | None)

    @property
    def is_scores(self) -> bool:
        """Whether it takes a file of scores."""
        return self.annotation in (Scores, Scores | None)

    @property
    def is_moments(self) -> bool:
        """Whether it takes a file of moments."""
        return self.annotation == Moments

    @property
    def is_operand(self) -> bool:
        """Whether it is opened from disk: a recipe names it under `models`."""
        return self.is_model or self.is_scores or self.is_moments

    @property
    def many(self) -> bool:
        """Whether it takes several checkpoints."""
        return self.annotation == Sequence[Checkpoint]


@dataclass(frozen=True)
class Method:
    """A method as recipes, help and docs see it."""

    name: str
    summary: str
    authors: str
    """Empty for a method of this project, as title and arxiv are."""
    title: str
    arxiv: str
    equation: str
    arguments: Mapping[str, Argument]
    build: Callable[..., Checkpoint | Steered]
    """The function itself: operands and numbers in, an expression out."""
    candidates: Candidates | None = None
    """What a search tries of it, where its file says so."""

    @property
    def record(self) -> MethodRecord:
        """What a manifest says of it."""
        return MethodRecord(name=self.name, title=self.title or None, arxiv=self.arxiv or None, equation=self.equation)

    @property
    def source(self) -> str:
        """Where it comes from, in a few words."""
        return f"arXiv {self.arxiv}" if self.arxiv else "of this project"


def method_names() -> tuple[str, ...]:
    """Every method, sorted; none is imported."""
    own = _own()
    return tuple(sorted((*own, *plugins.installed(ENTRY_POINTS, own))))


def _own() -> list[str]:
    names = (module.name for module in pkgutil.iter_modules(alignmend.methods.__path__))
    return [name for name in names if name not in _NOT_METHODS]


@cache
def methods() -> Mapping[str, Method]:
    """Every method by name, sorted."""
    return {name: _method(name) for name in method_names()}


def get_method(name: str) -> Method:
    """The method called `name`; raises `RecipeError` that offers the nearest one."""
    known = methods()
    if name not in known:
        raise RecipeError(f"there is no method {name!r}{nearest(name, known)}; methods: {', '.join(known)}")
    return known[name]


def _function(name: str) -> Callable[..., Checkpoint | Steered]:
    own = _own()
    if name in own:
        return typing.cast(
            Callable[..., Checkpoint | Steered], getattr(importlib.import_module(f"alignmend.methods.{name}"), name)
        )
    point = plugins.installed(ENTRY_POINTS, own)[name]
    found = plugins.load(point, "method")
    if not callable(found):
        raise RecipeError(
            f"the installed method {name!r} ({point.value}) is no function;", advice="update or remove it"
        )
    return found


def _method(name: str) -> Method:
    function = _function(name)
    try:
        return _read(name, function)
    except (KeyError, TypeError) as error:
        if name in _own():
            raise
        why = f"{error} is in no row of its docstring's table" if isinstance(error, KeyError) else str(error)
        raise RecipeError(
            f"the installed method {name!r} cannot be used: {why};", advice="see CONTRIBUTING.md"
        ) from error


def _read(name: str, function: Callable[..., Checkpoint | Steered]) -> Method:
    text = docstring(function)
    paper, equation = _PAPER.search(text), _EQUATION.search(text)
    if not paper and not _ORIGIN.search(text):
        raise TypeError(f"the docstring of {name} needs a line that begins with Paper or Origin")
    if not equation:
        raise TypeError(f"the docstring of {name} needs an Equation line")
    authors, title, arxiv = map(_unwrapped, paper.groups()) if paper else ("", "", "")
    return Method(
        name=name,
        summary=text.split("\n", 1)[0],
        authors=authors,
        title=title,
        arxiv=arxiv,
        equation=_unwrapped(equation.group(1)),
        arguments=_arguments(function, {row["argument"]: row for row in _ROW.finditer(text)}),
        build=function,
        candidates=getattr(sys.modules[function.__module__], "CANDIDATES", None),
    )


def _arguments(function: Callable[..., Checkpoint | Steered], rows: Mapping[str, re.Match[str]]) -> dict[str, Argument]:
    hints = typing.get_type_hints(function)
    found: dict[str, Argument] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        required = parameter.default is inspect.Parameter.empty
        default = None if required else parameter.default
        row = rows[name]
        found[name] = Argument(name, hints[name], required, default, row["symbol"].strip(), row["meaning"].strip())
    return found


def _unwrapped(text: str) -> str:
    return " ".join(text.split())


def type_name(annotation: object) -> str:
    """How help shows a type: `number`, `text`, a list of choices, ..."""
    if isinstance(annotation, UnionType) or typing.get_origin(annotation) is typing.Union:
        return " or ".join(type_name(part) for part in typing.get_args(annotation) if part is not type(None))
    if typing.get_origin(annotation) is typing.Literal:
        return " | ".join(str(choice) for choice in typing.get_args(annotation))
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is Sequence:
        return f"list of {type_name(arguments[0])}"
    if typing.get_origin(annotation) is Mapping:
        return f"map of {type_name(arguments[0])} to {type_name(arguments[1])}"
    names = {
        float: "number",
        int: "integer",
        str: "text",
        bool: "true or false",
        Checkpoint: "model",
        Scores: "scores",
        Moments: "moments",
    }
    return names.get(typing.cast(type, annotation), str(annotation))
