"""What is known of a suite, from its file in `definitions/`: source, licence, size, structure, columns.

A suite is one YAML file there; its name is the file's. Those with a `shipped` copy come with this package, as a file
in `shipped/`; of the others no data is here. `unverified` lists the facts of a file that were written from memory and
not seen at the source.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from alignmend.errors import FileFormatError, RecipeError
from alignmend.evaluation.records import Expected
from alignmend.evaluation.suites.shapes import SHAPES
from alignmend.evaluation.suites.suite import Kind
from alignmend.nearest import nearest

FOLDER = Path(__file__).with_name("definitions")
SHIPPED = Path(__file__).with_name("shipped")
Fact = Literal["licence", "size", "structure", "address", "hub", "columns", "gated"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Structure(_Strict):
    """How many groups there are, how large each is (of one size), and the size of each split."""

    categories: int | None = None
    per_category: int | None = None
    subcategories: int | None = None
    per_subcategory: int | None = None
    languages: int | None = None
    per_language: int | None = None
    splits: Mapping[str, int] = Field(default_factory=dict)


class Copy(_Strict):
    """One form in which the suite is published.

    `file` is its name in a folder of local copies (where `shipped`, in this package's), `hub` a repository of the hub
    with the file(s) `path` at `revision`, `address` where it can be downloaded by hand. `columns` maps our names to the
    file's, `drop` are columns that are not kept, `shape` the conversion (see `shapes`), `groups` the category of each
    of several files, `split` and `prefix` what all rows get as split and lose at the beginning of their ids. `size`
    differs from the suite's where `sample` is true.
    """

    name: str
    file: str | None = None
    shipped: bool = False
    hub: str | None = None
    path: tuple[str, ...] = ()
    revision: str | None = None
    address: str | None = None
    columns: Mapping[str, str] = Field(default_factory=dict)
    drop: tuple[str, ...] = ()
    headerless: bool = False
    shape: str = "plain"
    groups: tuple[str, ...] = ()
    split: str | None = None
    prefix: str = ""
    sha256: str | None = Field(default=None, pattern="[0-9a-f]{64}")
    size: int | None = None
    sample: bool = False
    structure: Structure | None = None

    @model_validator(mode="after")
    def _complete(self) -> Copy:
        if self.shape not in SHAPES:
            raise ValueError(f"unknown shape {self.shape!r}{nearest(self.shape, SHAPES)}")
        if (self.hub is None) != (not self.path):
            raise ValueError("`hub` and `path` go together")
        if self.shipped and self.file is None:
            raise ValueError("a shipped copy needs its `file`")
        if self.sample and self.size is None:
            raise ValueError("a sample needs its own `size`")
        return self


class Definition(_Strict):
    """A suite that is known by name.

    `size` counts all rows of the whole set, `other_sizes` are those of other packagings that are in use;
    `default_split` is what is loaded when none is asked for. Prompts with one id in suites of one family
    `translations` are translations of each other. `in_distribution_with` says which methods or papers train on it.
    """

    title: str
    kind: Kind
    expected: Expected | None
    language: str | None
    paper: str | None = None
    address: str | None = None
    licence: str
    unverified: tuple[Fact, ...] = ()
    gated: bool = False
    how_to_get: str
    size: int
    other_sizes: tuple[int, ...] = ()
    default_split: str | None = None
    structure: Structure = Structure()
    translations: str | None = None
    in_distribution_with: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    copies: tuple[Copy, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _credited(self) -> Definition:
        if not self.is_shipped and None in (self.paper, self.address):
            raise ValueError("a published suite needs its `paper` and `address`")
        return self

    @property
    def is_shipped(self) -> bool:
        """Whether it comes with this package."""
        return any(copy.shipped for copy in self.copies)

    @property
    def default_size(self) -> int:
        """How many prompts are loaded of the whole set when no split is asked for."""
        return self.structure.splits.get(self.default_split or "", self.size)


@cache
def definitions() -> Mapping[str, Definition]:
    """Every known suite by name, in alphabetical order."""
    return MappingProxyType(
        {path.stem: _read(path) for path in sorted(FOLDER.glob("*.yaml"), key=lambda path: path.stem)}
    )


def get_definition(name: str) -> Definition:
    """The suite `name`; `RecipeError` offers the nearest known name."""
    if name not in definitions():
        near = nearest(name, definitions()) or "; `alignmend list suites` shows the known ones"
        raise RecipeError(f"unknown suite {name!r}{near} (or give the path of a JSONL, JSON, CSV, TSV or text file)")
    return definitions()[name]


def _read(path: Path) -> Definition:
    try:
        return Definition.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError) as error:
        raise FileFormatError(f"{path}: not a definition of a suite: {error}") from error
