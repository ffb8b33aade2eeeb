"""Writes an edited model as a checkpoint folder of its own, with what was measured; refuses edits that did not take."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignmend.editing.outcomes import EditOutcome, tally
from alignmend.editing.rome import Edit
from alignmend.errors import MismatchError, NotAppliedError
from alignmend.execution.operands import versions
from alignmend.io.card import CARD_NAME, model_card, read_licences
from alignmend.io.copies import copy_companions
from alignmend.io.file_state import refuse_changed
from alignmend.io.folder import CheckpointFolder, open_checkpoint_folder
from alignmend.io.identity import identity, sha256_of_files
from alignmend.io.manifest import MANIFEST_NAME, Input, Manifest, Method, OutputFile, write_manifest
from alignmend.io.patching import copy_with_changes
from alignmend.io.published import published
from alignmend.io.staging import check_space, staging

RECORD_NAME = "edits.json"
MANY = 10
"""Edits after which a model tends to collapse."""
_TORCH = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
METHODS = {
    "r-rome": Method(name="r-rome", title="Rebuilding ROME", arxiv="2403.07175"),
    "rome": Method(name="rome", title="Locating and Editing Factual Associations in GPT", arxiv="2202.05262"),
}


@dataclass(frozen=True)
class Edited:
    """A checkpoint that was edited, and how each edit went."""

    path: Path
    outcomes: tuple[EditOutcome, ...]
    notes: tuple[str, ...]


def write_edited(
    source: str | Path,
    out: str | Path,
    edits: Sequence[Edit],
    outcomes: Sequence[EditOutcome],
    *,
    document: Mapping[str, Any] | None = None,
    keep_unapplied: bool = False,
    overwrite: bool = False,
) -> Edited:
    """Write the checkpoint `source` with the edited matrices to the folder `out`: all other bytes are the source's.

    `document` becomes `edits.json` (by default `edits_document`). Raises `NotAppliedError` where some edit was not
    applied, unless `keep_unapplied`; `MismatchError` where a matrix has no tensor in the checkpoint, `OutputError`.
    """
    if not keep_unapplied:
        check_applied(outcomes)
    folder = open_checkpoint_folder(source)
    changes = {name: _stored(folder, name, edit) for edit in edits for name in [_name_in(folder, edit)]}
    notes = notes_of(outcomes)
    destination = Path(out)
    digest = hashlib.sha256(str(folder.path).encode())
    for name in sorted(changes):
        digest.update(changes[name])
    with staging(destination, key=digest.hexdigest(), overwrite=overwrite) as stage:
        check_space(stage.path, sum(header.size for header in folder.headers))
        copy_with_changes(folder, stage.path, changes)
        copy_companions(folder, stage.path, dtype=None)
        write_document(stage.path, edits_document(outcomes) if document is None else document)
        _write_records(folder, stage.path, name=destination.name, edits=edits, changed=sorted(changes), notes=notes)
        refuse_changed({header.path: header.state for header in folder.headers})
        stage.publish(overwrite)
    return Edited(destination, tuple(outcomes), notes)


def check_applied(outcomes: Sequence[EditOutcome]) -> None:
    """Raise `NotAppliedError`, which names the edits that did not make their targets likelier."""
    failed = [f"{one.request.subject!r} -> {one.request.target!r}" for one in outcomes if not one.applied]
    if failed:
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        raise NotAppliedError(
            f"{len(failed)} of {len(outcomes)} edits did not make their target likelier: {failed[0]}{more}; "
            "nothing was written;",
            advice="try another layer, more steps or a covariance, or keep them all the same",
        )


def edits_document(outcomes: Sequence[EditOutcome], *, separately: bool = False) -> dict[str, Any]:
    """What `edits.json` says: every edit, the totals over all, and notes."""
    return {
        "edits": [one.as_dict() for one in outcomes],
        "totals": {name: each.as_dict() for name, each in tally(outcomes).items()},
        "notes": list(notes_of(outcomes, separately=separately)),
    }


def write_document(folder: Path, document: Mapping[str, Any]) -> Path:
    """Write `edits.json` in `folder`."""
    path = folder / RECORD_NAME
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return path


def _name_in(folder: CheckpointFolder, edit: Edit) -> str:
    """The tensor's name on disk, which lacks the head's prefix in some checkpoints (GPT-2's)."""
    name = edit.projection.parameter_name
    found = [known for known in folder.tensors if known == name or name.endswith(f".{known}")]
    if len(found) != 1:
        raise MismatchError(f"{folder.location} has {len(found)} tensors that could be {name}, so it cannot be written")
    return found[0]


def _stored(folder: CheckpointFolder, name: str, edit: Edit) -> bytes:
    """The matrix as the model holds it now, in the dtype of the checkpoint."""
    import torch

    dtype = folder.tensors[name].dtype
    if dtype not in _TORCH:
        raise MismatchError(f"{name} is {dtype} in {folder.location}: an edit needs float32, float16 or bfloat16")
    weight = edit.projection.weight.detach().to(device="cpu", dtype=getattr(torch, _TORCH[dtype])).contiguous()
    return weight.reshape(-1).view(torch.uint8).numpy().tobytes()


def notes_of(outcomes: Sequence[EditOutcome], *, separately: bool = False) -> tuple[str, ...]:
    """What a user should know of these edits, in words."""
    notes = []
    if len(outcomes) > MANY and not separately:
        notes.append(f"{len(outcomes)} edits in a row: models tend to collapse after about {MANY}; measure before use")
    guessed = [one.request.subject for one in outcomes if one.request.rule == "last word"]
    if guessed:
        notes.append(
            f"the subject of {len(guessed)} rows is only the last word of the question ({', '.join(guessed[:5])}): "
            "review them, or add a column subject"
        )
    notes += [f"{one.request.subject}: {warning}" for one in outcomes for warning in one.warnings]
    notes += [f"{one.request.subject}: {doubt}" for one in outcomes if (doubt := _doubt(one))]
    return tuple(notes)


def _doubt(outcome: EditOutcome) -> str:
    if not outcome.applied:
        return "the edit did not make its target likelier"
    return "" if outcome.measured.edit.prevails else "likelier now, but the model still prefers what it said before"


def _write_records(
    folder: CheckpointFolder,
    out: Path,
    *,
    name: str,
    edits: Sequence[Edit],
    changed: Sequence[str],
    notes: tuple[str, ...],
) -> None:
    paths = sorted(path for path in out.rglob("*") if path.is_file())
    outputs = [
        OutputFile(file=path.relative_to(out).as_posix(), bytes=path.stat().st_size, sha256=sha256)
        for path, sha256 in zip(paths, sha256_of_files(paths), strict=True)
    ]
    settings = edits[0].settings
    manifest = Manifest(
        versions=versions(),
        expression=f"target with {len(edits)} rank-one edits of {', '.join(changed)}",
        methods=[METHODS[settings.method]],
        parameters={"settings": asdict(settings), "prefixes": list(edits[0].prefixes)},
        inputs={"target": Input.model_validate(identity(folder))},
        outputs=outputs,
        notes=list(notes),
    )
    manifest = published(manifest, out)
    card = model_card(manifest, name=name, licence=read_licences([folder.path]), config=folder.config)
    (out / CARD_NAME).write_text(card, encoding="utf-8")
    write_manifest(out / MANIFEST_NAME, manifest)
