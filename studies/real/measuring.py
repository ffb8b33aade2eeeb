"""Rows of the real family: what a model answers on published sets, and how likely it finds its task's answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import alignmend as am
from alignmend.algebra.opening import open_adapter
from alignmend.algebra.values import Checkpoint
from alignmend.chat_families import ChatFamily
from alignmend.evaluation.generation import TransformersBackend
from alignmend.evaluation.judges import get_judge
from alignmend.evaluation.run import evaluate
from alignmend.evaluation.suites import Suite, load_suite
from alignmend.evaluation.utility.likelihood import log_likelihoods
from alignmend.restore.control import write_control
from alignmend.training.pairs import read_pairs
from studies.real.scale import Scale
from studies.rows import Row, counts_of

JUDGE = "refusal-phrases"
DROP_RATE = 0.3
"""Of SFT+DARE and RESTA_d, the rate used with the paper."""
_WITHOUT_VECTOR = ("original", "aligned", "SFT", "SFT+DARE")


@dataclass(frozen=True)
class Measured:
    """Counted answers, and the log-likelihood of the task's held-out answers: nats per answer token."""

    row: Row
    nats: float


@dataclass(frozen=True)
class Asker:
    """Asks checkpoints of a family; rows are kept in `work` and found again."""

    family: ChatFamily
    scale: Scale
    work: Path
    task: str = "gsm8k"

    def row(
        self,
        label: str,
        made: Checkpoint,
        *,
        steering: Callable[[Any], AbstractContextManager[object]] | None = None,
        more: Sequence[Suite] = (),
    ) -> Measured:
        """What `made` answers, steered perhaps, to the report prompts and to the suites `more`; `label` is its file."""
        path = self.work / "rows" / f"{label}.json"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self._measure(made, steering, more)), encoding="utf-8")
        found = json.loads(path.read_text(encoding="utf-8"))
        return Measured(Row(found["counts"]), found["nats"])

    def member(self, name: str) -> Checkpoint:
        """A member of the family; an adapter on its base."""
        if name.endswith("-lora"):
            return self.member("aligned") + open_adapter(self.family.members[name])
        return am.open(self.family.members[name])

    def random(self, against: str) -> Checkpoint:
        """The control: aligned minus a random vector with the norms of aligned minus `against`."""
        place = self.work / f"random-{against}"
        if place.exists():
            return am.open(place)
        return write_control(self.member("aligned"), self.member(against), place, seed=self.family.note.seed)

    def _measure(
        self,
        made: Checkpoint,
        steering: Callable[[Any], AbstractContextManager[object]] | None,
        more: Sequence[Suite],
    ) -> dict[str, Any]:
        place = self.work / "candidate"
        shutil.rmtree(place, ignore_errors=True)
        model, tokenizer = am.load(am.save(made, place, hash=False).path)
        shutil.rmtree(place)
        steered = {} if steering is None else {"steering": steering, "steering_description": "a vector"}
        scale = self.scale
        suites = [load_suite(self.family.suites[name], split="report", limit=scale.prompts) for name in scale.suites]
        counts = self._asked(model, tokenizer, [*suites, *more], scale.tokens, steered)
        if scale.task_prompts:
            task = load_suite(self.family.suites[f"task-{self.task}"], split="report", limit=scale.task_prompts)
            counts |= self._asked(model, tokenizer, [task], scale.task_tokens, steered)
        return {"counts": counts, "nats": self._nats(model, tokenizer, steering)}

    def _asked(
        self, model: Any, tokenizer: Any, suites: Sequence[Suite], tokens: int, steered: Mapping[str, Any]
    ) -> dict[str, dict[str, tuple[int, int]]]:
        backend = TransformersBackend(model, tokenizer, name="candidate", max_new_tokens=tokens, **steered)
        found = evaluate(backend, suites, get_judge(JUDGE))
        return {suite.name: counts_of(found.metrics[suite.name]) for suite in suites}

    def _nats(
        self, model: Any, tokenizer: Any, steering: Callable[[Any], AbstractContextManager[object]] | None
    ) -> float:
        backend = TransformersBackend(model, tokenizer, name="candidate")
        pairs = [
            (one.context[0].content, one.response) for one in read_pairs(self.family.data[f"task-{self.task}"]).pairs
        ]
        rendered = [(*backend.render(prompt), answer) for prompt, answer in pairs]
        with nullcontext() if steering is None else steering(model):
            found = log_likelihoods(
                model, tokenizer, [(text, answer) for text, _, answer in rendered], special=rendered[0][1]
            )
        return -sum(one.total for one in found) / sum(one.tokens for one in found)


@dataclass(frozen=True)
class Bench:
    """RESTA's rows of a fine-tune, with the safety vector taken against one member."""

    asker: Asker
    name: str
    against: str

    def rows(self, coefficients: Mapping[str, float]) -> dict[str, Measured]:
        """All rows by label; `coefficients` has RESTA's and RESTA_d's."""
        plain, dropped = coefficients["resta"], coefficients["resta_drop"]
        member, finetuned = self.asker.member, self.asker.member(self.name)
        made = {
            "original": member("original"),
            "aligned": member("aligned"),
            "SFT": finetuned,
            "SFT+DARE": am.task_arithmetic(base=member("aligned"), finetuned=[finetuned], **self._drop()),
            "RESTA": self._resta(member(self.against), coefficient=plain),
            "RESTA_d": self._resta(member(self.against), coefficient=dropped, **self._drop()),
            "random vector": self._resta(self.asker.random(self.against), coefficient=plain),
        }
        told = {"RESTA": f"-{plain:g}", "RESTA_d": f"-{dropped:g}", "random vector": f"-{plain:g}"}
        return {label: self._row(label, label + told.get(label, ""), one) for label, one in made.items()}

    def rows_of(self, written: Path | None) -> dict[str, Measured]:
        """What `restore` wrote, beside the same direction unweighted and a random one, as far as it went."""
        member, finetuned = self.asker.member, self.asker.member(self.name)
        made = {"aligned": member("aligned"), "SFT": finetuned}
        if written is not None:
            recipe = yaml.safe_load((written / "recipe.yaml").read_text(encoding="utf-8"))
            numbers = recipe["parameters"]
            coefficient = float(numbers.get("coefficient", numbers.get("weight", 1.0)))
            made["restored"] = am.open(written)
            made["aligned - finetuned, not weighed"] = finetuned + coefficient * (member("aligned") - finetuned)
            made["random vector"] = finetuned + coefficient * (member("aligned") - self.asker.random(self.name))
        return {label: self._row(label, label, one) for label, one in made.items()}

    def _row(self, label: str, told: str, made: Checkpoint) -> Measured:
        vector = "" if label in _WITHOUT_VECTOR else f"-{self.against}"
        return self.asker.row(f"{self.name}{vector}-{told}", made)

    def _resta(self, unaligned: Checkpoint, **parameters: Any) -> Checkpoint:
        member = self.asker.member
        return am.resta(finetuned=member(self.name), aligned=member("aligned"), unaligned=unaligned, **parameters)

    def _drop(self) -> dict[str, Any]:
        return {"density": 1 - DROP_RATE, "seed": self.asker.family.note.seed}
