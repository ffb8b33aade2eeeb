"""What a preflight finds: rows of a table, each with what to do where something is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alignmend.errors import AlignmendError

Verdict = Literal["ok", "note", "problem"]
_OPENING, _CLOSING = "([{", ")]}"
_BIDDING = frozenset({
    "accept", "apply", "check", "choose", "consolidate", "convert", "copy", "did", "do", "double", "download", "fetch",
    "fill", "free", "give", "if", "install", "keep", "leave", "let", "list", "load", "lower", "make", "merge", "mend",
    "move", "name", "pass", "put", "quote", "raise", "remove", "repair", "repeat", "run", "save", "set", "shorten",
    "stop", "take", "try", "update", "use", "wait", "write",
})  # fmt: skip
"""First words of advice in this package's messages."""


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
    """The problem that `error` tells of; `remedy` is for a message that does not say itself what to do."""
    found, told = split_advice(str(error))
    return problem(check, found, told or remedy or "mend what the message names, and run again")


def split_advice(message: str) -> tuple[str, str]:
    """A message as what is wrong and what to do: from the last clause, outside of brackets, that bids to do something.

    Without such a clause all of it is what is wrong.
    """
    depth, end = 0, -1
    for place, character in enumerate(message):
        depth = max(0, depth + (character in _OPENING) - (character in _CLOSING))
        if depth == 0 and character in ":;" and _bids(message[place + 1 :]):
            end = place
    return (message, "") if end < 0 else (message[:end], message[end + 2 :].strip())


def _bids(clause: str) -> bool:
    return clause.startswith(" ") and clause[1:2].isalpha() and clause.split(maxsplit=1)[0].strip(",") in _BIDDING
