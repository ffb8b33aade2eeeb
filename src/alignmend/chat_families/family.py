"""A family on disk: its members, suites and data, and `family.json`, which says how each member was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from alignmend.errors import FileFormatError
from alignmend.io.atomic import replace_bytes

NOTE = "family.json"
ORIGINAL = "original"
"""The chat model that a family began with, as a link."""


class MemberNote(BaseModel):
    """One member; `key` is a hash of everything that decides its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    start: str
    """The member that it began at."""
    made: dict[str, JsonValue] = {}
    private: bool = False


class FamilyNote(BaseModel):
    """The whole of `family.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["chat family"] = "chat family"
    model: str
    """Name of the folder, or the hub id, that it began with."""
    seed: int
    unaligned: dict[str, str] = {}
    """Members that a safety vector can be taken against, and what each is."""
    data: dict[str, str] = {}
    """SHA-256 of the published sets that were read."""
    left_out: dict[str, int] = {}
    """By set: rows that did not train because a suite has them too."""
    members: dict[str, MemberNote] = {}

    def with_member(self, name: str, member: MemberNote | None) -> FamilyNote:
        """The same note with one member more, or one less."""
        others = {one: each for one, each in self.members.items() if one != name}
        return self.model_copy(update={"members": others if member is None else {**others, name: member}})


@dataclass(frozen=True)
class ChatFamily:
    """A family that lies in `directory`: members, suites and data of the tasks by name."""

    directory: Path
    members: Mapping[str, Path]
    suites: Mapping[str, Path]
    data: Mapping[str, Path]
    note: FamilyNote


def open_chat_family(directory: Path) -> ChatFamily:
    """The family that `build_chat_family` left in `directory`, as far as it is finished; raises `FileFormatError`."""
    note = read_note(directory)
    if note is None:
        raise FileFormatError(
            f"{directory} holds no family of a chat model ({NOTE} is missing)", advice="build one first"
        )
    members = {name: directory / name for name in (ORIGINAL, *note.members)}
    if gone := [name for name, path in members.items() if not path.is_dir()]:
        raise FileFormatError(f"{directory} has lost {', '.join(gone)}", advice="build the family again")
    files = {
        folder: {path.stem: path for path in sorted((directory / folder).glob(pattern))}
        for folder, pattern in (("suites", "*.jsonl"), ("data", "task-*.jsonl"))
    }
    return ChatFamily(
        directory, MappingProxyType(members), MappingProxyType(files["suites"]), MappingProxyType(files["data"]), note
    )


def read_note(directory: Path) -> FamilyNote | None:
    """The note of a family folder, `None` where there is none; raises `FileFormatError` for another one."""
    path = directory / NOTE
    if not path.is_file():
        return None
    try:
        return FamilyNote.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise FileFormatError(
            f"{path} is no note of a family from a chat model ({error.error_count()} faults)",
            advice="choose another folder",
        ) from error


def write_note(directory: Path, note: FamilyNote) -> None:
    """Replace the note in one step."""
    replace_bytes(directory / NOTE, (note.model_dump_json(indent=2) + "\n").encode())
