"""How a method offers itself to the search of `restore`: which of its numbers are searched, and what is tried first.

A method's file says `CANDIDATES = Candidates(...)`; nothing else has to be told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Between:
    """A number from `least` to `most`, on the grid that `step` gives."""

    least: float
    most: float
    step: float


@dataclass(frozen=True)
class OneOf:
    """One of these values."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Candidates:
    """What a search tries of a method."""

    summary: str
    numbers: Mapping[str, Between | OneOf]
    """Arguments that are searched, in the order in which they are asked for."""
    first: tuple[Mapping[str, Any], ...]
    """What is tried before anything else: a value for each of `numbers`."""
    step_name: str = "coefficient"
    """The number that says how far a candidate goes: more of it is safer, and costs more."""
    low_rank: bool = False
    """Whether adapters in give an adapter out."""
    without_unaligned: bool = False
    """Tried by default only where there is no unaligned model."""
    warning: str = ""
    """What it costs, told before it is tried."""

    def __post_init__(self) -> None:
        if not isinstance(self.numbers.get(self.step_name), Between):
            raise TypeError(f"numbers has no range for {self.step_name!r}, which step_name says is how far it goes")
        if wrong := [one for one in self.first if set(one) != set(self.numbers)]:
            raise TypeError(f"first has {dict(wrong[0])}, where {sorted(self.numbers)} are searched")
