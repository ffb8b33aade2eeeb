"""Ctrl-C during a search: it stops the measurement that runs, and never the bookkeeping between two of them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """Between measurements a Ctrl-C is only noted; a second one that finds the first unanswered breaks off."""

    def __init__(self) -> None:
        self._noted, self._open = False, False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Take Ctrl-C over; left alone outside of the main thread, where Python has no signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Work that may be broken off."""
        self._open = True
        try:
            self.check()
            yield
        finally:
            self._open = False

    def check(self) -> None:
        """Raise `KeyboardInterrupt` where one was noted."""
        if self._noted:
            self._noted = False
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._open or self._noted:
            self._noted = False
            raise KeyboardInterrupt
        self._noted = True
