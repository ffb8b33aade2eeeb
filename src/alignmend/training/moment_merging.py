"""Files of moments put together: over the texts of both, or of kinds that only one has."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open

from alignmend.errors import MismatchError, OutputError, ParameterError
from alignmend.execution.moment_checks import few_texts
from alignmend.io.manifest import Manifest
from alignmend.io.moments import KINDS, MomentsFile, MomentsRecord, TextKind, TextRecord, open_moments_file, tensor_name
from alignmend.io.staging import staging
from alignmend.training.moment_files import begin, publish
from alignmend.training.observing import stored_shape

if TYPE_CHECKING:
    from torch import Tensor


def merge_moments(files: Sequence[str | Path], out: str | Path, *, overwrite: bool = False) -> MomentsRecord:
    """Write the moments over the texts of all `files` together to `out`, a safetensors file.

    Each kind's moment is the mean over the positions of all files that have it. Raises `MismatchError` where they are
    not of one model, positions and template, `FileFormatError`, `OutputError`.
    """
    place, opened = Path(out), [open_moments_file(path) for path in files]
    if len(opened) < 2:
        raise ParameterError("there is nothing to merge", advice="give at least two files of moments")
    for other in opened[1:]:
        _check_alike(opened[0], other)
    if place.suffix != ".safetensors":
        raise OutputError(f"{place} is to be one file", advice="give a name that ends in .safetensors")
    if place.is_dir() or (place.exists() and not overwrite):
        raise OutputError(f"{place} exists", advice="choose another name, or pass --overwrite to replace it")
    record, sizes = _record(opened), opened[0].sizes
    manifest = _manifest(opened, record)
    key = hashlib.sha256(repr([file.header.header_hash for file in opened]).encode()).hexdigest()
    with staging(place.with_name(f".{place.name}.moments"), key=key) as stage:
        file = begin(stage, record, sizes, manifest, key)
        for site, size in sizes.items():
            for kind in record.kinds:
                file.files.write({tensor_name(kind, site): _merged(opened, kind, site, size)})
        publish(stage, place)
    return record


def _check_alike(one: MomentsFile, other: MomentsFile) -> None:
    ours, theirs = one.record, other.record
    for what in ("fingerprints", "positions", "answer_tokens", "template", "weights", "left_out"):
        if getattr(ours, what) != getattr(theirs, what):
            raise MismatchError(
                f"{one.location} and {other.location} differ in {what}: moments are merged of one model, taken alike"
            )


def _record(files: Sequence[MomentsFile]) -> MomentsRecord:
    kinds: dict[TextKind, TextRecord] = {}
    for kind in KINDS:
        found = [file.record.kinds[kind] for file in files if kind in file.record.kinds]
        if found:
            kinds[kind] = TextRecord(
                texts=sum(one.texts for one in found), positions=sum(one.positions for one in found)
            )
    return files[0].record.model_copy(update={"kinds": kinds})


def _merged(files: Sequence[MomentsFile], kind: TextKind, site: str, size: int) -> Tensor:
    """Sum of n_i C_i over sum of n_i, in float64; rows under one another where there are few."""
    import torch

    found = [(file, file.record.kinds[kind].positions) for file in files if kind in file.record.kinds]
    total = sum(count for _, count in found)
    stored = [(_stored(file, kind, site), count / total) for file, count in found]
    if stored_shape(size, total)[0] < size:
        return torch.cat([rows.double() * share**0.5 for rows, share in stored]).float()
    merged = torch.zeros(size, size, dtype=torch.float64)
    for values, share in stored:
        wide = values.double()
        merged += share * (wide.T @ wide if len(wide) < size else wide)
    return merged.float()


def _stored(file: MomentsFile, kind: TextKind, site: str) -> Tensor:
    with safe_open(file.path, framework="pt") as opened:
        found: Tensor = opened.get_tensor(tensor_name(kind, site))
    return found


def _manifest(files: Sequence[MomentsFile], record: MomentsRecord) -> Manifest:
    manifests = [Manifest.model_validate_json(file.header.metadata["alignmend"]) for file in files]
    return manifests[0].model_copy(
        update={
            "expression": f"moments of what enters {len(record.weights)} weights, merged of {len(files)} files",
            "parameters": {"merged": [manifest.parameters for manifest in manifests]},
            "private": any(manifest.private for manifest in manifests),
            "notes": [*few_texts(record)],
        }
    )
