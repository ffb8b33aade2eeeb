"""The folders of a restore: what is in the making lies beside the output, which appears whole or not at all."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from alignmend.errors import OutputError
from alignmend.io.manifest import read_manifest
from alignmend.io.private import MARKER_NAME
from alignmend.io.published import BASE_NAME, Publisher, report_folder
from alignmend.io.staging import sync

RESULTS = "results.json"
JOURNAL, KEPT_JOURNAL = "journal.log", "search.log"
"""The search, where it is in the making, and in the report folder."""
_LOCK = ".lock"


@dataclass(frozen=True)
class Places:
    """`out`, which may be uploaded, `OUT-report` beside it, which may not, and `OUT-search`, where everything in the
    making is.
    """

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
    def report(self) -> Path:
        """Answers, report and journal of the search."""
        return report_folder(self.out)

    @property
    def staged_report(self) -> Path:
        """The report folder in the making: beside the staged output, as it will be beside the output."""
        return report_folder(self.staged)

    @property
    def begun(self) -> bool:
        """Whether there is anything to go on with."""
        return self.work.is_dir() and any(one.name != _LOCK for one in self.work.iterdir())

    @property
    def finished(self) -> bool:
        """Whether an earlier restore ended here, and no other one that shall replace it has begun since."""
        if not (self.out / RESULTS).is_file():
            return False
        locked, journal, kept = self.work / _LOCK, self.work / JOURNAL, self.report / KEPT_JOURNAL
        if not (locked.exists() or journal.exists()):
            return True
        # The search is removed last: until then it is the one that the output tells of.
        return journal.is_file() and kept.is_file() and journal.read_bytes().startswith(kept.read_bytes())


def check_free(places: Places, *, resume: bool, overwrite: bool) -> None:
    """Raise `OutputError` where something is in the way that neither `resume` nor `overwrite` speaks of."""
    out = places.out
    if not out.name or out.name == "..":
        raise OutputError(f"{out} is no place for an output", advice="name a folder")
    if out.is_symlink():  # it would be replaced, not what it leads to
        raise OutputError(f"{out} is a link", advice=f"choose the folder that it leads to, {out.resolve()}")
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} exists and is not a folder", advice="choose another name")
    if out.is_dir() and any(out.iterdir()) and not (overwrite or (resume and places.finished)):
        raise OutputError(
            f"{out} exists and is not empty", advice="choose another folder, or pass --overwrite to replace it"
        )
    _check_own(places)
    if not (overwrite or resume) and places.report.is_dir() and any(places.report.iterdir()):
        raise OutputError(
            f"{places.report} holds the report of an earlier restore",
            advice="choose another --out, or pass --overwrite to replace it",
        )
    if places.begun and not (resume or overwrite):
        raise OutputError(
            f"{places.work} holds an unfinished restore",
            advice="pass --resume to go on with it, or --overwrite to begin anew",
        )


def _check_own(places: Places) -> None:
    """What lies beside the output is removed at the end, so it must be a restore's."""
    signs = {places.work: (_LOCK,), places.private: (MARKER_NAME,), places.report: (KEPT_JOURNAL, BASE_NAME)}
    for place, names in signs.items():
        if place.exists() and not place.is_dir():
            raise OutputError(f"{place} exists and is not a folder", advice="choose another --out")
        if place.is_dir() and any(place.iterdir()) and not any((place / name).is_file() for name in names):
            raise OutputError(
                f"{place} holds files that no restore made, and would be removed", advice="choose another --out"
            )


def check_same(places: Places, finetuned: str) -> None:
    """Raise `OutputError` where the finished output is of another fine-tune."""
    inputs = read_manifest(places.out).inputs
    made = next((inputs[role].location for role in ("finetuned", "target") if role in inputs), finetuned)
    asked = Publisher(places.out).location(finetuned)
    if made not in (finetuned, asked) and Path(made).resolve() != Path(finetuned).expanduser().resolve():
        raise OutputError(f"{places.out} is finished, and of {made}", advice=f"choose another folder for {finetuned}")


@contextmanager
def held(places: Places, *, afresh: bool) -> Iterator[None]:
    """Hold the work folder against a second restore of the same output; `afresh` empties it first."""
    try:
        places.work.mkdir(parents=True, exist_ok=True)
        with (places.work / _LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OutputError(
                    f"another restore is writing {places.out}", advice="wait for it, or stop it"
                ) from None
            try:
                if afresh:
                    _empty(places.work)
                yield
            finally:
                if not places.begun:
                    shutil.rmtree(places.work, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{places.work}: {error.strerror or error}") from error


def _empty(folder: Path) -> None:
    for found in folder.iterdir():
        if found.name == _LOCK:
            continue
        shutil.rmtree(found) if found.is_dir() else found.unlink()


def publish(places: Places, *, overwrite: bool) -> None:
    """Make the staged folders durable and give them their final names; what was there goes once the new ones are.

    The output leaves first and comes last: where it stands, the report beside it is its own.
    """
    pairs = ((places.staged_report, places.report), (places.staged, places.out))
    if places.out.exists() and any(places.out.iterdir()) and not overwrite:
        raise OutputError(f"{places.out} appeared meanwhile", advice="choose another folder, or pass --overwrite")
    for staged, _ in pairs:
        for found in sorted(staged.rglob("*"), reverse=True):
            sync(found)
        sync(staged)
    put_away: list[tuple[Path, Path]] = []
    try:
        for final in (places.out, places.report):
            if final.exists():
                previous = places.work / f"previous-{final.name}"
                shutil.rmtree(previous, ignore_errors=True)
                final.rename(previous)
                put_away.append((previous, final))
        for staged, final in pairs:
            staged.rename(final)
    except OSError:
        if places.report.exists() and not places.staged_report.exists():
            places.report.rename(places.staged_report)
        for previous, final in put_away:
            if not final.exists():
                previous.rename(final)
        raise
    sync(places.out.parent)


def is_held(places: Places) -> bool:
    """Whether a restore of the same output is under way; false where it cannot be told for want of its lock file."""
    try:
        with (places.work / _LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def has_private(places: Places) -> bool:
    """Whether trained parts that a restore made are there."""
    return (places.private / MARKER_NAME).is_file()


def remove_private(places: Places) -> None:
    """Remove trained parts, where a restore made them."""
    if has_private(places):
        shutil.rmtree(places.private, ignore_errors=True)


def clear(places: Places, *, keep_private: bool) -> None:
    """Remove what is left beside a finished output, the search last: it tells that the output is of it."""
    if not keep_private:
        remove_private(places)
    if places.work.is_dir():
        for found in sorted(places.work.iterdir(), key=lambda one: one.name == JOURNAL):
            shutil.rmtree(found, ignore_errors=True) if found.is_dir() else found.unlink(missing_ok=True)
        shutil.rmtree(places.work, ignore_errors=True)
