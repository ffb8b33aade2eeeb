"""Rows of the real family: what a model answers on published sets, and how likely it finds its task's answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import alignmend as am
from alignmend.algebra.opening import open_adapter
from alignmend.algebra.values import Checkpoint
from alignmend.chat_families import ChatFamily
from alignmend.evaluation.generation import TransformersBackend
from alignmend.evaluation.judges import get_judge
from alignmend.evaluation.run import evaluate
from alignmend.evaluation.suites import load_suite
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
class Bench:
    """A fine-tune and what its rows are made of; rows are kept in `work` and found again."""

    family: ChatFamily
    name: str
    against: str
    scale: Scale
    work: Path

    @property
    def task(self) -> str:
        """What it learned."""
        return self.name.removeprefix("finetuned-").removesuffix("-lora")

    def rows(self, coefficients: Mapping[str, float]) -> dict[str, Measured]:
        """All rows by label; `coefficients` has RESTA's and RESTA_d's."""
        plain, dropped = coefficients["resta"], coefficients["resta_drop"]
        made = {
            "original": self._member("original"),
            "aligned": self._member("aligned"),
            "SFT": self._finetuned(),
            "SFT+DARE": am.task_arithmetic(base=self._member("aligned"), finetuned=[self._finetuned()], **self._drop()),
            "RESTA": self._resta(self._member(self.against), coefficient=plain),
            "RESTA_d": self._resta(self._member(self.against), coefficient=dropped, **self._drop()),
            "random vector": self._resta(self._random(), coefficient=plain),
        }
        told = {"RESTA": f"-{plain:g}", "RESTA_d": f"-{dropped:g}", "random vector": f"-{plain:g}"}
        return {label: self._measured(label + told.get(label, ""), one) for label, one in made.items()}

    def _member(self, name: str) -> Checkpoint:
        return am.open(self.family.members[name])

    def _finetuned(self) -> Checkpoint:
        place = self.family.members[self.name]
        return self._member("aligned") + open_adapter(place) if self.name.endswith("-lora") else am.open(place)

    def _resta(self, unaligned: Checkpoint, **parameters: Any) -> Checkpoint:
        return am.resta(finetuned=self._finetuned(), aligned=self._member("aligned"), unaligned=unaligned, **parameters)

    def _drop(self) -> dict[str, Any]:
        return {"density": 1 - DROP_RATE, "seed": self.family.note.seed}

    def _random(self) -> Checkpoint:
        place = self.work / f"random-{self.against}"
        if place.exists():
            return am.open(place)
        return write_control(self._member("aligned"), self._member(self.against), place, seed=self.family.note.seed)

    def _measured(self, label: str, made: Checkpoint) -> Measured:
        vector = "" if label in _WITHOUT_VECTOR else f"-{self.against}"
        path = self.work / "rows" / f"{self.name}{vector}-{label}.json"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self._measure(made)), encoding="utf-8")
        found = json.loads(path.read_text(encoding="utf-8"))
        return Measured(Row(found["counts"]), found["nats"])

    def _measure(self, made: Checkpoint) -> dict[str, Any]:
        place = self.work / "candidate"
        shutil.rmtree(place, ignore_errors=True)
        model, tokenizer = am.load(am.save(made, place, hash=False).path)
        counts = self._asked(model, tokenizer, self.scale.suites, self.scale.prompts, self.scale.tokens)
        if self.scale.task_prompts:
            counts |= self._asked(
                model, tokenizer, (f"task-{self.task}",), self.scale.task_prompts, self.scale.task_tokens
            )
        nats = self._nats(model, tokenizer)
        shutil.rmtree(place)
        return {"counts": counts, "nats": nats}

    def _asked(
        self, model: Any, tokenizer: Any, names: tuple[str, ...], prompts: int, tokens: int
    ) -> dict[str, dict[str, tuple[int, int]]]:
        suites = [load_suite(self.family.suites[name], split="report", limit=prompts) for name in names]
        backend = TransformersBackend(model, tokenizer, name="candidate", max_new_tokens=tokens)
        found = evaluate(backend, suites, get_judge(JUDGE))
        return {name: counts_of(found.metrics[name]) for name in found.metrics if name in names}

    def _nats(self, model: Any, tokenizer: Any) -> float:
        backend = TransformersBackend(model, tokenizer, name="candidate")
        pairs = [
            (one.context[0].content, one.response) for one in read_pairs(self.family.data[f"task-{self.task}"]).pairs
        ]
        rendered = [(*backend.render(prompt), answer) for prompt, answer in pairs]
        found = log_likelihoods(
            model, tokenizer, [(text, answer) for text, _, answer in rendered], special=rendered[0][1]
        )
        return -sum(one.total for one in found) / sum(one.tokens for one in found)
