"""Opening operands: a checkpoint opens as a point, an adapter as a vector, scores as scores. Headers only."""

from __future__ import annotations

from pathlib import Path

from alignmend.algebra.nodes import (
    AdapterDelta,
    AdapterSource,
    DeltaSource,
    MomentsSource,
    Source,
    StoredDelta,
    StoredScores,
)
from alignmend.algebra.values import Checkpoint, Delta, Moments, Scores
from alignmend.errors import ParameterError
from alignmend.io.adapter import open_adapter_folder
from alignmend.io.delta import check_target, open_delta_folder
from alignmend.io.folder import open_checkpoint_folder
from alignmend.io.header import Header
from alignmend.io.moments import open_moments_file


def open_checkpoint(location: str | Path, *, revision: str | None = None, prefix: str = "") -> Checkpoint:
    """Open a checkpoint: a folder, a safetensors file, or a hub id. Reads headers only.

    `revision` is a hub branch, tag or commit. `prefix` is put before every tensor's name, so that a text model fits the
    decoder nested in a vision-language model (`prefix="language_model."`). Raises `FileFormatError` for what is
    missing or damaged and `UnsupportedFormatError` for what the arithmetic would get wrong.
    """
    folder = open_checkpoint_folder(location, revision=revision, prefix=prefix)
    return Checkpoint(Source((prefix, *_files(folder.headers)), folder))


def open_adapter(location: str | Path, *, revision: str | None = None, base: Checkpoint | None = None) -> Delta:
    """Open a PEFT adapter as the delta that it adds to its base. Reads headers only.

    `base`, the checkpoint it was trained on, is needed where the adapter replaces or rescales weights
    (`modules_to_save`, trained biases or embedding rows, DoRA); a plain low-rank adapter is a delta by itself.
    """
    adapter = open_adapter_folder(location, revision=revision)
    if base is not None and base.change is not None:
        raise ParameterError("base= takes a checkpoint as it was opened, not the result of arithmetic")
    source = AdapterSource(_files(adapter.headers), adapter)
    return Delta(AdapterDelta(source, None if base is None else base.root))


def open_delta(location: str | Path, *, target: Checkpoint, revision: str | None = None) -> Delta:
    """Open a delta that `save_delta` wrote. Reads headers only.

    `target` is the checkpoint that it was saved for: names, dtypes and shapes in its files' headers must be the same,
    or `MismatchError` is raised. Raises `FileFormatError` for what is missing, truncated or of an unknown form.
    """
    if target.change is not None:
        raise ParameterError("target= takes a checkpoint as it was opened, not the result of arithmetic")
    folder = open_delta_folder(location, revision=revision)
    check_target(folder, target.root.folder)
    return Delta(StoredDelta(DeltaSource(_files((folder.header,)), folder), target.root))


def open_scores(location: str | Path) -> Scores:
    """Open a safetensors file of scores, one tensor per weight tensor, same names and shapes."""
    return Scores(StoredScores(open_checkpoint(location).root))


def open_moments(location: str | Path) -> Moments:
    """Open a file of input moments that `alignmend moments` wrote. Reads its header only.

    Raises `FileFormatError` for what is missing, truncated or damaged.
    """
    file = open_moments_file(location)
    return Moments(MomentsSource(_files(file.headers), file))


def _files(headers: tuple[Header, ...]) -> tuple[str, ...]:
    """Each file's own path and header hash: models of one shape have equal headers, also side by side in one folder."""
    return tuple(part for header in headers for part in (str(header.path.resolve()), header.header_hash))
