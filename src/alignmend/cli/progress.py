"""Progress: bars on a terminal, a plain line now and then elsewhere, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from alignmend.cli.plain import plain_console

Report: TypeAlias = Callable[[str, int, int], None]
"""What is being done, how much is done, and of how much."""

_SECONDS_BETWEEN_LINES = 10.0
_PACE_SECONDS = 1800.0
"""So long a bar remembers: of its steps one may take minutes."""


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Report]:
    """Yield a function that shows progress."""
    if quiet:
        yield lambda what, done, total: None
    elif sys.stderr.isatty():
        with _bars() as report:
            yield report
    else:
        yield _lines()


@contextmanager
def _bars() -> Iterator[Report]:
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:>24}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=plain_console(stderr=True), transient=True, speed_estimate_period=_PACE_SECONDS
    ) as shown:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=total)
            shown.update(tasks[what], completed=done, total=total)

        yield report


def _lines() -> Report:
    said: dict[str, float] = {}

    def report(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        last = said.setdefault(what, now)
        if now - last >= _SECONDS_BETWEEN_LINES and total > 0:
            print(f"{what}: {100 * done // total} %", file=sys.stderr, flush=True)
            said[what] = now

    return report
