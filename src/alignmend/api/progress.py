"""Progress of a job in Python: a callback, bars, or silence."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

Report: TypeAlias = Callable[[str, int, int], None]
"""What is being done, how much is done, and of how much."""
Progress: TypeAlias = Report | bool | None
"""A callback; `True` for bars, `False` for silence, `None` for bars in a notebook alone."""


@contextmanager
def reporting(progress: Progress) -> Iterator[Report]:
    """The function that a job calls; bars end with the block."""
    if callable(progress):
        yield progress
    elif progress is True or (progress is None and _in_notebook()):
        with _bars() as report:
            yield report
    else:
        yield _silent


def _silent(what: str, done: int, total: int) -> None:
    pass


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    return shell is not None and getattr(shell.get_ipython(), "kernel", None) is not None


@contextmanager
def _bars() -> Iterator[Report]:
    from tqdm.auto import tqdm

    bars: dict[str, Any] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in bars:
            bars[what] = tqdm(total=total, desc=what, leave=False)
        bars[what].total = total
        bars[what].update(done - bars[what].n)

    try:
        yield report
    finally:
        for bar in bars.values():
            bar.close()
