"""Preflight of the models: do they open, is the parent known, do they fit each other, tensor by tensor?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from alignmend.algebra.structure import resolve
from alignmend.algebra.values import Checkpoint
from alignmend.errors import AlignmendError
from alignmend.io.adapter import AdapterFolder, open_adapter_folder
from alignmend.io.folder import CheckpointFolder, is_adapter_folder, open_checkpoint_folder
from alignmend.io.hub import find
from alignmend.io.shards import human_bytes
from alignmend.recipes.build import open_references
from alignmend.restore.opening import open_all
from alignmend.restore.parent import disagreements, folder_of, look_for_parent, parent_hints
from alignmend.restore.preflight_findings import Finding, from_error, note, ok, problem
from alignmend.restore.preflight_structure import ONE_PARENT, look_at_structure
from alignmend.restore.request import Request


@dataclass(frozen=True)
class Models:
    """The models as far as they open, and what was found on the way."""

    findings: tuple[Finding, ...]
    aligned: str | None
    is_adapter: bool
    whole: CheckpointFolder | None
    """The weights under the fine-tune: its own, or those that its adapter stands on."""
    opened: Mapping[str, Checkpoint]
    """By role; empty where fine-tune and parent do not open together."""
    folders: Mapping[str, Path]
    """By role, where the models' own files are."""


def look_at_models(request: Request) -> Models:
    """Open everything that the request names, from headers."""
    findings: list[Finding] = []
    tuned = _open_finetune(request.finetuned, findings)
    aligned = None if tuned is None else _aligned(request, tuned.path, findings)
    parent = None if aligned is None else _open_whole("aligned", aligned, findings)
    is_adapter = isinstance(tuned, AdapterFolder)
    whole = tuned if isinstance(tuned, CheckpointFolder) else parent
    opened: Mapping[str, Checkpoint] = {}
    if tuned is not None and parent is not None and aligned is not None:
        if isinstance(tuned, CheckpointFolder):
            findings += list(look_at_structure(tuned, parent))
        opened = _together(request, aligned, findings)
    folders = {role: one.path for role, one in (("finetuned", tuned), ("aligned", parent)) if one is not None}
    if request.unaligned is not None and "unaligned" in opened:
        folders["unaligned"] = folder_of(request.unaligned)
    return Models(tuple(findings), aligned, is_adapter, whole, opened, folders)


def _open_finetune(location: str, findings: list[Finding]) -> AdapterFolder | CheckpointFolder | None:
    try:
        if not is_adapter_folder(find(location).path):
            return _open_whole("fine-tune", location, findings)
        adapter = open_adapter_folder(location)
    except AlignmendError as error:
        findings.append(from_error("fine-tune", error))
        return None
    size = human_bytes(adapter.headers[0].size)
    modules = sum(len(parts) for parts in adapter.module_parts.values())
    findings.append(ok("fine-tune", f"{location}: a LoRA adapter on {modules} weights, {size}"))
    return adapter


def _open_whole(check: str, location: str, findings: list[Finding]) -> CheckpointFolder | None:
    """A whole checkpoint; a truncated, quantized or pickled one is a problem."""
    try:
        folder = open_checkpoint_folder(location)
    except AlignmendError as error:
        findings.append(from_error(check, error))
        return None
    kinds = "/".join(sorted({entry.dtype for entry in folder.tensors.values()}))
    weights, size = sum(entry.size for entry in folder.tensors.values()), human_bytes(stored_bytes(folder))
    findings.append(ok(check, f"{location}: {weights:,} weights in {kinds}, not quantized, {size}"))
    return folder


def stored_bytes(folder: CheckpointFolder) -> int:
    """Bytes of all weights on disk."""
    return sum(entry.bytes for entry in folder.tensors.values())


def _aligned(request: Request, folder: Path, findings: list[Finding]) -> str | None:
    """The parent that was given, or the one that the fine-tune's files name."""
    if request.aligned is not None:
        others = disagreements(parent_hints(folder_of(request.finetuned)), request.aligned)
        if others:
            findings.append(note("parent", f"--aligned is {request.aligned}; {'; '.join(others)}", ONE_PARENT))
        return request.aligned
    looked = look_for_parent(request.finetuned)
    if looked.parent is None:
        why = "; ".join(looked.refused) or f"no file in {folder} names the model that it was fine-tuned from"
        findings.append(problem("parent", why, "give it: --aligned MODEL, a folder or a hub id"))
        return None
    found = f"{looked.parent.reference}, from {looked.parent.found_in}"
    if looked.parent.notes:
        findings.append(note("parent", f"{found}; {'; '.join(looked.parent.notes)}", "--aligned says which is meant"))
    else:
        findings.append(ok("parent", found))
    return looked.parent.reference


def _together(request: Request, aligned: str, findings: list[Finding]) -> Mapping[str, Checkpoint]:
    """All models as operands of one recipe, every tensor of one compared with its partners."""
    try:
        references = dict(open_all(request.finetuned, aligned, None).references)
        models = dict(open_references(references))
        found = resolve(models["finetuned"] + (models["finetuned"] - models["aligned"]))
    except AlignmendError as error:
        findings.append(from_error("tensors", error, ONE_PARENT))
        return {}
    if found.notes:
        findings.append(note("tensors", "; ".join(found.notes)))
    else:
        findings.append(ok("tensors", f"all {len(found.tensors)} have a partner of the same shape"))
    return models if request.unaligned is None else {**models, **_unaligned(request, aligned, models, findings)}


def _unaligned(
    request: Request, aligned: str, models: Mapping[str, Checkpoint], findings: list[Finding]
) -> Mapping[str, Checkpoint]:
    try:
        references = open_all(request.finetuned, aligned, request.unaligned).references
        found = open_references(references)["unaligned"]
        resolve(models["finetuned"] + (models["aligned"] - found))
    except AlignmendError as error:
        findings.append(from_error("unaligned", error, "give an unaligned model that was made from the aligned one"))
        return {}
    if request.unaligned_kind == "base":
        findings.append(
            note(
                "unaligned",
                f"{request.unaligned}: a pretrained base stands in, so the vector holds following instructions too",
                "compare it with a vector from --harmful-data, where you have such pairs",
            )
        )
    else:
        findings.append(ok("unaligned", f"{request.unaligned}: the same tensors"))
    return {"unaligned": found}
