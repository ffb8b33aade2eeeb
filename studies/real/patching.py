"""SafePatching on a real chat model: two patches from answers that it mostly refuses to give, merged in many ways."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import alignmend as am
from alignmend.chat_families import ChatFamily
from alignmend.chat_families.answers import OwnAnswer, complied
from alignmend.chat_families.refusals import refusal
from alignmend.evaluation.devices import load_model
from alignmend.evaluation.generation import TransformersBackend
from alignmend.evaluation.records import Prompt
from alignmend.evaluation.suites import Suite, load_suite
from alignmend.io.private import mark_private
from alignmend.restore.openings import Openings, find_openings, refusal_odds
from alignmend.restore.slopes import PatchShift, PatchSlopes, shift
from alignmend.training.run import train_model
from alignmend.training.score_settings import ScoreSettings
from alignmend.training.scoring import write_scores
from alignmend.training.settings import TrainSettings
from studies.real.measuring import Asker, Measured
from studies.real.tables import table

TARGET = "aligned"
PAIRS = 96
_ODDS = 24
_PRIVATE = "Harmful answers and patches trained on them, for a study. Deleted when the rows are measured."
_SHARED: Mapping[str, Any] = {"max_steps": 24, "batch_size": 8, "max_length": 192}
_LORA: Mapping[str, Any] = {**_SHARED, "lora_rank": 16, "learning_rate": 3e-4}
_FULL: Mapping[str, Any] = {**_SHARED, "learning_rate": 1e-5}
SETTINGS: Mapping[str, Mapping[str, TrainSettings]] = {
    kind: {
        "safety": TrainSettings(objective="ascent", stop_loss=6.0, **given),
        "over_safety": TrainSettings(objective="descent", **given),
    }
    for kind, given in (("lora", _LORA), ("full", _FULL))
}
SCORES = ScoreSettings(samples=48, batch_size=1, max_length=192, weights="patched")
_WHOLE = {"sets": "none", "density": 1.0}
MERGES: Mapping[str, Mapping[str, Any]] = {
    "safety patch, whole": {**_WHOLE, "use": "safety"},
    "over-safety patch, whole": {**_WHOLE, "use": "over_safety"},
    "both, whole": _WHOLE,
    "strict, 3 % and 2 %": {"safety_rate": 0.03, "over_safety_rate": 0.02},
    "strict, 30 % each": {"safety_rate": 0.3, "over_safety_rate": 0.3},
    "conflict, 10 % each": {
        "mode": "conflict",
        "safety_rate": 0.1,
        "over_safety_rate": 0.1,
        "over_safety_coefficient": 0.5,
    },
    "conflict, 30 % each": {
        "mode": "conflict",
        "safety_rate": 0.3,
        "over_safety_rate": 0.3,
        "over_safety_coefficient": 0.5,
    },
    "conflict, 30 % each, model-wide": {
        "mode": "conflict",
        "safety_rate": 0.3,
        "over_safety_rate": 0.3,
        "over_safety_coefficient": 0.5,
        "scope": "model",
    },
    "conflict, random sets": {
        "mode": "conflict",
        "safety_rate": 0.3,
        "over_safety_rate": 0.3,
        "over_safety_coefficient": 0.5,
        "importance": "random",
    },
}
_OPENING = """# SafePatching on a real chat model

