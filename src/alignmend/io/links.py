"""Links in a folder: which of them stand for its own files, and which lead to something else."""

from __future__ import annotations

from pathlib import Path

from alignmend.errors import FileFormatError

_WEIGHTS = ".safetensors"


def inside(folder: Path, path: Path) -> Path:
    """`path` itself, if it lies in `folder` or, as in a hub cache, in the blobs beside its snapshot.

    Raises `FileFormatError` for a link that leads elsewhere.
    """
    home, target = _resolved(folder, path)
    in_cache = home.parent.name == "snapshots" and target.parent == home.parent.parent / "blobs"
    if not (in_cache or target.is_relative_to(home)):
        raise _elsewhere(path, target)
    return path


def own_file(folder: Path, path: Path) -> Path:
    """`path` itself, if it is a file of `folder` or a link to what is meant to be one.

    A link may lead to a file of the same name, to weights of any name, or to a blob of a hub cache: so folders of links
    are made. Raises `FileFormatError` for one that leads to anything else, which a copy would give away.
    """
    home, target = _resolved(folder, path)
    is_weights = path.suffix == target.suffix == _WEIGHTS
    in_cache = target.parent.name == "blobs" and target.parent.parent.name.startswith(("models--", "datasets--"))
    beside_snapshot = home.parent.name == "snapshots" and target.parent == home.parent.parent / "blobs"
    if not (target.is_relative_to(home) or target.name == path.name or is_weights or in_cache or beside_snapshot):
        raise _elsewhere(path, target)
    return path


def is_own_file(folder: Path, path: Path) -> bool:
    """Whether `own_file` takes it."""
    try:
        own_file(folder, path)
    except FileFormatError:
        return False
    return True


def _resolved(folder: Path, path: Path) -> tuple[Path, Path]:
    try:
        return folder.resolve(), path.resolve()
    except (OSError, RuntimeError):
        raise FileFormatError(f"{path} is a link that leads nowhere", advice="download the checkpoint again") from None


def _elsewhere(path: Path, target: Path) -> FileFormatError:
    return FileFormatError(
        f"{path} is a link out of its folder, to {target}", advice="copy the file itself into the folder"
    )
