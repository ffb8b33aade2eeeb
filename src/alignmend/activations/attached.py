"""Steering vectors that belong to a checkpoint: `steering.safetensors` beside its weights, with how it is applied."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from alignmend.activations.files import save_vector
from alignmend.activations.steering import Steering
from alignmend.activations.vector import SteeringVector
from alignmend.errors import AlignmendError, FileFormatError, MismatchError, OutputError
from alignmend.io.card import CARD_NAME, model_card, read_licence
from alignmend.io.folder import open_checkpoint_folder
from alignmend.io.hub import optional_file
from alignmend.io.identity import sha256_of
from alignmend.io.manifest import MANIFEST_NAME, STEERING_NAME, Manifest, OutputFile, manifest_bytes, read_manifest

if TYPE_CHECKING:
    from collections.abc import Sequence

_HOW = "steering"


def write_attached(vector: SteeringVector, how: Steering, folder: Path) -> Path:
    """Write `vector` and how it is applied into `folder` and nothing else; for folders that are in the making."""
    return save_vector(vector, folder / STEERING_NAME, overwrite=True, extra={_HOW: json.dumps(asdict(how))})


def attach(vector: SteeringVector, folder: str | Path, how: Steering, *, overwrite: bool = False) -> Path:
    """Make `vector` part of the checkpoint that alignmend wrote to `folder`: its file, manifest and model card.

    `alignmend evaluate`, `alignmend.load` and `alignmend verify` know it from then on. Raises `MismatchError` where the
    vector does not fit the checkpoint, `FileFormatError` where `folder` has no manifest, `OutputError` where it has a
    vector already, unless `overwrite`.
    """
    place = Path(folder)
    manifest = read_manifest(place)
    if (place / STEERING_NAME).exists() and not overwrite:
        raise OutputError(f"{place} has a steering vector already", advice="pass overwrite to replace it")
    check_fits(vector, place)
    path = write_attached(vector, how, place)
    _tell(place, manifest, describe(vector, how))
    return path


def attached(folder: str | Path) -> tuple[SteeringVector, Steering] | None:
    """The vector of the checkpoint in `folder` (or of a hub id) and how it is applied; `None` where there is none."""
    path = optional_file(folder, STEERING_NAME)
    if path is None:
        return None
    how = how_applied(path)
    if how is None:
        raise FileFormatError(
            f"{path}: does not say how it is applied", advice="write it with attach, or pass it as --vector"
        )
    return SteeringVector.load(path), how


def describe(vector: SteeringVector, how: Steering) -> str:
    """One line for records: equal for equal steering."""
    parts = [f"{vector.content_hash[:12]} x {how.coefficient:g} at {vector.site}"]
    parts.append("norm preserved" if how.preserve_norm else "norm free")
    parts += ["gated"] * how.gate + ["raw strength"] * (how.strength == "raw")
    parts += ["generated tokens only"] * (how.tokens == "generated")
    return ", ".join(parts)


def check_fits(vector: SteeringVector, folder: Path) -> None:
    """`MismatchError` where the checkpoint's configuration says another width or fewer layers than `vector` has."""
    config = dict(open_checkpoint_folder(folder).config)
    text: Any = config.get("text_config") or config
    width, count = text.get("hidden_size", text.get("n_embd")), text.get("num_hidden_layers", text.get("n_layer"))
    own = len(next(iter(vector.directions.values())))
    if isinstance(width, int) and width != own:
        raise MismatchError(f"the vector has width {own}, the checkpoint in {folder} has {width}")
    if isinstance(count, int) and vector.layers[-1] >= count:
        raise MismatchError(f"the vector steers layer {vector.layers[-1]}, {folder} has layers 0 to {count - 1}")


def how_applied(path: Path) -> Steering | None:
    """How the vector in the file `path` is applied, where it belongs to a checkpoint; `None` of a vector by itself."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        written = (file.metadata() or {}).get(_HOW)
    if written is None:
        return None
    try:
        return TypeAdapter(Steering).validate_json(written)
    except (ValidationError, AlignmendError) as error:
        raise FileFormatError(f"{path}: how it is applied cannot be read ({error})") from None


def _tell(folder: Path, manifest: Manifest, note: str) -> None:
    path = folder / STEERING_NAME
    entry = OutputFile(file=STEERING_NAME, bytes=path.stat().st_size, sha256=sha256_of(path))
    outputs = [one for one in manifest.outputs if one.file != STEERING_NAME]
    notes = [one for one in manifest.notes if not one.startswith(_NOTE)]
    told = manifest.model_copy(update={"outputs": [*outputs, entry], "notes": [*notes, f"{_NOTE}{note}"]})
    told = Manifest.model_validate(told.model_dump())
    _replace(folder, told)


_NOTE = "steering vector: "


def steering_notes(vector: SteeringVector, how: Steering) -> Sequence[str]:
    """What a manifest says of an attached vector: how it acts, and what its fit warned of."""
    return (f"{_NOTE}{describe(vector, how)}", *(f"steering vector, {one}" for one in vector.about.get("warnings", ())))


def _replace(folder: Path, manifest: Manifest) -> None:
    from alignmend.io.atomic import replace_bytes

    config = open_checkpoint_folder(folder).config
    card = model_card(manifest, name=folder.name, licence=read_licence(folder), config=config)
    replace_bytes(folder / CARD_NAME, card.encode("utf-8"))
    replace_bytes(folder / MANIFEST_NAME, manifest_bytes(manifest))
