"""Preflight of the disk: bytes that each step takes at most and leaves, against what is free."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignmend.algebra.names import layer_of
from alignmend.errors import ParameterError
from alignmend.io.folder import CheckpointFolder
from alignmend.io.shards import human_bytes
from alignmend.restore.candidates import choose_families
from alignmend.restore.parts import PARTS, Observed, Scored, Trained
from alignmend.restore.places import Places
from alignmend.restore.preflight_findings import Finding, from_error, ok, problem
from alignmend.restore.preflight_place import existing_parent
from alignmend.restore.request import Request

FLOAT = 4
"""Bytes of a float32: trained parts and scores are written in it."""
TRAINED_STATE = 3 * FLOAT
"""Of each trained weight in a checkpoint of the trainer: itself and the two moments of AdamW."""
AT_ONCE = 2
"""Checkpoints of the trainer at once: the new one is written before the old one goes."""
POSITIONS = 2_000
"""Tokens that input moments are taken over in a restore, at most."""
RECORDS = 50_000_000
"""Journal, answers, report, tokenizer: generously."""


@dataclass(frozen=True)
class Size:
    """A model's size, from its headers."""

    parameters: int
    stored: int
    """Bytes of its weights on disk."""
    rank_one: int
    """Weights of an adapter of rank 1 on every matrix of every decoder layer."""
    inputs: int = 0
    """Bytes of the moments of what enters these matrices, at most."""


@dataclass(frozen=True)
class Step:
    """What a step of a restore writes: bytes at most while it runs, and bytes that stay until the end."""

    name: str
    peak: int
    kept: int


def size_of(folder: CheckpointFolder) -> Size:
    """The size of a whole checkpoint."""
    entries = folder.tensors.values()
    matrices = [entry for entry in entries if len(entry.shape) == 2 and layer_of(entry.name) is not None]
    return Size(
        parameters=sum(entry.size for entry in entries),
        stored=sum(entry.bytes for entry in entries),
        rank_one=sum(sum(entry.shape) for entry in matrices),
        inputs=sum(FLOAT * width * min(POSITIONS, 3 * width) for width in (entry.shape[1] for entry in matrices)),
    )


def parts_to_make(request: Request, *, is_adapter: bool) -> tuple[str, ...]:
    """Roles that are trained or scored before the search; raises `ParameterError` for unknown families."""
    choice = choose_families(request, is_adapter=is_adapter)
    weighed = ("moments",) if choice.needs("moments") else ()
    if request.harmful_data is None:
        return weighed
    wanted = ("unaligned",) if choice.needs("unaligned") and request.unaligned is None else ()
    patches = ("safety", "over_safety", "safety_scores", "over_safety_scores")
    return wanted + (patches if choice.needs("patches") else ()) + weighed


def steps_of(request: Request, size: Size, parts: Sequence[str], *, is_adapter: bool = False) -> tuple[Step, ...]:
    """The steps in their order. The search itself writes no candidate."""
    made = tuple(_made(part, size, request, is_adapter) for part in parts)
    return (*made, Step("records", RECORDS, RECORDS), Step("output", size.stored, size.stored))


def _made(part: str, size: Size, request: Request, is_adapter: bool) -> Step:
    match PARTS[part]:
        case Scored():
            return _scored(part, size, request)
        case Observed():
            return _observed(part, size, is_adapter)
        case Trained():
            return _trained(part, size, request)


def _observed(part: str, size: Size, is_adapter: bool) -> Step:
    """Rows of the counted positions to each input; an adapter is merged for as long as it is looked at."""
    return Step(part, size.inputs + (FLOAT * size.parameters if is_adapter else 0), size.inputs)


def _trained(part: str, size: Size, request: Request) -> Step:
    trained = trained_parameters(size, request)
    return Step(f"train {part}", AT_ONCE * TRAINED_STATE * trained, FLOAT * trained)


def trained_parameters(size: Size, request: Request) -> int:
    """Weights that training changes: those of an adapter, or all."""
    rank = request.training.lora_rank
    return size.parameters if rank is None else rank * size.rank_one


def _scored(part: str, size: Size, request: Request) -> Step:
    """Scores are one float32 to a weight; a patch that is an adapter is merged for as long as it is scored."""
    scores = FLOAT * size.parameters
    merged = scores if request.training.lora_rank is not None else 0
    return Step(part.replace("_", " "), scores + merged, scores)


def at_most(steps: Sequence[Step]) -> int:
    """Bytes that the steps take at once, at their worst moment."""
    kept, worst = 0, 0
    for step in steps:
        worst = max(worst, kept + step.peak)
        kept += step.kept
    return worst


def free_bytes(path: Path) -> int:
    """Bytes that are free where `path` will be written."""
    return shutil.disk_usage(existing_parent(path)).free


def bytes_below(folder: Path) -> int:
    """Bytes of all files in a folder, which may be absent."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0


def look_at_disk(request: Request, size: Size, *, is_adapter: bool) -> Iterator[Finding]:
    """Whether what the restore writes has room."""
    try:
        parts = parts_to_make(request, is_adapter=is_adapter)
    except ParameterError as error:
        yield from_error("methods", error, "choose others: --method auto")
        return
    places = Places(request.out)
    steps = steps_of(request, size, parts, is_adapter=is_adapter)
    there = bytes_below(places.work) + bytes_below(places.private) if request.resume else 0
    needed = max(0, at_most(steps) - there)
    try:
        free = free_bytes(places.out)
    except OSError as error:
        yield problem("disk", f"{places.out} cannot be looked up ({error.strerror})", "choose another place: --out DIR")
        return
    told = f"{human_bytes(needed)} at most at once ({_listed(steps)}), {human_bytes(free)} free"
    yield ok("disk", told) if needed <= free else problem("disk", told, _remedy(needed - free, parts, request))


def _listed(steps: Sequence[Step]) -> str:
    return ", ".join(f"{step.name} {human_bytes(step.peak)}" for step in steps)


def _remedy(missing: int, parts: Sequence[str], request: Request) -> str:
    ways = [f"free {human_bytes(missing)}, or write to another disk (--out)"]
    if any(isinstance(PARTS[part], Trained) for part in parts) and request.training.lora_rank is None:
        ways.append("train adapters instead of whole models (--lora-rank 16)")
    if "safety" in parts:
        ways.append("leave SafePatching out (--method resta,harm_direction_removal)")
    return "; or ".join(ways)
