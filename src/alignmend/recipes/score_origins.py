"""Were two files of scores exchanged? Told from what they say of the model that was scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from alignmend.algebra.values import Checkpoint
from alignmend.algebra.walks import adapters_of, stored_deltas_of
from alignmend.errors import FileFormatError
from alignmend.io.folder import open_checkpoint_folder
from alignmend.io.manifest import Manifest, read_manifest

_SCORED = {"safety_scores": "safety", "over_safety_scores": "over_safety"}
"""Scores by role, and the role of the model that they should be of."""


def exchanged_scores(places: Mapping[str, Path], models: Mapping[str, Checkpoint]) -> Iterator[str]:
    """What is wrong with score folders at `places`, by role: each that says it is of another role's patch.

    Scores that tell nothing (made elsewhere, or seen from another folder) are taken as they are.
    """
    homes = {role: _home(models[role]) for role in _SCORED.values() if role in models}
    for role, of in _SCORED.items():
        scored = _scored_model(places[role]) if role in places else None
        other = next((name for name, home in homes.items() if name != of and home == scored), None)
        if other is not None and homes.get(of) != scored:
            yield f"{role} are scores of {other} ({scored}): give those of {of}, or were the two exchanged?"


def _home(model: Checkpoint) -> Path:
    parts: list[Path] = []
    if model.change is not None:
        parts += [adapter.adapter.adapter.path for adapter in adapters_of(model.change)]
        parts += [delta.stored.folder.path for delta in stored_deltas_of(model.change)]
    return (parts[0] if len(parts) == 1 else model.root.folder.path).resolve()


def _in_header(file: Path) -> Manifest:
    """The manifest of scores that are one file."""
    (header,) = open_checkpoint_folder(file).headers
    return Manifest.model_validate_json(header.metadata.get("alignmend", ""))


def _scored_model(place: Path) -> Path | None:
    try:
        inputs = (read_manifest(place) if place.is_dir() else _in_header(place)).inputs
    except (FileFormatError, ValidationError):
        return None
    found = inputs.get("adapter", inputs.get("model"))
    return None if found is None else Path(found.location).resolve()
