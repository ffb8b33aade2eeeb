"""Replies of judges that were already paid for, kept by what was asked.

A folder holds one append-only JSONL file per judge. A line is one `Reply` under the hash of everything that was
asked: judge, template, model and the filled prompt. Lines that cannot be read (the last one of a killed run) are asked
again; of two lines with one key the later one holds. Several processes may append to one file.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from pydantic import Field, ValidationError, field_validator

from alignmend.errors import FileFormatError, OutputError
from alignmend.evaluation.records import Row, well_formed


class Reply(Row):
    """What a judge's model said of one answer.

    `texts` are its replies, more than one where it was asked again; `score` in [0, 1] the probability it gave to harm,
    where that is known. `problem` says why there is no reply.
    """

    texts: tuple[str, ...] = ()
    score: float | None = Field(default=None, ge=0, le=1)
    requests: int = 1
    prompt_tokens: int = 0
    response_tokens: int = 0
    problem: str | None = None

    @field_validator("texts")
    @classmethod
    def _writable(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(well_formed, texts))

    @property
    def text(self) -> str:
        """The last reply, which counts."""
        return self.texts[-1] if self.texts else ""


class _Line(Row):
    key: str
    reply: Reply


def reply_key(*asked: str) -> str:
    """SHA-256 over the texts that make a question the same question, in hex."""
    return hashlib.sha256(json.dumps(asked).encode("ascii")).hexdigest()


class ReplyCache:
    """The replies of the judge `name` in `folder`; only in memory where `folder` is `None`."""

    def __init__(self, folder: Path | None, name: str) -> None:
        self.path = None if folder is None else folder / f"{name}.jsonl"
        self._replies: dict[str, Reply] = {}
        if self.path is not None and self.path.exists():
            self._replies = _read(self.path)

    def get(self, key: str) -> Reply | None:
        """The reply kept under `key`."""
        return self._replies.get(key)

    def keep(self, key: str, reply: Reply) -> None:
        """Writes `reply` now, so that a kill after this call does not lose it."""
        self._replies[key] = reply
        if self.path is not None:
            line = _Line(key=key, reply=reply).model_dump_json().encode("utf-8") + b"\n"
            _append(self.path, line)


def _read(path: Path) -> dict[str, Reply]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileFormatError(
            f"{path}: cannot be read ({error.strerror});", advice="choose another cache folder"
        ) from error
    replies: dict[str, Reply] = {}
    for line in content.splitlines():
        try:
            read = _Line.model_validate_json(line)
        except ValidationError:
            continue
        replies[read.key] = read.reply
    return replies


def _append(path: Path, line: bytes) -> None:
    """One write, so that lines of several processes do not mix; a torn line before it is ended first."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            whole = b"\n" + line if torn else line
            if os.write(descriptor, whole) != len(whole):
                raise OutputError(
                    f"{path}: only a part of a reply could be written;", advice="check the space on the disk"
                )
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror});", advice="choose another cache folder"
        ) from error
