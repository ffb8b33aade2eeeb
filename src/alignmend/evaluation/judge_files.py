"""Verdicts for answers made elsewhere: a JSONL or CSV file with `prompt` and `response` in, the same rows with verdicts
out.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from alignmend.errors import FileFormatError, OutputError, RecipeError
from alignmend.evaluation.exchanges import cell_of, columns_of, exchange_of
from alignmend.evaluation.judges import Answer, Judge
from alignmend.evaluation.reasoning import split_reasoning
from alignmend.evaluation.reasoning_marks import Tags
from alignmend.evaluation.records import FinishReason, Judgement, Prompt
from alignmend.io.atomic import replace_bytes
from alignmend.io.strict_json import parse_object

ADDED = ("verdict", "partial", "harmful", "empty", "score", "parsed", "evidence", "judge", "judge_version")
"""The columns that the first judge adds; further ones put their name behind: `verdict_strongreject`."""

_LONGEST_CELL = 1 << 30


@dataclass(frozen=True)
class Responses:
    """The rows of a file in their order, each with the answer in it; `where` names a row for errors.

    `thoughts` are what was taken out of each answer: a model's reasoning is not judged.
    """

    path: Path
    rows: tuple[Mapping[str, Any], ...]
    answers: tuple[Answer, ...]
    where: tuple[str, ...]
    thoughts: tuple[str | None, ...] = ()

    def column(self, name: str) -> list[str]:
        """The texts in the column `name`; a missing or null cell is a blank one. Some row must have the column."""
        if not any(name in row for row in self.rows):
            raise FileFormatError(f"{self.path}: no column {name!r}; columns found: {columns_of(self.rows[0])}")
        return ["" if row.get(name) is None else str(row[name]) for row in self.rows]


def read_responses(path: Path, tags: Sequence[Tags] = ()) -> Responses:
    """The answers in `path`: CSV where it is named so, else JSONL.

    Request and answer are the columns `prompt` and `response` or others by which published files name them, in capitals
    or not, or the last turns of `messages`. Columns `id`, `language`, `finish_reason` and those that judges know
    (`context`) are used, all others kept. `tags` are what the model puts around thoughts, where that is none of the
    usual tags. `FileFormatError` names the line.
    """
    text = _decoded(path)
    numbered = _csv_rows(path, text) if path.suffix.lower() == ".csv" else _json_rows(path, text)
    if not numbered:
        raise FileFormatError(f"{path}: holds no answers; each row needs the columns 'prompt' and 'response'")
    where = tuple(place for place, _ in numbered)
    rows = tuple(row for _, row in numbered)
    both = [_answer(path, number, place, row, tags) for number, (place, row) in enumerate(numbered, start=1)]
    return Responses(path, rows, tuple(one for one, _ in both), where, tuple(thought for _, thought in both))


def _decoded(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        where = f"{path}: not UTF-8 (byte {error.object[error.start]:#04x} at offset {error.start})"
        raise FileFormatError(f"{where};", advice="save the file as UTF-8") from error


def _json_rows(path: Path, text: str) -> list[tuple[str, Mapping[str, Any]]]:
    if text.lstrip().startswith("["):
        raise FileFormatError(f"{path}: a JSON list; one object a line is needed, which  jq -c '.[]'  makes of it")
    lines = [(f"{path}, line {number}", line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    advice = "one JSON object a line is needed, with 'prompt' and 'response'"
    return [(place, parse_object(line.encode("utf-8"), where=place, advice=advice)) for place, line in lines]


def _csv_rows(path: Path, text: str) -> list[tuple[str, Mapping[str, Any]]]:
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = next(reader, [])
        if repeated := sorted({name for name in header if header.count(name) > 1}):
            raise FileFormatError(f"{path}: column {repeated[0]!r} is there twice;", advice="rename one of them")
        rows: list[tuple[str, Mapping[str, Any]]] = []
        for cells in reader:
            place = f"{path}, line {reader.line_num}"
            if cells and len(cells) != len(header):
                raise FileFormatError(f"{place}: {len(cells)} cells, but the header has {len(header)} columns")
            if cells:
                rows.append((place, dict(zip(header, cells, strict=True))))
        return rows
    except csv.Error as error:
        raise FileFormatError(
            f"{path}: not CSV ({error});", advice="quote cells that hold commas, quotes or newlines"
        ) from error
    finally:
        csv.field_size_limit(before)


def _answer(
    path: Path, number: int, place: str, row: Mapping[str, Any], tags: Sequence[Tags]
) -> tuple[Answer, str | None]:
    """What is judged of a row, and the thought that was taken out of it."""
    for name in ADDED:
        if name in row:
            raise FileFormatError(f"{place}: column {name!r} is there already;", advice="rename it, or leave it out")
    said = exchange_of(row, place)
    known = {key: cell_of(row, key) for key in ("id", "language", "finish_reason")}
    prompt = Prompt(
        suite=path.stem,
        id=str(known["id"] or number),
        text=said.prompt,
        language=known["language"] if isinstance(known["language"], str) and known["language"].strip() else None,
        extra={name: value for name, value in row.items() if name not in (*said.columns, "id", "language")},
    )
    response, thought = split_reasoning(said.response, separate=said.reasoning, tags=tags)
    reason = known["finish_reason"]
    reason = reason if reason in get_args(FinishReason) else None
    return Answer(prompt, said.response if thought is None else response, reason), thought


def judged_rows(responses: Responses, judgements: Sequence[tuple[Judge, Sequence[Judgement]]]) -> list[dict[str, Any]]:
    """Every row as it was, and behind it what each judge says: the first under the names of `ADDED`, the others with
    their own name behind.
    """
    rows = [dict(row) for row in responses.rows]
    for number, (judge, said) in enumerate(judgements):
        suffix = f"_{column_name(judge.name)}" if number else ""
        for row, place, judgement in zip(rows, responses.where, said, strict=True):
            added = {**judgement.model_dump(), "judge": judge.name, "judge_version": judge.version}
            for name in ADDED:
                if name + suffix in row:
                    raise FileFormatError(f"{place}: column {name + suffix!r} is there already;", advice="rename it")
                row[name + suffix] = added[name]
    return rows


def column_name(judge: str) -> str:
    """A judge's name as a part of a column's: `refusal_phrases`."""
    return "".join(character if character.isalnum() else "_" for character in judge)


def check_output(out: Path, responses: Path, *, overwrite: bool) -> None:
    """Whether `out` can be written, before anything is paid for; raises `OutputError`."""
    if not out.parent.is_dir():
        raise OutputError(f"{out}: the folder {out.parent} does not exist;", advice="make it first")
    if out.is_dir():
        raise OutputError(f"{out} is a folder;", advice="name a file")
    if out.exists() and responses.exists() and out.samefile(responses):
        raise OutputError(f"{out} is the file with the answers;", advice="choose another name")
    if out.exists() and not overwrite:
        raise OutputError(f"{out} exists;", advice="choose another name or say --overwrite")


def check_judges(judges: Sequence[Judge]) -> None:
    """Different judges, that give different columns."""
    columns = [column_name(judge.name) for judge in judges]
    if not columns or len(set(columns)) < len(columns):
        raise RecipeError(f"one or more different judges are needed, not {[judge.name for judge in judges]}")


def write_rows(out: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes CSV where `out` is named so, else JSONL; the file appears whole or not at all."""
    if out.suffix.lower() == ".csv":
        replace_bytes(out, _csv_bytes(rows))
    else:
        replace_bytes(out, b"".join(map(_json_line, rows)))


def _json_line(row: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode("utf-8") + b"\n"
    except UnicodeEncodeError:  # a lone surrogate, which only an escape can keep
        return json.dumps(row).encode("ascii") + b"\n"


def _csv_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    columns = _in_order(name for row in rows for name in row)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
    return text.getvalue().encode("utf-8", "replace")


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)
