"""Files of edits: one's own in JSONL or CSV, and the set that ships with the package."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alignmend.editing.requests import HOLE, EditRequest, Neighbour, request_of
from alignmend.editing.subjects import subject_of, target_of
from alignmend.errors import FileFormatError, ParameterError

UNINTENDED = "unintended"
"""The name of the shipped set."""
SHIPPED = Path(__file__).parent / "data" / "unintended-edits.jsonl"
OTHER_NAMES = {"question": "prompt", "target_new": "target", "answer": "target", "cluster": "topic"}
"""Columns as other sets call them (NoIntentEdit: Cluster, Question, Answer; CounterFact: target_new)."""


class _Neighbour(BaseModel):
    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(min_length=1)
    answer: str | None = None


class _Row(BaseModel):
    model_config = ConfigDict(extra="allow")

    prompt: str = Field(min_length=1)
    target: str = Field(min_length=1)
    subject: str = ""
    topic: str = ""
    paraphrases: list[str] = Field(default_factory=list)
    neighbourhood: list[_Neighbour] = Field(default_factory=list)


def read_requests(source: str | Path) -> tuple[EditRequest, ...]:
    """The edits of a file, or the shipped `unintended` ones where there is no file of that name.

    JSONL, or CSV with a header: `prompt`, `target`, `subject`; optional `topic`, and in JSONL `paraphrases` (prompts
    with the subject) and `neighbourhood` (objects with `prompt` and optional `answer`). Without a subject, the rule of
    `alignmend.editing.subjects` finds subject and target. `FileFormatError` names the line.
    """
    path = SHIPPED if str(source) == UNINTENDED and not Path(source).exists() else Path(source)
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path)
    found = [_request(row, f"{path}, {place}") for place, row in rows]
    if not found:
        raise FileFormatError(f"{path}: holds no edits; each row needs prompt, subject and target")
    return tuple(found)


def _text(path: Path) -> str:
    if path.suffix.lower() in (".xlsx", ".xls", ".ods"):
        raise FileFormatError(f"{path}: a spreadsheet cannot be read;", advice="save it as CSV")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path}: not UTF-8 (byte {error.start});", advice="save the file as UTF-8") from None


def _json_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    rows = []
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise FileFormatError(f"{path}, line {number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise FileFormatError(f"{path}, line {number}: a JSON object is needed, not {type(row).__name__}")
        rows.append((f"line {number}", row))
    return rows


def _csv_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        return [
            (f"line {reader.line_num}", {name: value or "" for name, value in row.items() if name}) for row in reader
        ]
    except csv.Error as error:
        raise FileFormatError(f"{path}, line {reader.line_num}: not CSV ({error})") from None


def _request(row: dict[str, Any], where: str) -> EditRequest:
    try:
        return _of_row(_Row.model_validate(_renamed(row)))
    except ValidationError as error:
        raise FileFormatError(f"{where}: {_fault(error, row)}") from None
    except ParameterError as error:
        raise error.at(where, FileFormatError) from None


def _of_row(row: _Row) -> EditRequest:
    subject, rule, target = row.subject, "given", row.target
    if not subject.strip():
        if HOLE in row.prompt:
            raise ParameterError(f"the prompt {row.prompt!r} has {HOLE} for a subject, and no column subject fills it")
        subject, rule = subject_of(row.prompt, row.target)
        target = target_of(row.target)
    return request_of(
        row.prompt,
        subject,
        target,
        paraphrases=tuple(row.paraphrases),
        neighbourhood=tuple(Neighbour(one.prompt, one.answer) for one in row.neighbourhood),
        topic=row.topic,
        rule=rule,  # type: ignore[arg-type]
    )


def _renamed(row: dict[str, Any]) -> dict[str, Any]:
    """Columns in lower case, and other sets' names as ours where ours is not there."""
    named = {str(name).strip().lower(): value for name, value in row.items()}
    for other, ours in OTHER_NAMES.items():
        if other in named and ours not in named:
            named[ours] = named.pop(other)
    return named


def _fault(error: ValidationError, row: dict[str, Any]) -> str:
    first = error.errors()[0]
    column = ".".join(map(str, first["loc"])) or "row"
    if first["type"] == "missing":
        others = ", ".join(other for other, ours in OTHER_NAMES.items() if ours == column)
        found = ", ".join(map(str, row)) or "none"
        return f"no column {column} (or {others}); prompt, subject and target are needed, found: {found}"
    return f"{column}: {first['msg']}; prompt, subject and target are needed"
