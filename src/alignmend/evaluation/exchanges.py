"""A request and its answer in a row of somebody's file, whatever its columns are called.

Nothing is guessed: of two columns that may both be the answer, the user says which is meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignmend.errors import FileFormatError
from alignmend.io.strict_json import shown

REQUESTS = (
    "prompt",
    "instruction",
    "question",
    "query",
    "request",
    "goal",
    "behavior",
    "behaviour",
    "forbidden_prompt",
)
RESPONSES = (
    "response",
    "output",
    "completion",
    "generation",
    "generated_text",
    "model_output",
    "model_response",
)
CONVERSATIONS = ("messages", "conversation", "conversations")
_ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "model": "assistant",
          "bot": "assistant"}  # fmt: skip
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Exchange:
    """What was asked and answered; `reasoning` came beside the answer; `columns` are those that it was read from."""

    prompt: str
    response: str
    reasoning: str | None
    columns: tuple[str, ...]


def exchange_of(row: Row, where: str) -> Exchange:
    """Request and answer of `row`: from two columns, else from the last turns of a conversation.

    `FileFormatError` says which column is missing, is there twice or holds no text.
    """
    asked, answered = _one_of(row, REQUESTS, where), _one_of(row, RESPONSES, where)
    if answered is None and asked is not None and asked.strip().lower() == "question":
        answered = _named(row, "answer")  # elsewhere `answer` is the one that is known to be right
    talk = _one_of(row, CONVERSATIONS, where)
    if talk is not None and (asked is None or answered is None):
        return _from_conversation(row[talk], talk, where)
    for found, names in ((asked, REQUESTS), (answered, RESPONSES)):
        if found is None:
            raise FileFormatError(
                f"{where}: column {names[0]!r} is missing; columns found: {columns_of(row)}; other names that are "
                f"known for it: {', '.join(names[1:])}, or both in {CONVERSATIONS[0]!r}"
            )
    if asked is None:
        raise TypeError("asked is None")
    if answered is None:
        raise TypeError("answered is None")
    prompt, more = _text(row, asked, where), _more(row, asked)
    return Exchange(f"{prompt}\n\n{row[more]}" if more else prompt, _text(row, answered, where), None,
                    (asked, answered, *([more] if more else [])))  # fmt: skip


def columns_of(row: Row) -> str:
    """The names of a row's columns, for messages."""
    return ", ".join(map(repr, row)) or "none"


def cell_of(row: Row, name: str) -> Any:
    """What stands under `name`, in capitals or not; `None` where nothing does."""
    found = _named(row, name)
    return None if found is None else row[found]


def _named(row: Row, name: str) -> str | None:
    return name if name in row else next((key for key in row if key.strip().lower() == name), None)


def _one_of(row: Row, names: Sequence[str], where: str) -> str | None:
    """The column that has one of `names`; the first of them goes before all others."""
    if (found := _named(row, names[0])) is not None:
        return found
    several = [found for name in names[1:] if (found := _named(row, name)) is not None]
    if len(several) > 1:
        raise FileFormatError(
            f"{where}: the columns {' and '.join(map(repr, several))} may both be the {names[0]}",
            advice=f"name the one that is meant {names[0]!r}",
        )
    return several[0] if several else None


def _more(row: Row, asked: str) -> str | None:
    """Alpaca's `input`, which belongs to the request, below the instruction."""
    found = _named(row, "input") if asked.strip().lower() == "instruction" else None
    return found if found is not None and isinstance(row[found], str) and row[found].strip() else None


def _text(row: Row, name: str, where: str) -> str:
    if not isinstance(row[name], str):
        raise FileFormatError(f"{where}: column {name!r} is {shown(row[name])}, not text; an empty answer is ''")
    return str(row[name])


def _from_conversation(talk: Any, column: str, where: str) -> Exchange:
    turns = [_turn(turn, column, where) for turn in talk] if isinstance(talk, list) else []
    said = [place for place, (role, _, _) in enumerate(turns) if role == "assistant"]
    asked = [text for role, text, _ in turns[: said[-1]] if role == "user"] if said else []
    if not said or said[-1] != len(turns) - 1 or not asked:
        raise FileFormatError(
            f"{where}: column {column!r} must be a list of messages that ends with the user's and then the "
            "assistant's, each with role and content"
        )
    _, response, reasoning = turns[-1]
    return Exchange(asked[-1], response, reasoning, (column,))


def _turn(turn: Any, column: str, where: str) -> tuple[str, str, str | None]:
    """Role, text and reasoning of one message, as chat templates take it or as ShareGPT writes it."""
    if not isinstance(turn, dict):
        raise FileFormatError(f"{where}: column {column!r} holds {shown(turn)}, no message with role and content")
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    apart = [turn[name] for name in _THOUGHTS if isinstance(turn.get(name), str)][:1]
    if content is None:
        content = turn.get("refusal") or ""
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        apart += [str(part["thinking"]) for part in parts if isinstance(part.get("thinking"), str)]
        content = "".join(
            str(part.get("text") or part.get("refusal") or "") for part in parts if "thinking" not in part
        )
    if not isinstance(content, str):
        raise FileFormatError(f"{where}: column {column!r} holds a content that is {shown(content)}, not text")
    return _ROLES.get(str(role).lower(), str(role)), content, "\n\n".join(apart) or None
