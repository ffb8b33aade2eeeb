"""The aligned model that a fine-tune began at, as the fine-tune's own files tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignmend.errors import AlignmendError, FileFormatError, UnsupportedFormatError
from alignmend.io.card import CARD_NAME, read_front_matter
from alignmend.io.folder import MAX_CONFIG_BYTES, is_adapter_folder, open_checkpoint_folder
from alignmend.io.hub import find, is_hub_id
from alignmend.io.manifest import MANIFEST_NAME, read_manifest
from alignmend.io.strict_json import JsonObject, read_object

_ROLES = ("aligned", "base")
_OTHER_RELATIONS = ("merge", "quantized")
"""Of a model card's base to its model: not the one of a parent to a fine-tune."""


@dataclass(frozen=True)
class Hint:
    """A parent that a file beside the fine-tune names."""

    name: str
    found_in: str
    revision: str | None = None


@dataclass(frozen=True)
class Parent:
    """The aligned parent: a folder or hub id that opens, the file that named it, and what others say instead."""

    reference: str
    found_in: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Looked:
    """What a look for the parent found; `refused` are hints that lead to no model, each with the reason."""

    parent: Parent | None
    refused: tuple[str, ...] = ()


def find_parent(finetuned: str) -> Parent | None:
    """The model that the fine-tune (a folder or hub id) names as its parent and that opens; the surest file counts.

    In this order: `adapter_config.json`, `alignmend.json`, the model card, `config.json`. A relative path is looked for
    in the fine-tune's folder, in the current one, and beside the fine-tune. Raises what finding the fine-tune raises.
    """
    return look_for_parent(finetuned).parent


def look_for_parent(finetuned: str) -> Looked:
    """As `find_parent`, with what was refused and why."""
    folder = folder_of(finetuned)
    hints, refused = parent_hints(folder), []
    for place, hint in enumerate(hints):
        try:
            reference = _opened(hint, folder)
        except AlignmendError as error:
            refused.append(f"{hint.found_in} names {hint.name}, which cannot be used: {error}")
            continue
        others = disagreements(hints[place + 1 :], reference)
        return Looked(Parent(reference, hint.found_in, (*refused, *others)), tuple(refused))
    return Looked(None, tuple(refused))


def folder_of(model: str) -> Path:
    """The folder that holds a model's files; raises what finding it raises."""
    path = find(model).path
    return path if path.is_dir() else path.parent


def parent_hints(folder: Path) -> tuple[Hint, ...]:
    """Every parent that the files in `folder` name, the surest file first. Files that cannot be read say nothing."""
    return (*_adapter(folder), *_manifest(folder), *_card(folder), *_config(folder))


def disagreements(hints: Sequence[Hint], reference: str) -> tuple[str, ...]:
    """What `hints` say other than `reference`; a path and a hub id of one last name are taken for the same."""
    known = Path(reference).name
    return tuple(f"{hint.found_in} names {hint.name} instead" for hint in hints if Path(hint.name).name != known)


def _adapter(folder: Path) -> Iterator[Hint]:
    config = _json(folder / "adapter_config.json")
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if isinstance(name, str) and name:
        yield Hint(name, "adapter_config.json", revision if isinstance(revision, str) and revision else None)


def _manifest(folder: Path) -> Iterator[Hint]:
    try:
        inputs = read_manifest(folder).inputs
    except FileFormatError:
        return
    role = next((role for role in _ROLES if role in inputs), None)
    if role is not None:
        yield Hint(inputs[role].location, f"{MANIFEST_NAME} ({role})", inputs[role].revision)


def _card(folder: Path) -> Iterator[Hint]:
    """Of several bases none is the parent, and neither is what was merged or quantized."""
    front = read_front_matter(folder)
    named = front.get("base_model")
    names = named if isinstance(named, list) else [named]
    is_one = len(names) == 1 and front.get("base_model_relation") not in _OTHER_RELATIONS
    if is_one and isinstance(names[0], str) and names[0]:
        yield Hint(names[0], f"the model card ({CARD_NAME})")


def _config(folder: Path) -> Iterator[Hint]:
    """`_name_or_path` is where the weights were loaded from; often that is the model's own place."""
    name = _json(folder / "config.json").get("_name_or_path")
    if isinstance(name, str) and name and Path(name).name != folder.resolve().name:
        yield Hint(name, "config.json")


def _json(path: Path) -> JsonObject:
    try:
        return read_object(path, limit=MAX_CONFIG_BYTES, advice="")
    except FileFormatError:
        return {}


def _opened(hint: Hint, folder: Path) -> str:
    """A reference to the hinted model; raises what opening it raises."""
    local = _local(hint.name, folder)
    if local is not None:
        _check(local, folder)
        return str(local)
    if not is_hub_id(hint.name):
        raise FileFormatError("there is no such folder on this machine")
    found = find(hint.name, revision=hint.revision).path
    _check(found, folder)
    return hint.name if hint.revision is None else str(found)  # a hub id alone would mean its newest revision


def _local(name: str, folder: Path) -> Path | None:
    written = Path(name).expanduser()
    try:
        places = (one for one in (folder / written, written, folder.parent / written) if one.exists())
        found = next(places, None)
    except (OSError, ValueError):  # a name too long for a file, or with NUL in it
        return None
    return None if found is None else found.resolve()


def _check(path: Path, finetuned: Path) -> None:
    if path.is_dir() and is_adapter_folder(path):
        raise UnsupportedFormatError("it is an adapter itself")
    if path.samefile(finetuned):
        raise FileFormatError("that is the fine-tune itself")
    open_checkpoint_folder(path)
