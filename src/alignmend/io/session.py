"""The headers that one command has read: each file is parsed once, however often its checkpoint is opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from alignmend.io.file_state import state_of
from alignmend.io.header import Header, read_header

_READ: ContextVar[dict[Path, Header] | None] = ContextVar("headers", default=None)


@contextmanager
def one_session() -> Iterator[None]:
    """Inside, `header_of` remembers; a session within a session is the outer one."""
    if _READ.get() is not None:
        yield
        return
    token = _READ.set({})
    try:
        yield
    finally:
        _READ.reset(token)


def header_of(path: Path) -> Header:
    """The header of a safetensors file, as `read_header` gives it; read again where the file has changed since."""
    known = _READ.get()
    if known is None:
        return read_header(path)
    found = known.get(path)
    if found is None or not _is_as_read(found):
        found = known[path] = read_header(path)
    return found


def _is_as_read(header: Header) -> bool:
    try:
        return state_of(header.path.stat()) == header.state
    except OSError:
        return False
