"""Whether an output folder still is what its manifest says."""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from alignmend.errors import AlignmendError, FileFormatError, VerificationError
from alignmend.io.header import read_header
from alignmend.io.identity import HASHING_THREADS, sha256_of
from alignmend.io.index import INDEX_NAME, SINGLE_NAME, read_headers
from alignmend.io.links import inside
from alignmend.io.manifest import OutputFile, read_manifest

_LOADED_IF_PRESENT = re.compile(
    r".*\.(safetensors|bin|pt|pth|ckpt|gguf|index\.json)|adapter_config\.json", re.IGNORECASE
)
_MAX_SHOWN = 20


@dataclass(frozen=True)
class VerifyReport:
    """A folder in which nothing was found wrong."""

    folder: Path
    files: int
    """How many files the manifest lists."""
    bytes: int
    """Their size together."""
    unhashed: tuple[str, ...]
    """Files whose contents were not checked, because the manifest has no hash of them."""

    @property
    def contents_checked(self) -> bool:
        """Whether the contents of every file were compared with a hash."""
        return not self.unhashed

    @property
    def summary(self) -> str:
        """One sentence for the screen."""
        counted = f"{self.files} files, {self.bytes:,} bytes"
        if self.contents_checked:
            return f"{self.folder}: {counted}: all sizes and hashes are as the manifest says"
        return (
            f"{self.folder}: {counted}: all sizes are as the manifest says, but the contents of "
            f"{len(self.unhashed)} files were not checked (written without hashes)"
        )


def verify(folder: Path) -> VerifyReport:
    """Check every file of an output `folder` against its manifest: existence, size, hash, headers and index.

    Raises `VerificationError` that lists every problem, `FileFormatError` when there is no readable manifest.
    """
    outputs = read_manifest(folder).outputs
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        problems = [problem for problem in pool.map(lambda output: _check(folder, output), outputs) if problem]
    problems += _unlisted(folder, {output.file for output in outputs})
    # A damaged file is said once; the cross-check of index and shards would only say it again.
    problems = problems or _inconsistent(folder, outputs)
    if problems:
        raise VerificationError(_listing(folder, problems))
    return VerifyReport(
        folder=folder,
        files=len(outputs),
        bytes=sum(output.bytes for output in outputs),
        unhashed=tuple(output.file for output in outputs if output.sha256 is None),
    )


def _check(folder: Path, output: OutputFile) -> str | None:
    """What is wrong with one file, if anything."""
    path = folder / output.file
    if not path.is_file():
        return f"{output.file} is missing"
    try:
        inside(folder, path)
        size = path.stat().st_size
        if size != output.bytes:
            return f"{output.file} has {size:,} bytes instead of {output.bytes:,}"
        if output.sha256 is not None and sha256_of(path) != output.sha256:
            return f"{output.file} has other contents than were written (SHA-256 differs)"
        if path.suffix == ".safetensors":
            read_header(path)
    except AlignmendError as error:
        return str(error)
    except OSError as error:
        return f"{output.file} cannot be read ({error.strerror})"
    return None


def _unlisted(folder: Path, listed: set[str]) -> list[str]:
    """Files that a loader would pick up although this output was written without them."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise FileFormatError(f"{folder} cannot be listed ({error.strerror})", advice="check its rights") from None
    return [
        f"{name} is not part of this output (the manifest does not list it)"
        for name in names
        if _LOADED_IF_PRESENT.fullmatch(name) and name not in listed
    ]


def _inconsistent(folder: Path, outputs: Iterable[OutputFile]) -> list[str]:
    """Whether index and shards fit each other, for an output that is a checkpoint."""
    if not {INDEX_NAME, SINGLE_NAME} & {output.file for output in outputs}:
        return []
    try:
        read_headers(folder)
    except AlignmendError as error:
        return [str(error)]
    return []


def _listing(folder: Path, problems: list[str]) -> str:
    more = [f"... and {len(problems) - _MAX_SHOWN} more"] if len(problems) > _MAX_SHOWN else []
    lines = "\n".join(f"  - {problem}" for problem in [*problems[:_MAX_SHOWN], *more])
    return f"{folder} is not what its manifest says; do not use it, write or download it again:\n{lines}"
