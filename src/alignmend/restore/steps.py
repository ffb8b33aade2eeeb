"""What a restore tells on its way, and asks: a screen for a person, or nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from alignmend.restore.search import Watch

if TYPE_CHECKING:
    from alignmend.restore.candidates import Choice
    from alignmend.restore.document import Searched
    from alignmend.restore.front import Measured, Standing
    from alignmend.restore.measuring import Baseline
    from alignmend.restore.preflight import Preflight
    from alignmend.restore.request import Limits
    from alignmend.restore.trials import Tried

Progress = Callable[[str, int, int], None]


class Steps(Watch, Protocol):
    """What a person sees, and is asked, on the way."""

    def progress(self, what: str, done: int, total: int) -> None:
        """How far a step is."""

    def checked(self, found: Preflight, choice: Choice | None) -> None:
        """The preflight's table, before anything is done."""

    def measured(self, base: Baseline, held: int, limits: Limits) -> None:
        """The fine-tune and the aligned model on the search prompts; directions are held in at most `held` bytes."""

    def choose(self, searched: Searched, best: Measured | None) -> Measured | None:
        """The front; which of it to write, `None` for none."""


class Unwatched:
    """Nobody is asked: the best candidate is taken, and Ctrl-C ends everything."""

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress

    def progress(self, what: str, done: int, total: int) -> None:
        """To whoever wants to know."""
        if self._progress is not None:
            self._progress(what, done, total)

    def checked(self, found: Preflight, choice: Choice | None) -> None:
        """Problems are raised anyway."""

    def measured(self, base: Baseline, held: int, limits: Limits) -> None:
        """The results will tell."""

    def tried(self, one: Tried, done: int, total: int, seconds_left: float | None, best: Measured | None) -> None:
        """Progress alone."""
        self.progress("try candidates", done, total)

    def noted(self, text: str) -> None:
        """The results will tell."""

    def interrupted(self, standing: Standing) -> bool:
        """Never goes on."""
        raise KeyboardInterrupt

    def choose(self, searched: Searched, best: Measured | None) -> Measured | None:
        """Takes the best."""
        return best
