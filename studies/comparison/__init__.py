"""All methods of the project on the same organisms under the same budget, each chosen by `restore` itself.

A random vector of the safety vector's norms stands in for it as control.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from alignmend.algebra.opening import open_checkpoint
from alignmend.organisms import Family, build_family
from alignmend.organisms.members import Size
from alignmend.recipes.schema import Training
from alignmend.restore.control import write_control
from alignmend.restore.demo import LIMITS, VARIANTS
from alignmend.restore.families import FAMILIES
from alignmend.restore.request import Prompts, Request
from alignmend.restore.steps import Unwatched
from alignmend.restore.workflow import restore
from studies.comparison.tables import Outcome, page, plane

NAME = "comparison"
CONTROL = "random vector"
TRIALS = 12
"""Of each family on each fine-tune."""
TRAINING = Training(learning_rate=3e-4, batch_size=24, stop_loss=6.0)
"""Of patches; the unaligned model is the family's own, trained on the same pairs."""
_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def run(work: Path, *, seeds: Iterable[int], size: Size, pages: Path) -> str:
    """Every family on both fine-tunes of every seed; returns the page, and draws its figure beside it."""
    found = [one for seed in seeds for one in _of_seed(work, seed, size)]
    pages.mkdir(parents=True, exist_ok=True)
    (pages / f"{NAME}-plane.svg").write_text(plane(found), encoding="utf-8")
    return page(found, size=size, trials=TRIALS, limits=str(LIMITS))


def _of_seed(work: Path, seed: int, size: Size) -> Iterator[Outcome]:
    family = build_family(work / "safety-arithmetic" / f"{size}-{seed}", size=size, seed=seed)
    place = work / NAME / f"{size}-{seed}-{_key(family)}"
    random = _random(family, place)
    for variant, (member, _) in VARIANTS.items():
        for name in (*FAMILIES, CONTROL):
            if name == "safe_patching" and variant == "lora":
                continue  # patches are trained on a whole model
            print(f"{NAME}: seed {seed}, {member}, {name}", file=sys.stderr, flush=True)
            yield Outcome(seed, variant, name, _results(_request(family, member, name, place, random), place))


def _key(family: Family) -> str:
    note: dict[str, Any] = json.loads((family.directory / "family.json").read_bytes())
    return str(note["key"])[:8]


def _random(family: Family, place: Path) -> Path:
    """The stand-in for the unaligned model, with what a model has beside its weights."""
    aligned, unaligned = (family.members[name] for name in ("aligned", "unaligned"))
    folder = place / "random"
    if not folder.is_dir():
        write_control(open_checkpoint(aligned), open_checkpoint(unaligned), folder, seed=family.seed)
        for name in _FILES:
            if (aligned / name).is_file():
                shutil.copyfile(aligned / name, folder / name)
    return folder


def _request(family: Family, member: str, name: str, place: Path, random: Path) -> Request:
    suites = tuple(str(path) for path in family.suites.values())
    data = family.directory / "data"
    return Request(
        finetuned=str(family.members[member]),
        out=place / f"{member}-{name.replace(' ', '-')}",
        aligned=str(family.members["aligned"]),
        unaligned=str(random if name == CONTROL else family.members["unaligned"]),
        harmful_data=data / "harmful_pairs.jsonl" if name == "safe_patching" else None,
        pairs=data / "contrast_pairs.jsonl" if name == "safety_arithmetic" else None,
        methods=("resta",) if name == CONTROL else (name,),
        prompts=Prompts(suites=suites, judge="organism", max_new_tokens=48),
        limits=LIMITS,
        trials=TRIALS,
        seed=family.seed,
        training=TRAINING,
        resume=True,
    )


def _results(request: Request, place: Path) -> dict[str, Any]:
    """The results of a restore; of one that found nothing within the limits the search alone."""
    nothing = place / f"{request.out.name}.json"
    if nothing.is_file():
        found: dict[str, Any] = json.loads(nothing.read_bytes())
        return found
    ended = restore(request, Unwatched())
    if ended.document is not None and ended.how == "restored":
        return dict(ended.document)
    assert ended.searched is not None
    block = {"search": ended.searched.block(None), "ended": ended.how}
    nothing.write_text(json.dumps(block), encoding="utf-8")
    return block
