"""From what the user wrote (a path or a hub id) to a folder or file on this machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from alignmend.errors import FileFormatError, RecipeError, missing_extra

ALLOWED_FILES = [
    "*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.model.v*", "*.tiktoken", "*.py",
    "LICENSE*", "NOTICE*", "USE_POLICY*", "README.md",
]  # fmt: skip
"""What is downloaded of a hub repository: weights without code in them, and what belongs beside them."""
IGNORED_FILES = ["*/*.safetensors", "consolidated*.safetensors", "original/*", "onnx/*", "runs/*"]
"""Second copies of the same weights, and logs."""

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Found:
    """Where a location was found."""

    path: Path
    revision: str | None
    """The hub commit, where the path is a snapshot in a hub cache."""


def is_hub_id(location: str) -> bool:
    """Whether `location` reads as `organization/name`."""
    return _HUB_ID.fullmatch(location) is not None and ".." not in location and "--" not in location


def find(location: str | Path, *, revision: str | None = None) -> Found:
    """The local path of `location`; a path that exists wins, anything else must be a hub id.

    Downloads through `huggingface_hub` (extra `hub`), which honours its cache, `HF_HUB_OFFLINE`, `HF_TOKEN`.
    Raises `FileFormatError` when neither reading leads anywhere, `RecipeError` for the revision of a path.
    """
    written = str(location)
    if not written or "\0" in written:
        raise RecipeError(
            f"{written!r} is no place for a model", advice="give a folder, a .safetensors file or a hub id"
        )
    path = Path(written).expanduser()
    if _exists(path):
        _refuse_local_revision(written, revision)
        return Found(path, _snapshot_revision(path))
    if isinstance(location, Path) or not is_hub_id(written):
        raise FileFormatError(
            f"{written}: no such folder or file on this machine, and not a hub id either (they read organization/name)",
            advice="check the spelling",
        )
    snapshot = _download(written, revision)
    return Found(snapshot, _snapshot_revision(snapshot))


def optional_file(location: str | Path, name: str) -> Path | None:
    """The file `name` of a local folder or of a hub repository (fetched where need be); `None` where there is none.

    What is neither a folder nor a hub repository, or cannot be asked for, has no such file: loading it says why.
    """
    written = str(location)
    path = Path(written).expanduser()
    if _exists(path) or isinstance(location, Path) or not is_hub_id(written):
        return path / name if (path / name).is_file() else None
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError:
        return None
    try:
        return Path(hf_hub_download(written, name))
    except (errors.HfHubHTTPError, errors.HTTPError, OSError, ValueError):
        return None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise FileFormatError(f"{path} cannot be looked up ({error.strerror})", advice="check the path") from None


def _refuse_local_revision(written: str, revision: str | None) -> None:
    if revision is not None:
        raise RecipeError(
            f"revision {revision!r} was given for {written}, which is a local path",
            advice="leave the revision out, or rename the local folder if the hub's model is meant",
        )


def _snapshot_revision(path: Path) -> str | None:
    """The commit, if `path` is (or links to) `models--*/snapshots/COMMIT` of a hub cache."""
    resolved = path.resolve()
    is_snapshot = resolved.parent.name == "snapshots" and _COMMIT.fullmatch(resolved.name)
    return resolved.name if is_snapshot else None


def _download(hub_id: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError:
        raise missing_extra("huggingface_hub", "hub") from None
    try:
        return Path(
            snapshot_download(hub_id, revision=revision, allow_patterns=ALLOWED_FILES, ignore_patterns=IGNORED_FILES)
        )
    except errors.GatedRepoError:
        problem = "the repository is gated: accept its terms on the hub and set HF_TOKEN"
    except errors.RevisionNotFoundError:
        problem = f"the hub has the repository, but no revision {revision!r}: check the branch, tag or commit"
    except errors.RepositoryNotFoundError:
        problem = "the hub has no such repository, or it is private: check the spelling, or set HF_TOKEN"
    except (errors.HfHubHTTPError, errors.HTTPError, OSError, ValueError) as error:
        problem = f"the hub did not deliver it ({_first_line(error)}): check the network, HF_HUB_OFFLINE and the id"
    at = f"{hub_id}@{revision}" if revision else hub_id
    raise FileFormatError(f"{at}: no such path on this machine;", advice=f"read as a hub id, {problem}") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
