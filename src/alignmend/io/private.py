"""Folders that must not be published: finding them, and removing them."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from alignmend.errors import FileFormatError, OutputError
from alignmend.io.atomic import private_files
from alignmend.io.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES

MARKER_NAME = "alignmend-private.json"
"""Marks a private folder that has no manifest (yet)."""


@dataclass(frozen=True)
class PrivateFolder:
    """A folder whose manifest or marker says that it is private."""

    path: Path
    bytes: int
    """Size of all files in it; links count as links."""
    description: str
    """What its manifest says that it is."""
    publishable: tuple[Path, ...]
    """Folders inside it whose own manifest says that they are not private."""


def mark_private(folder: Path, reason: str) -> None:
    """Leave the marker in `folder`, and close it to others."""
    folder.chmod(0o700)
    text = json.dumps({"private": True, "reason": reason}, indent=2) + "\n"
    with private_files():
        (folder / MARKER_NAME).write_text(text, encoding="utf-8")


def find_private(places: Iterable[Path]) -> tuple[PrivateFolder, ...]:
    """The outermost private folders at and below `places`, each once, sorted; links are not followed.

    Raises `FileFormatError` where a place is no folder.
    """
    found: dict[Path, PrivateFolder] = {}
    for place in places:
        if not place.is_dir():
            raise FileFormatError(f"{place} is no folder", advice="give the folders to look into")
        found.update((one.path, one) for one in _below(place.resolve()))
    inner = {path for path in found if any(parent in found for parent in path.parents)}
    return tuple(found[path] for path in sorted(found) if path not in inner)


def is_private(folder: Path) -> bool:
    """Whether `folder`, or one that it lies in, is marked private."""
    here = folder.resolve()
    return any(_privacy(place) is not None for place in (here, *here.parents))


def remove_private(folder: PrivateFolder) -> None:
    """Remove a folder that was found; raises `OutputError` where that would remove more than is private."""
    path = folder.path
    if folder.publishable:
        raise OutputError(
            f"{path} also holds {folder.publishable[0]}, which is not private", advice="move that elsewhere first"
        )
    if any(place.is_relative_to(path) for place in (Path.cwd(), Path.home())):
        raise OutputError(f"{path} holds the current or the home folder", advice="remove it from elsewhere")
    if _privacy(path) is None:
        raise OutputError(f"{path} is no longer marked private: nothing was removed there")
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be removed whole ({error.strerror})", advice="check its rights") from None


def _below(place: Path) -> Iterator[PrivateFolder]:
    for root, folders, _ in os.walk(place, followlinks=False):
        folders.sort()
        description = _privacy(Path(root))
        if description is not None:
            folders.clear()
            yield _described(Path(root), description)


def _described(path: Path, description: str) -> PrivateFolder:
    size, publishable = 0, []
    for root, _, files in os.walk(path, followlinks=False):
        here = Path(root)
        size += sum((here / name).lstat().st_size for name in files)
        if here != path and _says(here / MANIFEST_NAME) is not None and _privacy(here) is None:
            publishable.append(here)
    return PrivateFolder(path, size, description, tuple(sorted(publishable)))


def _privacy(folder: Path) -> str | None:
    """What a private folder says that it is; `None` for any other."""
    for name in (MANIFEST_NAME, MARKER_NAME):
        said = _says(folder / name)
        if said is not None and said.get("private") is True:
            told = said.get("expression") or said.get("role") or said.get("reason") or "private"
            return str(told)
    return None


def _says(path: Path) -> dict[str, object] | None:
    """The object in a file that is no link; `None` where there is none that can be read."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_MANIFEST_BYTES:
            return None
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
