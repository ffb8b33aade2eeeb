"""Printing of text that others wrote: paths, names, prompts, answers, what servers and templates said.

Whatever would command the terminal is shown instead of sent. `visible_streams` does that for everything that is
printed while a command runs, also by libraries; rich draws around it, on a console of `plain_console`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TextIO, cast

from alignmend.errors import OutputError

if TYPE_CHECKING:
    from rich.console import Console

_COMMANDING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but for line feed and tab, changes of direction, and halves of characters."""
_BYTES = range(0xDC80, 0xDD00)
"""How Python holds bytes of a path that are no UTF-8."""
_BARS = ("\r", "\x1b[A")
_BAR_WRITERS = ("tqdm.std", "tqdm.utils")


def visible(text: str) -> str:
    r"""`text` with what would command a terminal written out, such as `\x1b`; line breaks and tabs stay."""
    return _COMMANDING.sub(lambda found: _escape(found.group()), text)


def _escape(character: str) -> str:
    code = ord(character)
    if code in _BYTES:
        return f"\\x{code - 0xDC00:02x}"
    return "\\r" if character == "\r" else f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class ToldStream:
    """A text stream that says `OutputError` where it takes no more, and writes out what its encoding lacks."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write `text`."""
        encoding = self._stream.encoding or "utf-8"
        with _told():
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of `lines`."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Send what was written."""
        with _told():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        """Everything else is the stream's own."""
        return getattr(self._stream, name)


class VisibleStream(ToldStream):
    """A text stream that sends nothing but visible text."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.rich_proxied_file = ToldStream(stream)
        """Where rich writes: its own colours, around text that `plain_console` has made visible."""

    def write(self, text: str) -> int:
        """Write `text`; a bar of tqdm may move the cursor."""
        is_bar = sys._getframe(1).f_globals.get("__name__") in _BAR_WRITERS
        super().write(_visible_bar(text) if is_bar else visible(text))
        return len(text)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # the reader has gone, which is its right
        raise
    except OSError as error:
        raise OutputError(f"cannot print: {error.strerror or error}") from None


def _visible_bar(text: str) -> str:
    parts = re.split(r"(\r|\x1b\[A)", text)
    return "".join(part if part in _BARS else visible(part) for part in parts)


@contextmanager
def visible_streams() -> Iterator[None]:
    """Inside, standard output and error send visible text alone, and are there, even where the caller closed them.

    A closed descriptor would be given to the next file that is opened, and what is printed would end up in it.
    """
    _open_descriptors()
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin = sys.stdin or _nowhere("r")
    sys.stdout = cast(TextIO, VisibleStream(sys.stdout or _nowhere("w")))
    sys.stderr = cast(TextIO, VisibleStream(sys.stderr or _nowhere("w")))
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


def _open_descriptors() -> None:
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free: this one


@cache
def _nowhere(mode: str) -> TextIO:
    return cast(TextIO, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123


def plain_console(**options: Any) -> Console:
    """A console that prints strings as they are: no brackets or colons of theirs are read as markup."""
    return _console_class()(markup=False, emoji=False, highlight=False, **options)


@cache
def _console_class() -> type[Console]:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class PlainConsole(Console):
        """Makes what it renders visible; rich's own commands are segments apart."""

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for text, style, control in super().render(renderable, options):
                yield Segment(text if control else visible(text), style, control)

    return PlainConsole
