"""An output folder appears whole or not at all.

Everything is written into a hidden folder beside the final name, fsynced, and renamed. A run that was killed leaves
only that hidden folder, which `resume` continues and any other run replaces.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from alignmend.errors import OutputError
from alignmend.io.atomic import replace_bytes
from alignmend.io.shards import human_bytes

_KEY = "key"
_LOCK = ".lock"
_LOCK_ATTEMPTS = 3


@dataclass(frozen=True)
class Staging:
    """A folder in the making."""

    final: Path
    path: Path
    """The hidden folder that will be renamed to `final`."""
    work: Path
    """Beside `path`: notes of the run that do not belong to the output (key, journal)."""
    previous: Path
    """What is replaced, meanwhile."""
    resumed: bool

    def publish(self, overwrite: bool) -> None:
        """Make everything durable and give it the final name."""
        for found in sorted(self.path.rglob("*"), reverse=True):
            sync(found)
        sync(self.path)
        previous = self.previous
        if self.final.exists() and any(self.final.iterdir()):
            if not overwrite:
                raise OutputError(
                    f"{self.final} appeared while this run was writing",
                    advice="choose another folder or pass --overwrite",
                )
            self.final.rename(previous)
        try:
            self.path.rename(self.final)
        except OSError:
            self._put_back(previous)
            raise
        sync(self.final.parent)
        shutil.rmtree(previous, ignore_errors=True)
        shutil.rmtree(self.work, ignore_errors=True)

    def _put_back(self, previous: Path) -> None:
        """Undo the first of two renames after the second has failed; what was replaced is lost in no case."""
        if not previous.is_dir():
            return
        if not os.path.lexists(self.final):
            previous.rename(self.final)
            return
        kept = self.final.with_name(f"{self.final.name}.replaced-{os.getpid()}")
        previous.rename(kept)
        raise OutputError(
            f"something else was put at {self.final} while this run replaced it: what was there before is now at {kept}"
        )

    def discard(self) -> None:
        """Remove what was written so far."""
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.rmtree(self.work, ignore_errors=True)


def sync(path: Path) -> None:
    """Fsync a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(final: Path, what: str, sweep: Path | None) -> Path:
    """Of one output of a sweep beside the whole sweep: nothing unfinished lies in a folder that may be uploaded."""
    if sweep is None:
        return final.parent / f".{final.name}.alignmend-{what}"
    return sweep.parent / f".{sweep.name}.{'.'.join(final.relative_to(sweep).parts)}.alignmend-{what}"


@contextmanager
def staging(
    final: Path, *, key: str, resume: bool = False, overwrite: bool = False, sweep: Path | None = None
) -> Iterator[Staging]:
    """Yield a folder to write in; the caller publishes it. `key` says what is written: only the same key is resumed.

    `sweep` is the folder that holds `final` among other outputs.

    On an error the folder is removed; on an interruption (Ctrl-C, kill) it stays for `resume`. Raises `OutputError`
    where the final name is taken, the place cannot be written, or another run is writing there.
    """
    final = Path(os.path.realpath(final))  # what a link stands for is replaced, not the link
    sweep = None if sweep is None else Path(os.path.realpath(sweep))
    try:
        _check_free(final, overwrite)
        final.parent.mkdir(parents=True, exist_ok=True)
        work, previous = (_beside(final, what, sweep) for what in ("work", "previous"))
        with _locked(work, final):
            _recover(final, previous)
            _check_free(final, overwrite)
            yield from _attempt(Staging(final, _beside(final, "partial", sweep), work, previous, False), key, resume)
    except OSError as error:
        raise _as_output_error(error, final) from error


