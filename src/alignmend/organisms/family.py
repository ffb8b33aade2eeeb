"""A family on disk: its members, suites and data, and the note by which it is found again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict, ValidationError

from alignmend.errors import FileFormatError
from alignmend.organisms.grammar import SUITES
from alignmend.organisms.members import ALL_MEMBERS, FamilyRecipe, Size

NOTE = "family.json"
_SOURCES = (
    "words", "languages", "grammar", "requests", "facts", "suites", "corpora", "tokenizer", "models", "build",
    "../training/loop", "../training/adapter",
)  # fmt: skip
_EDITING = (
    "edited",
    "../editing/chat",
    "../editing/positions",
    "../editing/rome",
    "../editing/settings",
    "../editing/value",
)


@dataclass(frozen=True)
class Family:
    """A family that lies complete in `directory`."""

    directory: Path
    size: Size
    seed: int
    members: Mapping[str, Path]
    suites: Mapping[str, Path]


class Note(BaseModel):
    """`family.json`: what lies in the folder; `members` names those that are finished."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    size: Size
    seed: int
    members: tuple[str, ...] = ()


def content_key(recipe: FamilyRecipe, seed: int) -> str:
    """Hash of everything that decides the bytes: grammar and training code, recipe, seed, library versions."""
    digest = hashlib.sha256()
    edits = any(member.edit is not None for member in recipe.members.values())
    for source in (*_SOURCES, *(_EDITING if edits else ())):
        digest.update((Path(__file__).parent / f"{source}.py").read_bytes())
    libraries = {name: version(name) for name in ("torch", "transformers", "tokenizers", "peft")}
    digest.update(json.dumps([asdict(recipe), seed, libraries], sort_keys=True).encode())
    return digest.hexdigest()


def read_note(directory: Path) -> Note | None:
    """The note of a family folder, or None where there is none. Raises `FileFormatError` for a broken one."""
    path = directory / NOTE
    if not path.is_file():
        return None
    try:
        return Note.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise FileFormatError(f"{path} is no family note ({error.error_count()} faults)", advice="delete it") from error


def write_note(directory: Path, note: Note) -> None:
    """Replace the note in one step."""
    beside = directory / f".{NOTE}.new"
    beside.write_text(note.model_dump_json(indent=2) + "\n", encoding="utf-8")
    beside.replace(directory / NOTE)


def open_family(directory: Path) -> Family:
    """The family that `build_family` or `shipped_family` left in `directory`; raises `FileFormatError`."""
    note = read_note(directory)
    if note is None:
        raise FileFormatError(
            f"{directory} holds no family ({NOTE} is missing)", advice="build one with `organism build`"
        )
    family = as_family(directory, note)
    for path in (*family.members.values(), *family.suites.values()):
        if not path.exists():
            raise FileFormatError(f"{path} is missing from the family in {directory}", advice="build the family again")
    return family


def as_family(directory: Path, note: Note, members: Sequence[str] | None = None) -> Family:
    """The family that `note` describes, of all finished members or of those named."""
    names = [name for name in ALL_MEMBERS if name in (note.members if members is None else members)]
    return Family(
        directory=directory,
        size=note.size,
        seed=note.seed,
        members=MappingProxyType({name: directory / name for name in names}),
        suites=MappingProxyType({name: directory / "suites" / f"{name}.jsonl" for name in SUITES}),
    )
