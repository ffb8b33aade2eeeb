"""Which columns of a file hold the request and the answer: those of published sets are known by their names.

Nothing is guessed: a column of another name, or of two answers one, is for the user to choose.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignmend.errors import FileFormatError
from alignmend.io.strict_json import parse_object, shown

KNOWN = (("prompt", "response"), ("instruction", "output"), ("question", "answer"), ("goal", "target"))
"""Columns of a request and its answer: ours and BeaverTails', Alpaca's, of questions, AdvBench's. The first wins."""
PREFERENCE = ("chosen", "rejected")
ADVICE = (
    'write one JSON object on each line, {"prompt": ..., "response": ...} or {"messages": [...]}; known columns are '
    + ", ".join(" and ".join(pair) for pair in KNOWN)
)
_TRUTH = {"true": True, "1": True, "false": False, "0": False}
_DELIMITERS = {".csv": ",", ".tsv": "\t"}

Row = Mapping[str, object]


def rows_of(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    """The rows in `text`, the content of `path`, each with the line it begins on: CSV or TSV by the suffix, else JSONL.

    Raises `FileFormatError`, which names the line.
    """
    delimiter = _DELIMITERS.get(path.suffix.lower())
    if delimiter is not None:
        yield from _table(path, text, delimiter)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, parse_object(line.encode(), where=f"{path}, line {number}", advice=ADVICE)


def is_safe(row: Row, where: str) -> bool | None:
    """Whether the row marks its answer as safe, as BeaverTails does; `None` where it has no mark.

    That is `is_safe`, or without it a `category` of truth values, of which none is true for a safe answer.
    """
    if "is_safe" in row:
        mark = row["is_safe"]
        if str(mark).strip().lower() not in _TRUTH:
            raise FileFormatError(f"{where}: is_safe is {shown(mark)}: it must be true or false")
        return _TRUTH[str(mark).strip().lower()]
    category = row.get("category")
    if isinstance(category, dict) and category and all(isinstance(mark, bool) for mark in category.values()):
        return not any(category.values())
    return None


def prompt_and_response(row: Row, where: str) -> tuple[str, str]:
    """The request and the answer of a row, from the first columns in `KNOWN`, or the only others that it has.

    Alpaca's `input` belongs to the request, below the instruction. Raises `FileFormatError`.
    """
    asked, answered = _columns(row, where)
    prompt = _text(row, asked, where)
    if asked == "instruction" and row.get("input") not in (None, ""):
        prompt = f"{prompt}\n\n{_text(row, 'input', where)}"
    return prompt, _text(row, answered, where)


def unanswered(row: Row, where: str) -> str | None:
    """The request of a row that holds no answer to it; None for a row that does."""
    asked = [pair[0] for pair in KNOWN if pair[0] in row]
    if not asked or any(all(name in row for name in pair) for pair in KNOWN):
        return None
    return _text(row, asked[0], where)


def _columns(row: Row, where: str) -> tuple[str, str]:
    found = [pair for pair in KNOWN if all(name in row for name in pair)]
    if not found:
        raise _missing(row, where)
    if len(found) > 1 and found[0] != KNOWN[0]:
        several = ", ".join(" and ".join(pair) for pair in found)
        raise FileFormatError(
            f"{where} has columns for more than one pair ({several})", advice="keep one, or name it prompt and response"
        )
    return found[0]


def _missing(row: Row, where: str) -> FileFormatError:
    nearest = max(KNOWN, key=lambda pair: sum(name in row for name in pair))
    missing = " and no ".join(name for name in nearest if name not in row)
    found = ", ".join(shown(name) for name in row) or "nothing"
    message = f"{where} has no {missing}, only {found}: {ADVICE}"
    if all(name in row for name in PREFERENCE):
        message += f"; of chosen and rejected say yourself which is the answer that is meant, and name it {KNOWN[0][1]}"
    return FileFormatError(message)


def _text(row: Row, name: str, where: str) -> str:
    value = row[name]
    if not isinstance(value, str):
        raise FileFormatError(f"{where}: {name} is {shown(value)}, not text", advice=ADVICE)
    return value


def _table(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, Row]]:
    records = _records(path, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    _, header = next(records, (0, []))
    if len(set(header)) < len(header):
        raise FileFormatError(
            f"{path} names a column twice ({', '.join(map(shown, header))})", advice="make the names unique"
        )
    for line, record in records:
        if len(record) != len(header):
            raise FileFormatError(
                f"{path}, line {line} has {len(record)} fields, but the header has {len(header)} "
                f"({', '.join(map(shown, header))})",
                advice="quote texts with separators or line ends in them",
            )
        yield line, dict(zip(header, record, strict=True))


def _records(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Each record with the line it begins on; one may go on over several."""
    line = 1
    try:
        for record in reader:
            if record:
                yield line, record
            line = reader.line_num + 1
    except csv.Error as error:
        advice = "double the quotes inside quoted texts, or give the pairs as JSONL"
        raise FileFormatError(f"{path}, line {line} is no record of a table ({error})", advice=advice) from None
