"""What a preflight finds: rows of a table, each with what to do where something is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alignmend.errors import AlignmendError

Verdict = Literal["ok", "note", "problem"]
_OPENING, _CLOSING = "([{", ")]}"


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
    """The problem that `error` tells of; its message ends with what to do, after the last colon of the sentence."""
    found, told = split_advice(str(error))
    return problem(check, found, told or remedy or "mend what the message names, and run again")


def split_advice(message: str) -> tuple[str, str]:
    """A message as what is wrong and what to do; marks within brackets and before commands are none of its own."""
    depth, colon, semicolon = 0, -1, -1
    for place, character in enumerate(message):
        depth = max(0, depth + (character in _OPENING) - (character in _CLOSING))
        following = message[place + 1 : place + 3]
        if depth == 0 and following[:1] == " " and following != "  ":
            colon = place if character == ":" else colon
            semicolon = place if character == ";" else semicolon
    end = colon if colon >= 0 else semicolon
    return (message, "") if end < 0 else (message[:end], message[end + 2 :].strip())
