"""What exactly was read: the part of an input that a manifest remembers."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from alignmend.errors import FileFormatError
from alignmend.io.header import Header

HASHING_THREADS = 4


class Opened(Protocol):
    """Anything opened from files with headers: a checkpoint folder or an adapter."""

    @property
    def location(self) -> str:
        """What the user wrote."""
        ...

    @property
    def revision(self) -> str | None:
        """The hub commit, if it is known."""
        ...

    @property
    def headers(self) -> tuple[Header, ...]:
        """One per weight file."""
        ...


def identity(opened: Opened, content_hash: bool = False) -> dict[str, object]:
    """The identity of an input, ready for JSON: location as written, hub commit, every weight file.

    A file is told by its name, size and the SHA-256 of its header (names, dtypes, shapes, offsets);
    `content_hash` adds the SHA-256 of all its bytes, which reads the whole input.
    Raises `FileFormatError` when a file cannot be read.
    """
    paths = [header.path for header in opened.headers]
    hashes: list[str | None] = [*sha256_of_files(paths)] if content_hash else [None] * len(paths)
    return {
        "location": opened.location,
        "revision": opened.revision,
        "files": [
            {
                "file": header.path.name,
                "bytes": header.size,
                "header_sha256": header.header_hash,
                "sha256": sha256,
            }
            for header, sha256 in zip(opened.headers, hashes, strict=True)
        ],
    }


def sha256_of(path: Path) -> str:
    """SHA-256 of the file's bytes, in hexadecimal, read in small pieces; raises `FileFormatError`."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileFormatError(
            f"{path} cannot be read ({error.strerror})", advice="check the disk and its rights"
        ) from None


def sha256_of_files(paths: list[Path]) -> list[str]:
    """`sha256_of` each path, in order, by a few threads (hashing releases the interpreter's lock)."""
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        return list(pool.map(sha256_of, paths))
