"""How results show themselves: a line for `repr`, the terminal's tables as HTML, a whole page in a frame."""

from __future__ import annotations

import html
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

_WIDTH = 110
_FRAME_HEIGHT = 620


class Shown:
    """A result with a short `repr` (`_facts`) and an HTML view for notebooks (`_parts`)."""

    def _facts(self) -> Iterable[str]:
        """A few words each."""
        raise NotImplementedError

    def _parts(self) -> Iterable[RenderableType]:
        """What a terminal would show: rich tables and lines."""
        return ()

    def _page(self) -> Path | None:
        """A self-contained HTML page that belongs to the result."""
        return None

    def __repr__(self) -> str:
        """One line."""
        return f"{type(self).__name__}({', '.join(self._facts())})"

    def _repr_html_(self) -> str:
        """Tables, and the page with its plots where there is one."""
        heading = f"<p><code>{html.escape(repr(self))}</code></p>"
        return heading + as_html(self._parts()) + in_frame(self._page())


def as_html(parts: Iterable[Any]) -> str:
    """Rich tables and lines of text as HTML that needs no style sheet; text from files is escaped."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, file=io.StringIO(), width=_WIDTH, force_jupyter=False)
    for part in parts:
        console.print(Text(part) if isinstance(part, str) else part)
    form = '<pre style="line-height:1.25;overflow-x:auto">{code}</pre>'
    written = console.export_html(inline_styles=True, code_format=form)
    return written if written != form.format(code="") else ""


def in_frame(page: Path | None) -> str:
    """A self-contained page in a frame of its own, so that its style stays there; nothing where it is gone."""
    if page is None or not page.is_file():
        return ""
    content = html.escape(page.read_text(encoding="utf-8"), quote=True)
    return f'<iframe srcdoc="{content}" style="width:100%;height:{_FRAME_HEIGHT}px;border:0"></iframe>'
