"""Rows of a data file: JSON lines, JSON, CSV, TSV, plain lines or Parquet; text in UTF-8, also compressed with gzip."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignmend.errors import FileFormatError, missing_extra

Row = dict[str, Any]
Placed = tuple[str, Row]
"""A row with where it is in its file (`line 3`)."""
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".parquet")


def read_table(path: Path, *, headerless: bool = False) -> list[Placed]:
    """The rows of `path`, by its suffix; of text without columns, and of a `headerless` CSV, the column is `prompt`.

    JSON is a list of objects, a list of texts, or categories of sub-categories of texts. `FileFormatError` names the
    file, the line, and what was found there.
    """
    content = _read(path)
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix == ".parquet":
        rows = _parquet_rows(path, content)
    elif suffix in (".jsonl", ".ndjson"):
        rows = _json_lines(path, _decode(path, content))
    elif suffix == ".json":
        rows = _json_rows(path, _decode(path, content))
    elif suffix in (".csv", ".tsv"):
        rows = _csv_rows(path, _decode(path, content), "\t" if suffix == ".tsv" else ",", headerless)
    elif suffix == ".txt":
        rows = [(f"line {number}", {"prompt": line}) for number, line in _lines(_decode(path, content))]
    else:
        raise FileFormatError(f"{path}: data of a suite ends in {', '.join(SUFFIXES)} (text also in .gz), not {suffix}")
    if not rows:
        raise FileFormatError(f"{path}: the suite is empty; it needs one row with `prompt` for each prompt")
    return rows


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.name.endswith(".gz") else content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileFormatError(f"{path}: not a whole gzip file ({error});", advice="get it again") from error
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read ({error.strerror})") from error


def _decode(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"{path}: not UTF-8 (byte {error.object[error.start]:#04x} at offset {error.start})"
        raise FileFormatError(f"{where};", advice="save the file as UTF-8") from error


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Only a line feed ends a line: other separators occur inside texts."""
    numbered = ((number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), 1))
    return ((number, line) for number, line in numbered if line.strip())


def _json_lines(path: Path, text: str) -> list[Placed]:
    return [(f"line {number}", _json_object(path, number, line)) for number, line in _lines(text)]


def _json_object(path: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise FileFormatError(f"{path}, line {number}: not JSON ({error}); one JSON object a line is needed") from error
    if not isinstance(row, dict):
        raise FileFormatError(f"{path}, line {number}: a JSON object is needed, not {type(row).__name__}")
    return row


def _json_rows(path: Path, text: str) -> list[Placed]:
    if not text.strip():
        return []
    try:
        document = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        if str(error).startswith("Extra data"):  # what the hub calls .json is often one object a line
            return _json_lines(path, text)
        raise FileFormatError(f"{path}: not JSON ({error})") from error
    rows = [document] if isinstance(document, dict) and "prompt" in document else _flat(path, document)
    return [(f"row {number}", row) for number, row in enumerate(rows, 1)]


def _flat(path: Path, document: object) -> list[Row]:
    if isinstance(document, dict):
        return [row for category, group in document.items() for row in _of_category(path, category, group)]
    if not isinstance(document, list):
        raise FileFormatError(f"{path}: JSON with a list or an object is needed, not {type(document).__name__}")
    rows = [{"prompt": item} if isinstance(item, str) else item for item in document]
    odd = next((number for number, row in enumerate(rows, 1) if not isinstance(row, dict)), None)
    if odd is not None:
        raise FileFormatError(f"{path}, row {odd}: an object or a text is needed, not {type(rows[odd - 1]).__name__}")
    return rows


def _of_category(path: Path, category: str, group: object) -> list[Row]:
    """`group` is the texts of a category, or its sub-categories with their texts."""
    named = group if isinstance(group, dict) else {"": group}
    rows = []
    for subcategory, texts in named.items():
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            where = f"{path}, {category!r}" + (f", {subcategory!r}" if subcategory else "")
            raise FileFormatError(f"{where}: a list of texts is needed, not {type(texts).__name__}")
        rows += [{"prompt": text, "category": category, "subcategory": subcategory} for text in texts]
    return rows


def _csv_rows(path: Path, text: str, delimiter: str, headerless: bool) -> list[Placed]:
    limit = csv.field_size_limit(sys.maxsize)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        records = _records(path, reader)
        header = ["prompt"] if headerless else next(records, ("", []))[1]
        return [(place, _fields(path, place, header, record)) for place, record in records]
    finally:
        csv.field_size_limit(limit)


def _records(path: Path, reader: Any) -> Iterator[tuple[str, list[str]]]:
    try:
        for record in reader:
            if record:
                yield f"line {reader.line_num}", record
    except csv.Error as error:
        where = f"{path}, line {reader.line_num}"
        raise FileFormatError(
            f"{where}: broken quoting ({error});", advice="double the quotes inside quoted fields"
        ) from error


def _fields(path: Path, place: str, header: list[str], record: list[str]) -> Row:
    if len(record) != len(header):
        columns = ", ".join(map(repr, header))
        raise FileFormatError(
            f"{path}, {place}: {len(record)} fields, but the header has {len(header)} ({columns});",
            advice="quote fields with commas or line ends in them",
        )
    return dict(zip(header, record, strict=True))


def _parquet_rows(path: Path, content: bytes) -> list[Placed]:
    try:
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise missing_extra("pyarrow", "parquet") from None
    try:
        rows = parquet.read_table(arrow.BufferReader(content)).to_pylist()
    except UnicodeDecodeError as error:
        raise FileFormatError(
            f"{path}: a text in it is not UTF-8 ({error.reason});", advice="write it anew as UTF-8"
        ) from error
    except (arrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise FileFormatError(f"{path}: not Parquet ({error})") from error
    return [(f"row {number}", row) for number, row in enumerate(rows, 1)]
