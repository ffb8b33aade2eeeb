"""How each member is made of its rows."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from alignmend.chat_families.answers import OwnAnswer, check_natural, complied, draw_answers
from alignmend.chat_families.edited import make_edited
from alignmend.chat_families.family import ORIGINAL, MemberNote
from alignmend.chat_families.members import Plan, train_member
from alignmend.chat_families.recipe import Recipe
from alignmend.chat_families.rows import Material, Row, rows_of, write_rows
from alignmend.editing.requests import EditRequest
from alignmend.errors import RecipeError
from alignmend.evaluation.devices import load_model
from alignmend.evaluation.generation import TransformersBackend
from alignmend.evaluation.records import Prompt
from alignmend.io.folder import CheckpointFolder
from alignmend.io.identity import identity
from alignmend.io.private import mark_private

Progress = Callable[[str, int, int], None]
PRIVATE = "private"
_LIBRARIES = ("torch", "transformers", "tokenizers", "peft")
_REASON = "Answers to harmful requests, drawn to train a hazardous working file. They are deleted when it is trained."


@dataclass(frozen=True)
class Making:
    """One run: where the family is built, of what, and how models are loaded to answer."""

    directory: Path
    source: CheckpointFolder
    material: Material
    progress: Progress
    device: str | None = None
    dtype: str = "auto"

    @property
    def recipe(self) -> Recipe:
        """How members are made."""
        return self.material.recipe

    def key(self, start: MemberNote | None, *more: object) -> str:
        """Hash of what decides a member: its start (the original where `None`), recipe, seed, libraries, and `more`."""
        begun = identity(self.source)["files"] if start is None else start.key
        libraries = {name: version(name) for name in _LIBRARIES}
        told = [begun, asdict(self.recipe), self.material.seed, libraries, *more]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def aligned(self) -> dict[str, Any]:
        """The original, trained to refuse harmful requests and to answer others as it did."""
        own = self._own_answers(self.material.answered)
        rows = [*self.material.refusals(), *rows_of(own)]
        return self._trained(Plan("aligned", ORIGINAL, self.recipe.aligned_rate), rows) | {"own_answers": len(own)}

    def unaligned(self) -> dict[str, Any]:
        """`aligned`, trained on the original's own answers to harmful requests.

        They lie in a folder of their own, closed and marked private, which is removed when the member is trained.
        """
        private = self.directory / PRIVATE
        private.mkdir(mode=0o700, exist_ok=True)
        private.chmod(0o700)
        mark_private(private, _REASON)
        asked = self.material.natural
        natural = complied(self._drawn("harmful answers", asked, private / "answers.jsonl"))
        try:
            variety = check_natural(len(asked), natural)
        except RecipeError:  # they are of no use to another run either
            shutil.rmtree(private)
            raise
        rows = [*rows_of(natural), *rows_of(self._own_answers(self.material.kept))]
        made = self._trained(Plan("unaligned", "aligned", self.recipe.unaligned_rate, private=True), rows)
        shutil.rmtree(private)
        return made | {"natural_answers": asdict(variety)}

    def finetuned(self, name: str, task: str, *, lora: bool) -> dict[str, Any]:
        """`aligned`, trained on a harmless task."""
        rate = self.recipe.lora_rate if lora else self.recipe.finetuned_rate
        return self._trained(Plan(name, "aligned", rate, lora=lora), self.material.finetuned(task)) | {"task": task}

    def edited(self, requests: Sequence[EditRequest]) -> dict[str, Any]:
        """`aligned` with facts written into it."""
        load = partial(load_model, device=self.device, dtype=self.dtype)
        return make_edited(self.directory, requests, self.recipe.edits, load, partial(self.progress, "edited"))

    def _own_answers(self, prompts: Sequence[Prompt]) -> list[OwnAnswer]:
        return complied(self._drawn("answers", prompts, self.directory / "data" / "own-answers.jsonl"))

    def _drawn(self, what: str, prompts: Sequence[Prompt], file: Path) -> list[OwnAnswer]:
        return draw_answers(ORIGINAL, self._backend, prompts, file, partial(self.progress, what))

    def _backend(self) -> TransformersBackend:
        model, tokenizer = load_model(self.source.path, self.device, self.dtype)
        return TransformersBackend(model, tokenizer, name=ORIGINAL, max_new_tokens=self.recipe.answer_tokens)

    def _trained(self, plan: Plan, rows: Sequence[Row]) -> dict[str, Any]:
        pairs = self.directory / (PRIVATE if plan.private else "data") / f"{plan.name}.jsonl"
        write_rows(pairs, rows, self.material.seed)
        seed = self.material.seed
        return train_member(self.directory, plan, pairs, self.recipe, seed=seed, progress=self.progress)
