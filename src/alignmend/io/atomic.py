"""Small files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from alignmend.errors import OutputError


def make_folder(path: Path) -> None:
    """Make a folder and its parents; raises `OutputError` where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be made: {error.strerror}", advice="choose another folder") from error


@contextmanager
def no_empty_folders(path: Path) -> Iterator[None]:
    """Folders up to `path` that the body made and left empty are gone afterwards, also where it raises."""
    made = [place for place in (path, *path.parents) if not place.exists()]
    try:
        yield
    finally:
        for place in made:
            with suppress(OSError):  # not empty, or never made
                place.rmdir()


def close_to_others(folder: Path) -> None:
    """Leave `folder` and all that is in it to their owner: folders 0700, files 0600; links are not followed."""
    _change_modes(folder, 0o700, 0o600)


def open_as_usual(folder: Path) -> None:
    """Give `folder` and all that is in it the rights that new files have."""
    mask = os.umask(0o077)  # which can only be read by setting it
    os.umask(mask)
    _change_modes(folder, 0o777 & ~mask, 0o666 & ~mask)


def _change_modes(folder: Path, folders: int, files: int) -> None:
    for root, _, names in os.walk(folder):
        Path(root).chmod(folders)
        for path in (Path(root, name) for name in names):
            if not path.is_symlink():
                path.chmod(files)


@contextmanager
def private_files() -> Iterator[None]:
    """Inside, what this process makes is for its owner alone from the first byte on."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def replace_bytes(path: Path, data: bytes) -> None:
    """Give `path` this content in one step: written beside, fsynced, renamed. Raises `OutputError`."""
    beside = path.with_name(f".{path.name}.partial")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be written: {error.strerror}", advice="check space and rights") from error
