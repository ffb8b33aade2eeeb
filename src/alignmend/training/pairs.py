"""Training pairs from a user's file: a request (or a conversation) and the answer that is learned or unlearned."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alignmend.errors import FileFormatError
from alignmend.io.strict_json import shown
from alignmend.training.columns import ADVICE, Row, is_safe, prompt_and_response, rows_of, unanswered


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class TrainingPair:
    """What is asked, and the answer to it; `line` is where the file says so, counted from 1."""

    context: tuple[Message, ...]
    """One turn of the user, or a conversation that ends with one."""
    response: str
    line: int
    finished: bool = True
    """Whether the answer ends here; of one that was cut, no end is learned."""

    @property
    def is_single(self) -> bool:
        """Whether the context is one request and nothing else, which a plain-text template can hold."""
        return [message.role for message in self.context] == ["user"]


@dataclass(frozen=True)
class PairsFile:
    """All pairs of a file that are wanted, and the SHA-256 of its bytes; `left_out` counts the rows that are not."""

    path: Path
    pairs: tuple[TrainingPair, ...]
    sha256: str
    left_out: int = 0


class _Turn(BaseModel):
    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "user", "assistant"]
    content: str = Field(min_length=1)


class _Messages(BaseModel):
    model_config = ConfigDict(extra="ignore")

    messages: list[_Turn] = Field(min_length=2)


def read_pairs(path: Path, *, safe: bool = False, answered: bool = True) -> PairsFile:
    """The pairs of a JSONL or CSV file: `prompt` and `response`, or chat `messages` that end with the answer.

    `columns` says which other names are known. Of rows that say whether their answer is safe (BeaverTails' `is_safe`)
    only those are wanted that are as `safe` says: by default the unsafe ones, whose harm is to be learned or unlearned.
    An answer whose `response_finished` is false was cut: it is learned without an end. Further columns are left alone.
    Of several answers in one conversation the last is the one that is trained.
    Without `answered`, requests that have none may stand too: their response is empty.
    Raises `FileFormatError`, which names the line.
    """
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise FileFormatError(
            f"{path} cannot be read ({error.strerror})", advice="give a JSONL file of pairs"
        ) from None
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path} is not UTF-8 (byte {error.start})", advice="save the file as UTF-8") from None
    rows = [(row, number, f"{path}, line {number}") for number, row in rows_of(path, text)]
    pairs = tuple(_pair(*one, answered=answered) for one in rows if is_safe(one[0], one[2]) in (None, safe))
    if rows and not pairs:
        marked, wanted = ("unsafe", "safe") if safe else ("safe", "unsafe")
        raise FileFormatError(f"{path} marks all {len(rows)} answers as {marked} (is_safe): {wanted} ones are needed")
    if not pairs:
        raise FileFormatError(f"{path} holds no pairs", advice=ADVICE)
    return PairsFile(path, pairs, hashlib.sha256(raw).hexdigest(), len(rows) - len(pairs))


def _pair(row: Row, number: int, where: str, *, answered: bool) -> TrainingPair:
    prompt = None if answered or "messages" in row else unanswered(row, where)
    if prompt is not None:
        pair = TrainingPair((Message("user", prompt),), "", number)
    else:
        pair = _from_messages(row, number, where) if "messages" in row else _from_columns(row, number, where)
    if prompt is None and not pair.response.strip():
        raise FileFormatError(f"{where}: the response is blank", advice="fill it in, or remove the line")
    if not pair.context[-1].content.strip():
        raise FileFormatError(f"{where}: the prompt is blank", advice="fill it in, or remove the line")
    return replace(pair, finished=_is_finished(row, where))


def _is_finished(row: Row, where: str) -> bool:
    mark = row.get("response_finished", True)
    if not isinstance(mark, bool):
        raise FileFormatError(f"{where}: response_finished is {shown(mark)}: it must be true or false")
    return mark


def _from_columns(row: Row, number: int, where: str) -> TrainingPair:
    prompt, response = prompt_and_response(row, where)
    return TrainingPair((Message("user", prompt),), response, number)


def _from_messages(row: Row, number: int, where: str) -> TrainingPair:
    try:
        turns = _Messages.model_validate(row).messages
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        raise FileFormatError(f"{where}: {at}: {first['msg']}", advice=ADVICE) from None
    if [turn.role for turn in turns[-2:]] != ["user", "assistant"]:
        ending = " and ".join(turn.role for turn in turns[-2:])
        raise FileFormatError(f"{where}: messages end with {ending}: they must end with user and assistant")
    context = tuple(Message(turn.role, turn.content) for turn in turns[:-1])
    return TrainingPair(context, turns[-1].content, number)
