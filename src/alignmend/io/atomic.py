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
        raise OutputError(f"{path} cannot be made: {error.strerror}: choose another folder") from error


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
        raise OutputError(f"{path} cannot be written: {error.strerror}: check space and rights") from error
