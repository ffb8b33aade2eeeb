"""The texts that input moments are taken over: prompts that neither choose nor prove, with the models' own answers.

Harmful prompts count with the aligned model's refusals, harmless ones with answers in which the fine-tune complies;
what is answered otherwise is left out.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import get_args

from alignmend.algebra.values import Checkpoint
from alignmend.evaluation.overlap import find_overlaps
from alignmend.evaluation.records import JudgementRow, Prompt
from alignmend.evaluation.suites import Suite, load_suite
from alignmend.execution.moment_checks import ENOUGH_HARMFUL
from alignmend.io.atomic import private_files
from alignmend.io.moments import TextKind
from alignmend.io.private import mark_private
from alignmend.restore.candidates import CALIBRATION
from alignmend.restore.measuring import Measuring
from alignmend.restore.request import Request
from alignmend.restore.suites import Split, kind_of

MOST: Mapping[TextKind, int] = MappingProxyType({"harmful": ENOUGH_HARMFUL, "harmless": 64, "borderline": 96})
"""Texts of each kind that are looked for."""
ENOUGH_OWN: Mapping[TextKind, int] = MappingProxyType({"harmful": 120, "harmless": 32, "borderline": 32})
"""Texts from the user's own places with which what ships is left out: it dilutes what the user's prompts are about."""
LEAST = 8
"""Texts of a kind without which there are no moments of it."""
_AT_ONCE = 48
_WORTH_ASKING = 0.25
"""Of the first prompts that ship, a share that must be answered as wanted for the others to be asked."""
_SHIPPED = Path(__file__).parent / "texts"
_WHY_NOT = "why-not.txt"
_REASON = "Texts of a restore on their way, and what is measured on them."

Told = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Source:
    """Prompts of one kind from one place, in the order in which they are asked."""

    name: str
    prompts: tuple[Prompt, ...]
    shipped: bool = False


@dataclass(frozen=True)
class Texts:
    """Files of texts by kind, or why there are none."""

    files: Mapping[TextKind, Path]
    why_not: str = ""

    @property
    def counts(self) -> Mapping[TextKind, int]:
        """Texts of each kind."""
        return {kind: len(path.read_text(encoding="utf-8").splitlines()) for kind, path in self.files.items()}

    @property
    def told(self) -> str:
        """In words, with where they come from."""
        return ", ".join(f"{count} {kind}{self._from(kind)}" for kind, count in self.counts.items())

    def _from(self, kind: TextKind) -> str:
        rows = (json.loads(line) for line in self.files[kind].read_text(encoding="utf-8").splitlines())
        counted = Counter(str(row["source"]) for row in rows if row.get("source"))
        return f" ({', '.join(f'{count} of {name}' for name, count in counted.items())})" if counted else ""


def text_kind(suite: Suite, prompt: Prompt) -> TextKind:
    """What a prompt is to the moments; what over-refusal is measured on is borderline, unless it is known as plain."""
    if kind_of(prompt) == "refuse":
        return "harmful"
    plain = prompt.answer is not None or suite.kind in ("benign", "task")
    return "harmless" if plain else "borderline"


def sources(split: Split, request: Request) -> Mapping[TextKind, Sequence[Source]]:
    """Where prompts come from: the user's own, what the search leaves of its suites, contrast pairs, what ships.

    Nothing that chooses or proves is among them, as it is, nearly, or in another language.
    """
    own = [
        load_suite(one, data_dir=request.prompts.data_dir, split="all") for one in request.prompts.calibration_suites
    ]
    found: dict[TextKind, list[Source]] = {kind: [] for kind in get_args(TextKind)}
    for suite in (*own, *([] if own else split.spare)):
        for kind in get_args(TextKind):
            prompts = [one for one in suite.prompts if text_kind(suite, one) == kind]
            Random(f"calibration {request.seed} {suite.name} {kind}").shuffle(prompts)
            found[kind].append(Source(suite.name, tuple(prompts)))
    found["harmful"] += _contrast(request.pairs)
    if not own:
        for kind in get_args(TextKind):
            suite = load_suite(_SHIPPED / f"{kind}.jsonl")
            found[kind].append(Source(f"shipped-{kind}", suite.prompts, shipped=True))
    return {kind: [apart for one in places if (apart := _apart(one, split)).prompts] for kind, places in found.items()}


def _contrast(path: Path | None) -> Iterator[Source]:
    if path is None:
        return
    from alignmend.activations.pairs import read_pairs

    prompts = dict.fromkeys(pair.prompt for pair in read_pairs(path))
    made = (
        Prompt(suite="contrast-pairs", id=str(place), text=text, expected="refuse")
        for place, text in enumerate(prompts)
    )
    yield Source("contrast-pairs", tuple(made))


def _apart(source: Source, split: Split) -> Source:
    if not source.prompts:
        return source
    seen = find_overlaps((*split.search, *split.report), [Suite(source.name, source.prompts)])
    gone = {one.prompt_id for one in seen}
    return replace(source, prompts=tuple(one for one in source.prompts if one.id not in gone))


def existing(place: Path) -> Texts | None:
    """The texts that were put into `place` before."""
    folder = place / CALIBRATION
    if not folder.is_dir():
        return None
    why = folder / _WHY_NOT
    if why.is_file():
        return Texts({}, why.read_text(encoding="utf-8"))
    paths = {kind: folder / f"{kind}.jsonl" for kind in get_args(TextKind)}
    return Texts({kind: path for kind, path in paths.items() if path.is_file()})


def give_up(place: Path, why: str) -> Texts:
    """Note that there are no moments, so that others who search here know it."""
    folder = place / CALIBRATION
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _WHY_NOT).write_text(why, encoding="utf-8")
    return Texts({}, why)


def gather(measuring: Measuring, aligned: Checkpoint, request: Request, place: Path, told: Told) -> Texts:
    """Ask until there are enough texts of each kind, and put them into `place`; those of an earlier run are taken."""
    if (found := existing(place)) is not None:
        return found
    place.mkdir(parents=True, exist_ok=True)
    mark_private(place, _REASON)
    with private_files():
        return _gather(measuring, aligned, request, place, told)


def _gather(measuring: Measuring, aligned: Checkpoint, request: Request, place: Path, told: Told) -> Texts:
    asked = sources(measuring.split, request)
    rows: dict[TextKind, list[dict[str, object]]] = {}
    for kind, places in asked.items():
        checkpoint = aligned if kind == "harmful" else measuring.place.start
        rows[kind] = _usable(measuring, checkpoint, kind, places, told)
    kept = {kind: found for kind, found in rows.items() if len(found) >= LEAST}
    if "harmful" not in kept or len(kept) < 2:
        return give_up(place, _too_few(rows))
    folder = place / f"{CALIBRATION}.part"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for kind, lines in kept.items():
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / f"{kind}.jsonl").write_text(text, encoding="utf-8")
    folder.rename(place / CALIBRATION)
    return Texts({kind: place / CALIBRATION / f"{kind}.jsonl" for kind in kept})


def _too_few(rows: Mapping[TextKind, Sequence[object]]) -> str:
    counted = ", ".join(f"{len(found)} {kind}" for kind, found in rows.items())
    return (
        f"too few texts for input moments: of prompts that neither choose nor prove {counted} were refused by the "
        f"aligned model or answered by the fine-tune, and {LEAST} of each are needed: "
        "give more, --calibration-suite FILE"
    )


def _usable(
    measuring: Measuring, checkpoint: Checkpoint, kind: TextKind, places: Sequence[Source], told: Told
) -> list[dict[str, object]]:
    """Prompts with the answers that are wanted, as rows of a file of pairs."""
    found: list[dict[str, object]] = []
    for source in places:
        if source.shipped and len(found) >= ENOUGH_OWN[kind]:
            break
        for start in range(0, len(source.prompts), _AT_ONCE):
            missing = MOST[kind] - len(found)
            part = source.prompts[start : start + _AT_ONCE][: missing if missing > 0 else 0]
            if not part:
                break
            answers = measuring.answers_of(checkpoint, [Suite(source.name, part)])
            if answers is None:
                return found
            judged = {row.prompt_id: row for row in answers.judgements}
            good = [one for one in answers.generations if _is_wanted(kind, judged[one.prompt_id])]
            found += [
                {
                    "prompt": one.prompt,
                    "response": one.response,
                    "response_finished": one.finish_reason == "stop",
                    "source": source.name,
                }
                for one in good
                if one.response.strip()
            ]
            told(f"{kind} texts", min(len(found), MOST[kind]), MOST[kind])
            if source.shipped and start == 0 and len(good) < _WORTH_ASKING * len(part):
                break
    return found


def _is_wanted(kind: TextKind, row: JudgementRow) -> bool:
    if kind == "harmful":
        return row.verdict == "refused" and not row.partial
    return row.verdict == "complied" and not row.partial
