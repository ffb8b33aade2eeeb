"""A delta on disk: `delta.safetensors` and the manifest beside it, which says what it is to be added to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from alignmend.errors import FileFormatError, MismatchError
from alignmend.io.folder import CheckpointFolder
from alignmend.io.header import Header
from alignmend.io.hub import find
from alignmend.io.manifest import MANIFEST_NAME, Input, read_manifest
from alignmend.io.session import header_of
from alignmend.io.strict_json import shown
from alignmend.io.tensors import ARITHMETIC_DTYPES, TensorEntry

DELTA_NAME = "delta.safetensors"
INDICES, VALUES = "::indices", "::values"
"""What follows a tensor's name in the sparse form."""
Form = Literal["dense", "sparse"]


@dataclass(frozen=True)
class DeltaPart:
    """What is stored for one tensor."""

    values: TensorEntry
    indices: TensorEntry | None
    """Flat indices of the values, increasing; None where every value is stored."""


@dataclass(frozen=True)
class DeltaFolder:
    """A stored delta, known from its header and manifest; no value has been read."""

    location: str
    """What the user wrote."""
    path: Path
    revision: str | None
    """The hub commit, for a snapshot of a hub repository."""
    form: Form
    parts: Mapping[str, DeltaPart]
    """By the tensor's name in the target; tensors that are not there are zero."""
    header: Header
    target: Input
    """The checkpoint that it was saved for."""

    @property
    def headers(self) -> tuple[Header, ...]:
        """Of its one weight file."""
        return (self.header,)


def is_delta_folder(path: Path) -> bool:
    """Whether the folder `path` holds a stored delta, judged by its files."""
    return (path / DELTA_NAME).is_file()


def open_delta_folder(location: str | Path, *, revision: str | None = None) -> DeltaFolder:
    """Open a folder (or hub id) with a stored delta; raises `FileFormatError` for what is missing or damaged."""
    written = str(location)
    found = find(location, revision=revision)
    if not is_delta_folder(found.path):
        raise FileFormatError(f"{written} has no {DELTA_NAME}", advice="give a folder that save_delta wrote")
    manifest = read_manifest(found.path)
    said = manifest.delta
    if said is None or said.target not in manifest.inputs:
        raise FileFormatError(
            f"{found.path / MANIFEST_NAME} does not say to what {DELTA_NAME} is to be added",
            advice="save the delta again",
        )
    header = header_of(found.path / DELTA_NAME)
    parts = _dense(header) if said.form == "dense" else _sparse(header)
    return DeltaFolder(written, found.path, found.revision, said.form, parts, header, manifest.inputs[said.target])


def _dense(header: Header) -> dict[str, DeltaPart]:
    for name, entry in header.entries.items():
        if entry.dtype not in ARITHMETIC_DTYPES:
            _refuse(header, name, f"is {entry.dtype}, where a dense delta has floats")
    return {name: DeltaPart(entry, None) for name, entry in sorted(header.entries.items())}


def _sparse(header: Header) -> dict[str, DeltaPart]:
    names = {name.removesuffix(INDICES).removesuffix(VALUES) for name in header.entries}
    return {name: _sparse_part(header, name) for name in sorted(names)}


def _sparse_part(header: Header, name: str) -> DeltaPart:
    indices, values = (header.entries.get(name + suffix) for suffix in (INDICES, VALUES))
    if indices is None or values is None:
        _refuse(header, name, f"lacks {INDICES if indices is None else VALUES}, as a sparse delta has them")
    if indices.dtype not in ("I32", "I64") or values.dtype not in ARITHMETIC_DTYPES:
        _refuse(header, name, f"has indices of {indices.dtype} and values of {values.dtype}")
    if len(indices.shape) != 1 or indices.shape != values.shape:
        _refuse(header, name, f"has indices of shape {list(indices.shape)} and values of {list(values.shape)}")
    return DeltaPart(values, indices)


def _refuse(header: Header, name: str, problem: str) -> NoReturn:
    raise FileFormatError(f"{header.path}: {shown(name)} {problem}", advice="save the delta again")


def check_target(delta: DeltaFolder, target: CheckpointFolder) -> None:
    """Raise `MismatchError` unless `target` is, by its headers, what the delta was saved for."""
    saved_for = sorted(file.header_sha256 for file in delta.target.files)
    if saved_for != sorted(header.header_hash for header in target.headers):
        raise MismatchError(
            f"{delta.location} is a delta on {delta.target.location}, and {target.location} is another by its "
            "headers (names, dtypes, shapes or files differ)",
            advice="give the checkpoint that the delta was saved for",
        )
    for name, part in delta.parts.items():
        known = target.tensors.get(name)
        if known is None:
            raise MismatchError(
                f"{delta.location} changes {name}, which {target.location} lacks", advice="open it with the same prefix"
            )
        if part.indices is None and part.values.shape != known.shape:
            _refuse(delta.header, name, f"has shape {list(part.values.shape)}, the target {list(known.shape)}")
