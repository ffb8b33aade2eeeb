"""Whether a file is still the one that was read: its size, time of change and number in the file system."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from alignmend.errors import FileFormatError


class FileState(NamedTuple):
    """What changes when a file is written to or replaced."""

    size: int
    modified_ns: int
    inode: int


def state_of(status: os.stat_result) -> FileState:
    """The state that a file's status tells."""
    return FileState(status.st_size, status.st_mtime_ns, status.st_ino)


def states_of(paths: Iterable[Path]) -> dict[Path, FileState]:
    """The state of each file now; raises `FileFormatError` where one has vanished."""
    found = {}
    for path in paths:
        try:
            found[path] = state_of(path.stat())
        except OSError as error:
            raise FileFormatError(f"{path} can no longer be opened: {error.strerror}") from None
    return found


def refuse_changed(before: Mapping[Path, FileState]) -> None:
    """Raise `FileFormatError` where a file is no longer in the state in which it was read."""
    for path, now in states_of(before).items():
        if now != before[path]:
            what = "was replaced" if now.inode != before[path].inode else "was written to"
            raise FileFormatError(
                f"{path} {what} while it was read, so the result would mix two models: nothing was published;",
                advice="let what writes to it finish, then run again",
            )
