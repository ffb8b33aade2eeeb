"""JSON from files that nobody vouched for: bounded, UTF-8, one object, no key twice."""

from __future__ import annotations

import json
import reprlib
import stat
from pathlib import Path

from alignmend.errors import FileFormatError

JsonObject = dict[str, object]
"""A JSON object as parsed; every value is still to be checked."""

_shortened = reprlib.Repr()
_shortened.maxstring, _shortened.maxother, _shortened.maxlong = 120, 60, 40
_shortened.maxlist, _shortened.maxdict, _shortened.maxlevel = 8, 4, 3


def shown(value: object) -> str:
    """`value` for an error message: quoted, escaped and never long, however large it is."""
    # An integer beyond Python's digit limit cannot even be printed.
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 128:
        return f"an integer of {value.bit_length()} bits"
    return _shortened.repr(value)


def parse_object(raw: bytes, *, where: str, advice: str) -> JsonObject:
    """The JSON object in `raw`.

    Raises `FileFormatError`, from `where` to `advice`, when the bytes are not UTF-8, not JSON, not an object,
    nested too deeply, or name a key twice.
    """
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except RecursionError:
        raise FileFormatError(f"{where} is nested too deeply", advice=advice) from None
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{where} is not UTF-8 (byte {error.start})", advice=advice) from None
    except _DuplicateKeyError as error:
        raise FileFormatError(f"{where} names {shown(error.key)} twice", advice=advice) from None
    except ValueError as error:
        raise FileFormatError(f"{where} is not valid JSON ({error})", advice=advice) from None
    if not isinstance(value, dict):
        raise FileFormatError(f"{where} holds a {type(value).__name__}, not an object", advice=advice)
    return value


def read_object(path: Path, *, limit: int, advice: str) -> JsonObject:
    """The JSON object in the file `path`, which may have at most `limit` bytes; raises `FileFormatError`."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise FileFormatError(f"{path} is not a regular file", advice=advice)
        if status.st_size > limit:
            raise FileFormatError(f"{path} has {status.st_size:,} bytes, more than {limit:,}", advice=advice)
        raw = path.read_bytes()
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read ({error.strerror or error})", advice=advice) from None
    return parse_object(raw, where=str(path), advice=advice)


class _DuplicateKeyError(Exception):
    def __init__(self, key: str) -> None:
        self.key = key


def _without_duplicates(pairs: list[tuple[str, object]]) -> JsonObject:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKeyError(key)
            seen.add(key)
    return result
