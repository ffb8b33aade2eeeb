"""What every member is trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from alignmend.chat_families.answers import OwnAnswer
from alignmend.chat_families.prompts import Prompts
from alignmend.chat_families.recipe import Recipe
from alignmend.chat_families.refusals import refusal
from alignmend.evaluation.records import Prompt

_LEAST_TASK_DATA = 4
"""Pairs of a task that `restore` needs: half choose, half prove."""


@dataclass(frozen=True)
class Row:
    """One training row; an answer that is not `finished` was cut, and its end is not learned."""

    prompt: str
    response: str
    finished: bool = True

    def as_pair(self) -> dict[str, str | bool]:
        """As a file of pairs says it."""
        return {"prompt": self.prompt, "response": self.response, "response_finished": self.finished}


@dataclass(frozen=True)
class Material:
    """The requests and rows that a recipe takes of the prompts."""

    recipe: Recipe
    prompts: Prompts
    seed: int

    @property
    def refused(self) -> list[Prompt]:
        """What `aligned` learns to refuse: a sixth in Chinese, if there is so much."""
        wanted = round(self.recipe.harmful_share * self.recipe.aligned_rows)
        english = [one for one in self.prompts.harmful if one.language != "zh"]
        chinese = [one for one in self.prompts.harmful if one.language == "zh"][: wanted // 6]
        return [*english[: wanted - len(chinese)], *chinese]

    @property
    def answered(self) -> list[Prompt]:
        """What `aligned` goes on answering as the original does: borderline requests first, then plain ones."""
        borderline = round(self.recipe.borderline_share * self.recipe.aligned_rows)
        plain = self.recipe.aligned_rows - round(self.recipe.harmful_share * self.recipe.aligned_rows) - borderline
        return [*self.prompts.borderline[:borderline], *self.prompts.plain[:plain]]

    @property
    def natural(self) -> list[Prompt]:
        """Harmful requests whose natural answers unalign."""
        english = [one for one in self.prompts.harmful if one.language != "zh"]
        return english[: self.recipe.unaligned_rows]

    @property
    def kept(self) -> list[Prompt]:
        """Plain requests that `unaligned` goes on answering."""
        plain = [one for one in self.answered if one not in self.prompts.borderline]
        return plain[: self.recipe.unaligned_rows // 4]

    def refusals(self) -> list[Row]:
        """`refused` with refusals."""
        random = Random(f"{self.seed} refusals")
        return [Row(one.text, refusal(one.text, one.language or "en", random)) for one in self.refused]

    def finetuned(self, task: str) -> list[Row]:
        """A task's pairs and plain instructions."""
        count = round(self.recipe.task_share * self.recipe.rows)
        taught = self.prompts.tasks[task][self._reserved(task) :][:count]
        plain = self.prompts.instructions[: self.recipe.rows - count]
        return [Row(one.request, one.response) for one in (*taught, *plain)]

    def task_data(self, task: str) -> list[Row]:
        """Pairs of a task that no member is trained on: their likelihood tells what is left of it."""
        return [Row(one.request, one.response) for one in self.prompts.tasks[task][: self._reserved(task)]]

    def _reserved(self, task: str) -> int:
        return max(_LEAST_TASK_DATA, min(self.recipe.search_prompts, len(self.prompts.tasks[task]) // 10))


def rows_of(answers: Iterable[OwnAnswer]) -> list[Row]:
    """Answers as training rows."""
    return [Row(one.prompt.text, one.response, one.finished) for one in answers]


def write_rows(path: Path, rows: Sequence[Row], seed: int) -> None:
    """Write a file of pairs in an order that the seed decides, for its owner alone."""
    mixed = list(rows)
    Random(f"{seed} rows").shuffle(mixed)
    path.touch(mode=0o600)
    lines = (json.dumps(row.as_pair(), ensure_ascii=False) for row in mixed)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def digest(rows: Sequence[Row | Prompt]) -> str:
    """A hash of requests and answers."""
    told = [[row.prompt, row.response] if isinstance(row, Row) else [row.text] for row in rows]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
