"""JSONL files of records: appended as rows come, resumable after a kill, and in one order when complete."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Generic, Protocol, Self, TypeVar

from pydantic import ValidationError

from alignmend.errors import FileFormatError, OutputError
from alignmend.evaluation.records import RowKey


class KeyedRow(Protocol):
    """A pydantic row that knows its key."""

    @property
    def key(self) -> RowKey: ...

    def model_dump(self) -> dict[str, object]: ...

    @classmethod
    def model_validate_json(cls, json_data: str | bytes) -> Self: ...


RowType = TypeVar("RowType", bound=KeyedRow)


def encode_row(row: KeyedRow) -> bytes:
    """One line of JSON in UTF-8."""
    return json.dumps(row.model_dump(), ensure_ascii=False).encode("utf-8") + b"\n"


def decode_row(row_type: type[RowType], line: bytes, where: str) -> RowType:
    """The inverse of `encode_row`; `FileFormatError` names `where` and the first field that does not fit."""
    try:
        return row_type.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "row"
        raise FileFormatError(
            f"{where}: not a {row_type.__name__} ({field}: {first['msg']});", advice="delete the file to start afresh"
        ) from error


def read_rows(path: Path, row_type: type[RowType]) -> list[RowType]:
    """All complete rows of `path`. A last line without its newline was cut off by a kill and is left out."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read ({error.strerror})") from error
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    return [decode_row(row_type, line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]


def write_rows(path: Path, rows: Iterable[KeyedRow]) -> None:
    """Replaces `path` by `rows` at once: written beside, synced, renamed."""
    beside = path.with_name(path.name + ".partial")
    try:
        with beside.open("wb") as file:
            file.writelines(map(encode_row, rows))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error


class RecordFile(Generic[RowType]):
    """An open JSONL file of rows: `done` holds what an earlier run left, `append` adds, `finish` puts in
    order.

    The finished file does not depend on where earlier runs were interrupted, as `finish` writes the wanted
    rows in the wanted order. Use as a context manager.
    """

    def __init__(self, path: Path, row_type: type[RowType]) -> None:
        self.path = path
        self.done: dict[RowKey, RowType] = {}
        if path.exists():
            self.done = {row.key: row for row in read_rows(path, row_type)}
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        if self.path.exists():
            write_rows(self.path, self.done.values())
        try:
            self._file = self.path.open("ab")
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror})") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def append(self, rows: Iterable[RowType]) -> None:
        """Writes `rows` now, so that a kill after this call does not lose them."""
        if self._file is None:
            raise OutputError(f"{self.path}: append needs the file open;", advice="use it in a with statement")
        added = list(rows)
        try:
            self._file.write(b"".join(map(encode_row, added)))
            self._file.flush()
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror})") from error
        self.done.update((row.key, row) for row in added)

    def finish(self, keys: Sequence[RowKey]) -> list[RowType]:
        """The rows of `keys` in that order, which are now the whole file; every key must be there."""
        rows = [self.done[key] for key in keys]
        write_rows(self.path, rows)
        return rows
