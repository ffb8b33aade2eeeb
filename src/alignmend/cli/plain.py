"""Printing of text that others wrote: paths, names, prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def plain_console(**options: Any) -> Console:
    """A console that prints strings as they are: no brackets or colons of theirs are read as markup."""
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False, **options)
