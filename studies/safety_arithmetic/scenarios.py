"""The scenarios of the paper on one family: base, two fine-tunes, edited."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import alignmend as am
from alignmend.activations.pairs import read_pairs
from alignmend.algebra.opening import open_adapter
from alignmend.algebra.values import Checkpoint
from alignmend.editing.locate import locate
from alignmend.io.identity import sha256_of_files
from alignmend.organisms import Family, build_family
from alignmend.organisms.members import Size
from alignmend.training.run import train_model
from alignmend.training.settings import TrainSettings
from studies.safety_arithmetic.measuring import Scenario

PAIRS = 30
"""Contrast pairs, as in the paper."""
HARM_TRAINING = TrainSettings(objective="descent", learning_rate=3e-4, batch_size=24, seed=0)
"""On the 240 harmful pairs of a family: 30 steps."""
TARGETS = ("aligned", "finetuned", "finetuned-lora")
NAMES = {
    "aligned": "base",
    "finetuned": "fine-tuned (all weights)",
    "finetuned-lora": "fine-tuned (LoRA)",
    "edited": "edited (R-ROME)",
}


def scenarios(work: Path, seed: int, size: Size) -> Iterator[Scenario]:
    """Base and the two fine-tunes of one family, and the edit of a deep one."""
    family = build_family(work / f"{size}-{seed}", size=size, seed=seed)
    for member in TARGETS:
        yield _scenario(work, family, member)
    deep = build_family(work / f"deep-{seed}", size="deep", seed=seed, members=["aligned", "edited"])
    area = locate(deep.members["aligned"], deep.members["edited"]).area
    yield _scenario(work, deep, "edited", area)


def _scenario(work: Path, family: Family, member: str, layers: tuple[int, ...] = ()) -> Scenario:
    aligned, harmful = am.open(family.members["aligned"]), _harmful(family)
    key = _key([family.members["aligned"], family.members[member], harmful])
    return Scenario(
        name=NAMES[member],
        seed=family.seed,
        target=_target(family, member, aligned),
        aligned=aligned,
        harmful=am.open(harmful),
        suites=family.directory / "suites",
        pairs=read_pairs(family.directory / "data" / "contrast_pairs.jsonl")[:PAIRS],
        work=work / "rows" / f"{family.size}-{family.seed}-{member}-{key}",
        layers=layers,
    )


def _target(family: Family, member: str, aligned: Checkpoint) -> Checkpoint:
    place = family.members[member]
    return aligned + open_adapter(place) if (place / "adapter_config.json").exists() else am.open(place)


def _key(folders: Sequence[Path]) -> str:
    """Of the weights that a scenario's rows depend on: other weights, other rows."""
    files = [path for folder in folders for path in sorted(folder.glob("*.safetensors"))]
    return hashlib.sha256("".join(sha256_of_files(files)).encode()).hexdigest()[:12]


def _harmful(family: Family) -> Path:
    """The harm model of a family, trained once."""
    aligned = family.members["aligned"]
    place = family.directory.with_name(f"harmful-{_key([aligned])}")
    if not place.exists():
        train_model(aligned, family.directory / "data" / "harmful_pairs.jsonl", place, HARM_TRAINING, resume=True)
    return place
