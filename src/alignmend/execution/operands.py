"""The stored operands of an expression: which they are, what to call them, what identifies them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

from alignmend.algebra.nodes import AdapterSource, MomentsSource, Operand
from alignmend.algebra.notation import Labels
from alignmend.algebra.values import Checkpoint
from alignmend.algebra.walks import adapters_of, directions_of, leaves_of, stored_deltas_of
from alignmend.algebra.weighing import weightings_of
from alignmend.errors import FileFormatError, OutputError
from alignmend.io.adapter import AdapterFolder
from alignmend.io.delta import DeltaFolder
from alignmend.io.file_state import FileState
from alignmend.io.folder import CheckpointFolder
from alignmend.io.identity import identity
from alignmend.io.manifest import Input, Versions
from alignmend.io.moments import MomentsFile
from alignmend.io.private import is_private


def operands_of(checkpoint: Checkpoint) -> tuple[Operand, ...]:
    """Everything on disk that an expression reads, the target first, each once."""
    found: dict[Operand, None] = {checkpoint.root: None}
    if checkpoint.change is not None:
        found.update(dict.fromkeys(leaf.source for leaf in leaves_of(checkpoint.change)))
        found.update(dict.fromkeys(adapter.adapter for adapter in adapters_of(checkpoint.change)))
        found.update(dict.fromkeys(delta.stored for delta in stored_deltas_of(checkpoint.change)))
        found.update(dict.fromkeys(directions_of(checkpoint.change)))
        found.update(dict.fromkeys(weighting.moments for weighting in weightings_of(checkpoint.change)))
    return tuple(found)


def opened(operand: Operand) -> CheckpointFolder | AdapterFolder | DeltaFolder | MomentsFile:
    """The folder or file that an operand was opened from."""
    match operand:
        case AdapterSource(adapter=adapter):
            return adapter
        case MomentsSource(file=file):
            return file
        case _:
            return operand.folder


def label_all(operands: tuple[Operand, ...], given: Labels) -> dict[Operand, str]:
    """A distinct label for each operand: its role where given, else the last part of its location; of a private one
    no name.
    """
    labels: dict[Operand, str] = {}
    for operand in operands:
        wanted = given.get(operand) or _name(operand)
        taken = set(labels.values())
        names = [wanted, *(f"{wanted}-{number}" for number in range(2, len(operands) + 2))]
        labels[operand] = next(name for name in names if name not in taken)
    return labels


def _name(operand: Operand) -> str:
    found = opened(operand)
    here = found.path if found.path.is_dir() else found.path.parent
    return "private" if is_private(here) else found.location.rstrip("/").rsplit("/", 1)[-1] or "model"


def identities(operands: tuple[Operand, ...], labels: Mapping[Operand, str], *, content_hash: bool) -> dict[str, Input]:
    """What identifies each operand, by its label; `content_hash` reads and hashes every byte of them."""
    return {labels[one]: Input.model_validate(identity(opened(one), content_hash=content_hash)) for one in operands}


def input_files(operands: tuple[Operand, ...]) -> list[Path]:
    """Every weight file that the operands consist of."""
    return [header.path for operand in operands for header in opened(operand).headers]


def file_states(operands: tuple[Operand, ...]) -> list[tuple[Path, int, int]]:
    """Path, size and time of change (ns) of every weight file; raises `FileFormatError` where one has vanished."""
    return states(input_files(operands))


def read_states(operands: tuple[Operand, ...]) -> dict[Path, FileState]:
    """The state in which each weight file of the operands was when it was opened."""
    return {header.path: header.state for operand in operands for header in opened(operand).headers}


def states(paths: Iterable[Path]) -> list[tuple[Path, int, int]]:
    """Path, size and time of change (ns) of each file; raises `FileFormatError` where one has vanished."""
    found = []
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            raise FileFormatError(f"{path} can no longer be opened: {error.strerror}") from None
        found.append((path, status.st_size, status.st_mtime_ns))
    return found


def refuse_own_input(out: Path, operands: tuple[Operand, ...]) -> None:
    """Raise `OutputError` where the output would replace one of its own inputs."""
    for path in input_files(operands):
        if out.resolve() in (path.resolve().parent, path.parent.resolve()):
            raise OutputError(f"{out} is one of the inputs", advice="write to another folder")
        if out.resolve() in (*path.resolve().parents, *path.parent.resolve().parents):
            raise OutputError(
                f"{out} holds an input ({path}), which would be replaced", advice="write to another folder"
            )


def versions() -> Versions:
    """The software that computes."""
    libraries = {name: metadata.version(name) for name in ("torch", "numpy", "safetensors")}
    return Versions(alignmend=metadata.version("alignmend"), libraries=libraries)
