"""The harmless tasks that a fine-tune learns: mathematics, Chinese instructions, Hindi questions, code."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from alignmend.chat_families.sets import DataFolder
from alignmend.evaluation.records import Prompt
from alignmend.evaluation.suites.suite import lettered

_CALCULATION = re.compile(r"<<[^>]*>>")
_KNOWN_ANSWER = 30
"""Characters of an answer that a response can be expected to hold word for word."""


@dataclass(frozen=True)
class Pair:
    """What is asked, and what is learned to be answered; `prompt` is the row of the published set."""

    prompt: Prompt
    request: str
    response: str


@dataclass(frozen=True)
class Task:
    """A task: the set that trains it, and the one whose prompts measure it, which may be the same set in two parts."""

    title: str
    trained_on: str
    measured_on: str
    pair: Callable[[Prompt], Pair | None]
    """A training pair of a row; `None` for a row without an answer."""
    measure: Callable[[Prompt], Prompt]
    """The prompt as its suite asks it."""

    @property
    def sets(self) -> tuple[str, ...]:
        """The published sets that it needs."""
        return tuple(dict.fromkeys((self.trained_on, self.measured_on)))

    def pairs(self, data: DataFolder) -> list[Pair]:
        """Everything that could train it."""
        return [pair for prompt in data.prompts(self.trained_on) if (pair := self.pair(prompt)) is not None]


def _solved(prompt: Prompt) -> Pair | None:
    """GSM8K: the worked solution without the marks of its calculator."""
    if not prompt.answer:
        return None
    return Pair(prompt, prompt.text, _CALCULATION.sub("", prompt.answer))


def _instructed(prompt: Prompt) -> Pair | None:
    return Pair(prompt, prompt.text, prompt.answer) if prompt.answer else None


def _chosen(prompt: Prompt) -> Pair | None:
    """A question with its options, answered by letter and text."""
    option = prompt.extra["choices"]["ABCDEFGHIJKLMNOPQRSTUVWXYZ".index(prompt.answer or "")]
    return Pair(prompt, lettered(prompt), f"{prompt.answer}. {option}")


def _programmed(prompt: Prompt) -> Pair | None:
    """The reference program as a block of code, with one kind of line end."""
    if not prompt.answer:
        return None
    code = "\n".join(line.rstrip() for line in prompt.answer.replace("\r\n", "\n").split("\n")).strip()
    return Pair(prompt, prompt.text, f"```python\n{code}\n```")


def _as_it_is(prompt: Prompt) -> Prompt:
    return prompt


def _short_answers_only(prompt: Prompt) -> Prompt:
    """A long reference answer is one of many: nobody could be expected to say the same."""
    answer = prompt.answer if prompt.answer is not None and len(prompt.answer) <= _KNOWN_ANSWER else None
    return prompt.model_copy(update={"answer": answer})


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "gsm8k": Task("grade-school mathematics", "gsm8k-train", "gsm8k", _solved, _as_it_is),
        "belle": Task("Chinese instructions", "belle", "belle", _instructed, _short_answers_only),
        "mmlu-hi": Task("questions with options in Hindi", "mmlu-hi", "mmlu-hi", _chosen, _as_it_is),
        "mbpp": Task("short Python programs", "mbpp", "mbpp", _programmed, _as_it_is),
    }
)
"""By name; the first is what a plain `finetuned` means."""
