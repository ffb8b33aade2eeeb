"""What an output says of itself: manifest and model card, the same for checkpoints and adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from alignmend.algebra.notation import Labels, notation
from alignmend.algebra.values import Checkpoint
from alignmend.execution.operands import identities, label_all, opened, operands_of, versions
from alignmend.io.card import CARD_NAME, model_card, read_licences
from alignmend.io.identity import sha256_of_files
from alignmend.io.manifest import (
    MANIFEST_NAME,
    Input,
    Manifest,
    Method,
    OutputFile,
    Patch,
    Rounding,
    Vectors,
    write_manifest,
)
from alignmend.io.published import is_hidden, published


@dataclass(frozen=True)
class Description:
    """What a manifest and a model card say beyond the arithmetic itself."""

    recipe: Mapping[str, JsonValue] | None = None
    parameters: Mapping[str, JsonValue] = field(default_factory=dict)
    methods: tuple[Method, ...] = ()
    labels: Labels = field(default_factory=dict)
    """The role of each operand."""
    private: bool = False
    """A working file that must not be published."""
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    vectors: Vectors | None = None
    """What was measured of the operands."""
    data: Mapping[str, Input] = field(default_factory=dict)
    """Files beside the operands that the result depends on, by their name in a recipe."""
    home: Path | None = None
    """Where the output will stand in the end, if it is written somewhere else first."""
    sweep: Path | None = None
    """The folder of the sweep that the output belongs to."""


def write_records(
    folder: Path,
    checkpoint: Checkpoint,
    description: Description,
    *,
    out: Path,
    rounding: Rounding | None,
    notes: tuple[str, ...],
    hash: bool,
    hash_inputs: bool,
    patches: Sequence[Patch] = (),
) -> Manifest:
    """Write `README.md` and `alignmend.json` beside an output's finished files in `folder`, which will be `out`.

    Both are for the world: they name no place on this machine, and no unaligned model.
    """
    operands = operands_of(checkpoint)
    labels = label_all(operands, description.labels)
    manifest = Manifest(
        versions=versions(),
        recipe=None if description.recipe is None else dict(description.recipe),
        expression=notation(checkpoint, labels),
        methods=list(description.methods),
        parameters=dict(description.parameters),
        inputs=identities(operands, labels, content_hash=hash_inputs),
        data=dict(description.data),
        outputs=output_files(folder, hash=hash),
        rounding=rounding,
        vectors=description.vectors,
        patches=list(patches),
        private=description.private,
        notes=[*description.warnings, *description.notes, *notes],
    )
    manifest = published(manifest, description.home or out)
    licence = read_licences(opened(one).path for one in operands if not is_hidden(labels[one]))
    card = model_card(manifest, name=out.name, licence=licence, config=checkpoint.root.folder.config)
    (folder / CARD_NAME).write_text(card, encoding="utf-8")
    write_manifest(folder / MANIFEST_NAME, manifest)
    return manifest


def output_files(folder: Path, *, hash: bool) -> list[OutputFile]:
    """Every finished file of an output but its records."""
    # A resumed run finds the records of the one that was killed; they are about to be written again.
    records = {folder / CARD_NAME, folder / MANIFEST_NAME}
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path not in records)
    hashes: list[str] | list[None] = sha256_of_files(paths) if hash else [None] * len(paths)
    return [
        OutputFile(file=path.relative_to(folder).as_posix(), bytes=path.stat().st_size, sha256=sha256)
        for path, sha256 in zip(paths, hashes, strict=True)
    ]