def settle(final: Path, sweep: Path | None = None) -> None:
    """Remove what a run that was killed right after it had published `final` has left beside it."""
    final = Path(os.path.realpath(final))
    sweep = None if sweep is None else Path(os.path.realpath(sweep))
    work, previous, partial = (_beside(final, what, sweep) for what in ("work", "previous", "partial"))
    if not (work.exists() or previous.exists()) or partial.exists():
        return
    try:
        with _locked(work, final):
            _recover(final, previous)
            _clear(work)
    except OSError as error:
        raise _as_output_error(error, final) from error


def _clear(work: Path) -> None:
    for leftover in work.iterdir():
        if leftover.name != _LOCK:
            leftover.unlink()


def _attempt(begun: Staging, key: str, resume: bool) -> Iterator[Staging]:
    final, path, work = begun.final, begun.path, begun.work
    noted = work / _KEY
    before = noted.read_text() if path.is_dir() and noted.is_file() else None  # none where it was killed at once
    same = before == key
    if resume and before is not None and not same:
        raise OutputError(
            f"an unfinished run for {final} has other inputs or options",
            advice="run again without --resume to begin anew",
        )
    stage = replace(begun, resumed=resume and same)
    try:
        if not stage.resumed:
            noted.unlink(missing_ok=True)  # first, since without it the rest is nobody's
            shutil.rmtree(path, ignore_errors=True)
            _clear(work)
            path.mkdir()
            replace_bytes(noted, key.encode())
        yield stage
    except Exception:
        stage.discard()
        raise


def _check_free(final: Path, overwrite: bool) -> None:
    if final.is_dir():
        if Path.cwd().is_relative_to(final) or Path.home().is_relative_to(final):
            raise OutputError(f"{final} holds the current or the home folder", advice="choose another folder")
        if any(final.iterdir()) and not overwrite:
            raise OutputError(
                f"{final} exists and is not empty", advice="choose another folder, or pass --overwrite to replace it"
            )
    elif os.path.lexists(final):
        raise OutputError(f"{final} exists and is not a folder", advice="choose another name")


def _recover(final: Path, previous: Path) -> None:
    """Undo a replacement that was killed between its two renames."""
    if previous.is_dir():
        if not final.exists():
            previous.rename(final)
        else:
            shutil.rmtree(previous)


@contextmanager
def _locked(work: Path, final: Path) -> Iterator[None]:
    descriptor = _lock(work, final)
    try:
        yield
    finally:
        with suppress(OSError):  # removed while still locked, and only if no later run has made its own
            if _is_at(descriptor, work / _LOCK) and not any(found.name != _LOCK for found in work.iterdir()):
                shutil.rmtree(work)
        os.close(descriptor)


def _lock(work: Path, final: Path) -> int:
    """The descriptor of the lock, which is held; raises `OutputError` where another run holds it."""
    for _ in range(_LOCK_ATTEMPTS):
        with suppress(FileNotFoundError):  # a run that ends now has removed the folder
            work.mkdir(exist_ok=True)
            descriptor = os.open(work / _LOCK, os.O_RDWR | os.O_CREAT)
            if _holds(descriptor, work / _LOCK):
                return descriptor
            os.close(descriptor)
    raise OutputError(f"another run is writing {final}", advice="wait for it, or choose another folder")


def _holds(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _is_at(descriptor, path)
    except BlockingIOError:
        return False


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file still is the one at its name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _as_output_error(error: OSError, final: Path) -> OutputError:
    if error.errno == errno.ENOSPC:
        return OutputError(
            f"the disk that holds {final.parent} is full; nothing was left behind",
            advice="free space, or choose another disk",
        )
    reason = os.strerror(error.errno) if error.errno else str(error)
    return OutputError(f"cannot write {final}: {reason} ({error.filename or final.parent})")


def check_space(folder: Path, needed: int) -> None:
    """Raise `OutputError` unless the disk that holds `folder` has `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"the output needs {human_bytes(needed)} and the disk that holds {folder} has {human_bytes(free)} "
            f"free, {human_bytes(needed - free)} too little",
            advice="free space, or choose another disk",
        )