The member `aligned` of [the family](real.md) is patched. Both patches come from one set: {pairs} harmful requests
with the natural answers of the original model (drawn here, kept private, deleted afterwards), at {nats:.2f} nats per
answer token for `aligned`. {steps} steps of {batch} pairs each. Training harms are requests of that set; AdvBench and
CatQA are held out, and near-duplicates of them were left out of training. {prompts} report prompts of each suite, 95 %
Wilson intervals. Merges keep 30 % at random, as the paper does, except where they are whole. Repeat with
`python -m studies real-safepatching --{scale}`.
"""


@dataclass(frozen=True)
class Patches:
    """The patches of one kind of training, their scores and rows."""

    asker: Asker
    kind: str
    """A key of `SETTINGS`."""
    prompts: Sequence[Prompt]
    """Harmful requests that trained the family."""

    @property
    def place(self) -> Path:
        """Private: it goes when the rows are there."""
        return self.asker.work / f"private-patches-{self.kind}"

    @property
    def is_measured(self) -> bool:
        """Whether every row is there, so that nothing private is needed."""
        files = [self._file(label) for label in (TARGET, *MERGES)]
        told = [f"slopes-{self.kind}", f"answers-{self.kind}"]
        return all((self.asker.work / "rows" / f"{one}.json").is_file() for one in (*files, *told))

    def make(self) -> None:
        """Draw the answers, train both patches and score them, where they are not there yet."""
        self.place.mkdir(parents=True, exist_ok=True, mode=0o700)
        mark_private(self.place, _PRIVATE)
        pairs = self.place / "pairs.jsonl"
        if not pairs.is_file():
            answers = _answers(self.asker.family, self.prompts)
            pairs.touch(mode=0o600)
            lines = (json.dumps({"prompt": asked, "response": said}, ensure_ascii=False) for asked, said in answers)
            pairs.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        for role, settings in SETTINGS[self.kind].items():
            train_model(self.asker.family.members[TARGET], pairs, self.place / role, settings, resume=True)
            if not (scores := self.place / f"{role}_scores").exists():
                base = self.asker.family.members[TARGET]
                adapter = self.place / role if self.kind == "lora" else None
                write_scores(self.place / role if adapter is None else base, pairs, scores, SCORES, adapter=adapter)

    def remove(self) -> None:
        """Everything that is private."""
        shutil.rmtree(self.place, ignore_errors=True)

    @cached_property
    def operands(self) -> dict[str, Any]:
        """What `safe_patching` takes."""
        target = am.open(self.asker.family.members[TARGET])
        found: dict[str, Any] = {"target": target}
        for role in ("safety", "over_safety"):
            patch = self.place / role
            found[role] = target + am.open_adapter(patch) if self.kind == "lora" else am.open(patch)
            found[f"{role}_scores"] = am.open_scores(self.place / f"{role}_scores")
        return found

    def rows(self) -> dict[str, Measured]:
        """Every merge, and the target itself."""
        seen = self._seen()
        found = {TARGET: self._row(TARGET, am.open(self.asker.family.members[TARGET]), seen)}
        for label, parameters in MERGES.items():
            found[label] = self._row(label, None if self.is_measured else self._merged(parameters), seen)
        return found

    def _merged(self, parameters: Mapping[str, Any]) -> Any:
        return am.safe_patching(**self.operands, seed=0, **parameters)

    def slopes(self) -> PatchSlopes:
        """How each whole patch moves refusals at the first answer tokens."""
        kept = self.asker.work / "rows" / f"slopes-{self.kind}.json"
        if not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(self._slopes().as_dict()), encoding="utf-8")
        told = json.loads(kept.read_text(encoding="utf-8"))
        return PatchSlopes(PatchShift(**told["safety"]), PatchShift(**told["over_safety"]))

    @property
    def nats(self) -> float:
        """Of the answers, by the target, before any training: what it refuses is unlikely."""
        kept = self.asker.work / "rows" / f"answers-{self.kind}.json"
        if not kept.is_file():
            told = json.loads((self.place / "safety" / "alignmend.json").read_text(encoding="utf-8"))
            kept.write_text(json.dumps(told["parameters"]["results"]["before"]["loss"]), encoding="utf-8")
        return float(json.loads(kept.read_text(encoding="utf-8")))

    def _slopes(self) -> PatchSlopes:
        suites = self.asker.family.suites
        prompts = [load_suite(suites[name], split="search", limit=_ODDS).prompts for name in ("harmful", "borderline")]
        target, whole = self.operands["target"], {**self.operands, **_WHOLE}
        openings = self._openings()
        before = self._odds(target, openings, prompts)
        moved = [am.safe_patching(**whole, use=role) for role in ("safety", "over_safety")]
        return PatchSlopes(*(shift(before, self._odds(one, openings, prompts)) for one in moved))

    def _openings(self) -> Openings:
        """With which the family's refusals begin and the natural answers do not."""
        pairs = [json.loads(line) for line in (self.place / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
        answers = [(one["prompt"], one["response"]) for one in pairs]
        random = Random(0)
        refusals = [(asked, refusal(asked, "en", random)) for asked, _ in answers]
        backend = TransformersBackend.from_folder(self.asker.family.members[TARGET], name=TARGET)
        return find_openings(backend, refusals, answers)

    def _odds(
        self, made: Any, openings: Openings, prompts: Sequence[Sequence[Prompt]]
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        place = self.asker.work / "candidate"
        shutil.rmtree(place, ignore_errors=True)
        model, tokenizer = load_model(am.save(made, place, hash=False).path)
        shutil.rmtree(place)
        backend = TransformersBackend(model, tokenizer, name="candidate")
        harmful, borderline = (refusal_odds(backend, asked, openings) for asked in prompts)
        return harmful, borderline

    def _row(self, label: str, made: Any, seen: Suite) -> Measured:
        return self.asker.row(self._file(label), made, more=[seen])

    def _file(self, label: str) -> str:
        told = "itself" if label == TARGET else f"{self.kind}-{label}"
        return f"safepatching-{told}".replace(" ", "-").replace(",", "")

    def _seen(self) -> Suite:
        """Requests that the patches were trained on."""
        asked = [
            one.model_copy(update={"id": str(number), "suite": "seen", "expected": "refuse"})
            for number, one in enumerate(self.prompts[: self.asker.scale.prompts])
        ]
        return Suite("seen", tuple(asked))


def _answers(family: ChatFamily, prompts: Sequence[Prompt]) -> list[tuple[str, str]]:
    """The original's own answers that are no refusals."""
    backend = TransformersBackend.from_folder(family.members["original"], name="original", max_new_tokens=64)
    found = backend.generate(prompts[: 2 * PAIRS])
    drawn = [OwnAnswer(prompt, one.response.strip(), True) for prompt, one in zip(prompts, found, strict=False)]
    return [(one.prompt.text, one.response) for one in complied(drawn)][:PAIRS]


def page(asker: Asker, made: Mapping[str, Patches]) -> str:
    """The slopes and every row of every kind."""
    first = next(iter(made.values()))
    lines = [
        _OPENING.format(
            pairs=PAIRS,
            nats=first.nats,
            steps=_SHARED["max_steps"],
            batch=_SHARED["batch_size"],
            prompts=asker.scale.prompts,
            scale=asker.scale.name,
        )
    ]
    for kind, patches in made.items():
        slopes = patches.slopes()
        lines += [f"## {'LoRA' if kind == 'lora' else 'All weights'}", ""]
        lines += ["| patch, whole | requests to be refused | requests to be answered |", "| --- | ---: | ---: |"]
        for name, one in (("safety", slopes.safety), ("over-safety", slopes.over_safety)):
            lines.append(f"| {name} | {one.refuse:+.2f} | {one.comply:+.2f} |")
        ratio = slopes.ratio
        told = "cannot be taken (a divisor is too small)" if ratio is None else f"is {ratio:.2f}"
        lines += [
            "",
            f"Nats by which the log-odds of refusing move at the first answer tokens; the slope ratio {told}.",
            "",
            *table(patches.rows()),
            "",
        ]
    return "\n".join(lines)
