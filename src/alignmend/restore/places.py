"""The folders of a restore: what is in the making lies beside the output, which appears whole or not at all."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from alignmend.errors import OutputError
from alignmend.io.staging import sync

RESULTS = "results.json"
_LOCK = ".lock"


@dataclass(frozen=True)
class Places:
    """`out`, and `OUT-search` beside it, where journal, records and the checkpoint in the making are."""

    out: Path

    @property
    def work(self) -> Path:
        """Everything in the making that is not private."""
        return self.out.with_name(f"{self.out.name}-search")

    @property
    def private(self) -> Path:
        """Trained parts."""
        return self.out.with_name(f"{self.out.name}-private")

    @property
    def staged(self) -> Path:
        """The output in the making; it has the output's name, which its model card shows."""
        return self.work / self.out.name

    @property
    def finished(self) -> bool:
        """Whether an earlier restore ended here."""
        return (self.out / RESULTS).is_file()


def check_free(places: Places, *, resume: bool, overwrite: bool) -> None:
    """Raise `OutputError` where something is in the way that neither `resume` nor `overwrite` speaks of."""
    out = places.out
    if not out.name or out.name == "..":
        raise OutputError(f"{out} is no place for an output: name a folder")
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} exists and is not a folder: choose another name")
    if out.is_dir() and any(out.iterdir()) and not (overwrite or (resume and places.finished)):
        raise OutputError(f"{out} exists and is not empty: choose another folder, or pass --overwrite to replace it")
    if places.work.exists() and not (resume or overwrite):
        raise OutputError(
            f"{places.work} holds an unfinished restore: pass --resume to go on with it, or --overwrite to begin anew"
        )


@contextmanager
def held(places: Places, *, afresh: bool) -> Iterator[None]:
    """Hold the work folder against a second restore of the same output; `afresh` empties it first."""
    try:
        places.work.mkdir(parents=True, exist_ok=True)
        with (places.work / _LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OutputError(f"another restore is writing {places.out}: wait for it, or stop it") from None
            if afresh:
                _empty(places.work)
            yield
    except OSError as error:
        raise OutputError(f"{places.work}: {error.strerror or error}") from error


def _empty(folder: Path) -> None:
    for found in folder.iterdir():
        if found.name == _LOCK:
            continue
        shutil.rmtree(found) if found.is_dir() else found.unlink()


def publish(places: Places, *, overwrite: bool) -> None:
    """Make the staged folder durable and give it the final name; what was there goes once the new one is."""
    staged, out = places.staged, places.out
    for found in sorted(staged.rglob("*"), reverse=True):
        sync(found)
    sync(staged)
    previous = places.work / "previous"
    if out.exists():
        if any(out.iterdir()) and not overwrite:
            raise OutputError(f"{out} appeared meanwhile: choose another folder, or pass --overwrite")
        shutil.rmtree(previous, ignore_errors=True)
        out.rename(previous)
    try:
        staged.rename(out)
    except OSError:
        if previous.is_dir() and not out.exists():
            previous.rename(out)
        raise
    sync(out.parent)


def clear(places: Places, *, keep_private: bool) -> None:
    """Remove what is left beside a finished output."""
    shutil.rmtree(places.work, ignore_errors=True)
    if not keep_private:
        shutil.rmtree(places.private, ignore_errors=True)
