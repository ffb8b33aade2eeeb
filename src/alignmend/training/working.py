"""The working folder of a run: checkpoints that outlive a kill, beside the output's final name.

It is hidden, marked private, held by one run at a time, and gone when the output is whole.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from alignmend.errors import OutputError
from alignmend.io.atomic import replace_bytes
from alignmend.io.private import mark_private

_KEY = "key"
_LOCK = "lock"
_STATE = "trainer_state.json"
_REASON = (
    "An unfinished training run of a hazardous working file. Continue it with --resume; never publish it; delete it "
    "when it is not needed."
)


@dataclass(frozen=True)
class Working:
    """The folder, and what is in it."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Where the trainer leaves its checkpoints."""
        return self.path / "checkpoints"

    @property
    def finished(self) -> Path:
        """Where the trained weights are written before the output is made of them."""
        return self.path / "finished"

    @property
    def before(self) -> Path:
        """The file with the measure of the untrained model."""
        return self.path / "before.json"

    def last_checkpoint(self) -> Path | None:
        """The latest checkpoint that was written to its end: its state is written last."""
        numbered = [(int(path.name.rpartition("-")[2]), path) for path in self.checkpoints.glob("checkpoint-*")]
        whole = (path for _, path in sorted(numbered, reverse=True) if _is_whole(path))
        return next(whole, None)


def _is_whole(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / _STATE).read_bytes())
    except (OSError, ValueError):
        return False
    return True


def working_folder(out: Path) -> Working:
    """The working folder that belongs to the output `out`."""
    final = Path(os.path.realpath(out))
    return Working(final.parent / f".{final.name}.alignmend-training")


@contextmanager
def held(work: Working, *, key: str, resume: bool) -> Iterator[None]:
    """Hold the folder for one run, empty unless `resume` finds a run of the same `key` in it.

    After an error or a kill it stays for `resume`, if it holds a checkpoint. Raises `OutputError` where another run
    holds it, where it cannot be written, or where the unfinished run in it is another one.
    """
    try:
        work.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(work.path / _LOCK, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise OutputError(f"{work.path} cannot be written ({error.strerror})", advice="choose another place") from None
    try:
        _lock(descriptor, work)
        _prepare(work, key, resume)
        try:
            yield
        finally:
            if work.last_checkpoint() is None:  # nothing that could be continued
                remove(work)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, work: Working) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(
            f"another run is training in {work.path}", advice="wait for it, or choose another folder"
        ) from None
    lock = work.path / _LOCK
    if not lock.exists() or not os.path.samestat(os.fstat(descriptor), lock.stat()):
        raise OutputError(f"another run has just ended in {work.path}", advice="run again")


def _prepare(work: Working, key: str, resume: bool) -> None:
    noted = work.path / _KEY
    before = noted.read_text(encoding="utf-8") if noted.is_file() else None
    if resume and before not in (None, key):
        raise OutputError(
            f"the unfinished run in {work.path} has another model, other pairs or other options",
            advice="run again without --resume to begin anew",
        )
    if not (resume and before == key):
        noted.unlink(missing_ok=True)  # first, since without it the rest is nobody's
        for leftover in work.path.iterdir():
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)
            elif leftover.name != _LOCK:
                leftover.unlink()
        mark_private(work.path, _REASON)
        replace_bytes(noted, key.encode())
    shutil.rmtree(work.finished, ignore_errors=True)
    for checkpoint in work.checkpoints.glob("checkpoint-*"):
        if not _is_whole(checkpoint):  # cut off by a kill
            shutil.rmtree(checkpoint)


def settle(work: Working) -> None:
    """Remove what a run that was killed right after its output was whole has left."""
    if not work.path.exists():
        return
    descriptor = os.open(work.path / _LOCK, os.O_RDWR | os.O_CREAT)
    try:
        _lock(descriptor, work)
        remove(work)
    finally:
        os.close(descriptor)


def remove(work: Working) -> None:
    """Remove the folder of a run whose output is whole."""
    with suppress(FileNotFoundError):
        shutil.rmtree(work.path)
