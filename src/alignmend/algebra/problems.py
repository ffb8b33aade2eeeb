"""Reasons why operands do not fit, collected and told at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from alignmend.errors import MismatchError

_SHOWN = 8


@dataclass
class Problems:
    """Every reason found why operands do not fit; raised together."""

    found: list[str] = field(default_factory=list)
    advice: str = ""
    """What to do about them, where they do not say it themselves."""

    def add(self, problem: str) -> None:
        """Note one reason; the same one counts once."""
        if problem not in self.found:
            self.found.append(problem)

    def advise(self, advice: str) -> None:
        """Say what to do; the first advice stands."""
        self.advice = self.advice or advice

    def raise_if_any(self) -> None:
        """Raise `MismatchError` with the first few reasons and the count of the rest."""
        if self.found:
            rest = len(self.found) - _SHOWN
            shown = [f"  {problem}" for problem in self.found[:_SHOWN]] + (
                [f"  ... and {rest} more"] if rest > 0 else []
            )
            lines = [*shown, f"  {self.advice}"] if self.advice else shown
            raise MismatchError("the checkpoints do not fit together:\n" + "\n".join(lines))
