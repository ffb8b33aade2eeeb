"""What a preflight finds: rows of a table, each with what to do where something is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alignmend.errors import AlignmendError

Verdict = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One row: what was looked at, what is so, what follows, and for a problem what to do."""

    check: str
    found: str
    verdict: Verdict
    remedy: str = ""


def ok(check: str, found: str) -> Finding:
    """As it should be."""
    return Finding(check, found, "ok")


def note(check: str, found: str, remedy: str = "") -> Finding:
    """To know of; nothing stands in the way."""
    return Finding(check, found, "note", remedy)


def problem(check: str, found: str, remedy: str) -> Finding:
    """A restore would fail, or lie."""
    return Finding(check, found, "problem", remedy)


def from_error(check: str, error: AlignmendError, remedy: str = "") -> Finding:
    """The problem that `error` tells of; `remedy` is for one that does not say itself what to do."""
    return problem(check, error.statement, error.advice or remedy or "mend what the message names, and run again")
