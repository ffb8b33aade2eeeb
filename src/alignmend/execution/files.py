"""Positioned reads and writes on a few shared file descriptors, safe to use from several threads."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

from alignmend.errors import FileFormatError
from alignmend.execution.input_matrices import InputMatrices
from alignmend.io.tensors import TensorEntry


class _TruncatedError(Exception):
    """A file ends before what its header says."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path


class Files:
    """Open files by path, each once, for as long as the context lasts."""

    def __init__(self) -> None:
        self._descriptors: dict[Path, int] = {}
        self._lock = threading.Lock()
        self.matrices = InputMatrices(self)
        """Made of the files' moments, once for all threads."""

    def __enter__(self) -> Files:
        """Nothing is opened until asked for."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close everything."""
        with self._lock:
            for descriptor in self._descriptors.values():
                os.close(descriptor)
            self._descriptors.clear()

    def read(self, entry: TensorEntry, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the tensor's bytes from its element `start` on.

        Raises `FileFormatError` where the file has vanished or has become shorter than its header said.
        """
        try:
            if entry.runs is not None:
                entry.runs.read(start, buffer, self._fill)
            else:
                self._fill(entry.path, entry.start + start * entry.item_size, buffer)
        except _TruncatedError as error:
            raise FileFormatError(
                f"{error.path} became shorter while {entry.name} was read: is something else writing to it?"
            ) from None
        except OSError as error:
            raise FileFormatError(f"{entry.path}: cannot read {entry.name}: {error.strerror}") from error

    def _fill(self, path: Path, position: int, buffer: memoryview) -> None:
        """Read all of `buffer` at `position`; raises OSError as the system does."""
        descriptor = self._descriptor(path)
        done = 0
        while done < len(buffer):
            count = os.preadv(descriptor, [buffer[done:]], position + done)
            if count == 0:
                raise _TruncatedError(path)
            done += count

    def will_need(self, entry: TensorEntry, start: int, stop: int) -> None:
        """Ask the operating system to fetch elements `[start, stop)` in the background, where it can."""
        if not hasattr(os, "posix_fadvise"):
            return
        size = entry.item_size
        ranges = [(entry.path, entry.start + start * size, (stop - start) * size)]
        if entry.runs is not None:
            found = ((run.plain, run.stop - run.first) for run in entry.runs.between(start, stop))
            ranges = [(*plain, count * size) for plain, count in found if plain is not None]
        for path, position, length in ranges:
            os.posix_fadvise(self._descriptor(path), position, length, os.POSIX_FADV_WILLNEED)

    def _descriptor(self, path: Path) -> int:
        with self._lock:
            if path not in self._descriptors:
                try:
                    self._descriptors[path] = os.open(path, os.O_RDONLY)
                except OSError as error:
                    raise FileFormatError(f"{path} can no longer be opened: {error.strerror}") from error
            return self._descriptors[path]


def write_all(descriptor: int, buffer: memoryview, position: int) -> None:
    """Write the whole buffer at `position`; raises OSError as the system does."""
    done = 0
    while done < len(buffer):
        done += os.pwrite(descriptor, buffer[done:], position + done)
