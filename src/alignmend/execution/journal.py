"""What of an output is safely on the disk: an append-only list of finished pieces, read again by a resumed run.

A line is written only after the bytes it speaks of were flushed to the disk, so a line that exists is true.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from threading import Condition, Thread
from typing import TypeAlias

from alignmend.execution.patches import Tally
from alignmend.execution.pieces import PieceReport

Finished: TypeAlias = dict[int, PieceReport]
FLUSH_BYTES = 64 << 20
"""Write-back is started whenever this much is waiting, so that the last flush is short."""


def read_journal(path: Path) -> Finished:
    """Finished pieces by number; a last line cut short by a kill is not there."""
    finished: Finished = {}
    if path.exists():
        for line in path.read_bytes().split(b"\n")[:-1]:
            number, step, error, *patches = json.loads(line)
            finished[number] = PieceReport(step, error, tuple(_tally(*patch) for patch in patches))
    return finished


class Journal:
    """Flushes output files and notes finished pieces, in a thread of its own beside the computation."""

    def __init__(self, path: Path, outputs: dict[str, int]) -> None:
        if path.exists():  # a line that a kill cut short must not swallow the next one
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._outputs = outputs
        self._waiting: list[tuple[int, str, PieceReport]] = []
        self._bytes = 0
        self._closing = False
        self._error: OSError | None = None
        self._changed = Condition()
        self._thread = Thread(target=self._run, name="alignmend-journal", daemon=True)
        self._thread.start()

    def finished(self, number: int, file: str, report: PieceReport, size: int) -> None:
        """Piece `number` of `size` bytes was written to `file`."""
        with self._changed:
            if self._error is not None:
                raise self._error
            self._waiting.append((number, file, report))
            self._bytes += size
            if self._bytes >= FLUSH_BYTES:
                self._changed.notify()

    def close(self, *, flush: bool) -> None:
        """Stop; with `flush`, all that was finished is on the disk when this returns."""
        with self._changed:
            self._closing = True
            self._bytes = FLUSH_BYTES if flush else 0
            if not flush:
                self._waiting.clear()
            self._changed.notify()
        self._thread.join()
        os.close(self._descriptor)
        if flush and self._error is not None:
            raise self._error

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._bytes >= FLUSH_BYTES)
                waiting, self._waiting, self._bytes = self._waiting, [], 0
                closing = self._closing
            try:
                self._note(waiting)
            except OSError as error:
                self._error = error
                return
            if closing:
                return

    def _note(self, waiting: list[tuple[int, str, PieceReport]]) -> None:
        for file in dict.fromkeys(file for _, file, _ in waiting):
            flush = os.fdatasync if hasattr(os, "fdatasync") else os.fsync
            flush(self._outputs[file])
        lines = "".join(_line(number, report) for number, _, report in waiting)
        os.write(self._descriptor, lines.encode())


def _tally(label: str, kept: int, weights: int, products: list[float]) -> Tally:
    return Tally(label, kept, weights, tuple(products))


def _line(number: int, report: PieceReport) -> str:
    patches = [[one.label, one.kept, one.weights, one.products] for one in report.patches]
    return json.dumps([number, report.step, report.error, *patches]) + "\n"
