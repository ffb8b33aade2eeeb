"""The journal of a search after an end in the middle of a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol


class Lock(Protocol):
    """What its writers hold."""

    def acquire(self) -> bool: ...
    def release(self) -> None: ...


def mend(path: Path, lock: Lock) -> None:
    """Cut a journal at the first line that was not written whole (a full disk, a kill): what is before it is sound."""
    if not path.exists():
        return
    lock.acquire()
    try:
        sound = 0
        with path.open("rb+") as file:
            for line in file:
                if not _is_whole(line):
                    file.truncate(sound)
                    break
                sound += len(line)
    finally:
        lock.release()


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return line.endswith(b"\n")
