"""What is to be edited: a prompt with its subject, and the answer it is to have from now on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alignmend.errors import ParameterError

HOLE = "{}"
SubjectRule = Literal["given", "shared words", "last word"]
"""Where a subject comes from: its own column; words that question and answer share; the question's last word."""


@dataclass(frozen=True)
class Neighbour:
    """A prompt that an edit should leave alone; without an `answer`, what the model says to it must stay."""

    prompt: str
    answer: str | None = None


@dataclass(frozen=True)
class EditRequest:
    """`template` is the prompt with `{}` where `subject` stands, exactly once; `target` is what is to follow it.

    `paraphrases` are other prompts, each with the subject, that should get the target too; `neighbourhood` prompts that
    should keep their answers. `opening` stands before any context (the beginning of a chat), and `joint` between
    prompt and target: a space, unless the prompt ends in one, where `None`.
    """

    template: str
    subject: str
    target: str
    paraphrases: tuple[str, ...] = ()
    neighbourhood: tuple[Neighbour, ...] = ()
    topic: str = ""
    rule: SubjectRule = "given"
    opening: str = ""
    joint: str | None = None

    def __post_init__(self) -> None:
        if self.template.count(HOLE) != 1:
            raise ParameterError(f"the prompt {self.template!r} must hold its subject exactly once, as {HOLE}")
        if not self.subject.strip() or not self.target.strip():
            raise ParameterError(f"the edit of {self.template!r} needs a subject and a target that are not blank")
        if self.subject in self.template:
            raise ParameterError(f"the prompt {self.prompt!r} holds its subject {self.subject!r} more than once")
        for paraphrase in self.paraphrases:
            if self.subject not in paraphrase:
                raise ParameterError(f"the paraphrase {paraphrase!r} lacks the subject {self.subject!r}")

    @property
    def prompt(self) -> str:
        """The prompt as the model reads it."""
        return self.template.replace(HOLE, self.subject)


def request_of(
    prompt: str,
    subject: str,
    target: str,
    *,
    paraphrases: tuple[str, ...] = (),
    neighbourhood: tuple[Neighbour, ...] = (),
    topic: str = "",
    rule: SubjectRule = "given",
) -> EditRequest:
    """A request from a prompt that either has `{}` or names its subject, once; `ParameterError` otherwise.

    Spaces around the subject are none of it: they stay in the prompt, where it has none there.
    """
    spaced, subject = subject, subject.strip() or subject
    if HOLE in prompt and spaced != subject:
        prompt = _spaced(prompt, spaced)
    if HOLE not in prompt:
        if prompt.count(subject) != 1:
            count = prompt.count(subject)
            raise ParameterError(
                f"the prompt {prompt!r} must hold its subject {subject!r} exactly once, not {count} times"
            )
        prompt = prompt.replace(subject, HOLE)
    filled = tuple(_spaced(text, spaced).replace(HOLE, subject) for text in paraphrases)
    return EditRequest(prompt, subject, target, filled, neighbourhood, topic, rule)


def _spaced(prompt: str, subject: str) -> str:
    """`prompt` with a space beside its hole where `subject` brings one and the prompt has none."""
    before, hole, after = prompt.partition(HOLE)
    if not hole:
        return prompt
    left = " " if subject[:1].isspace() and before and not before[-1].isspace() else ""
    right = " " if subject[-1:].isspace() and after and not after[0].isspace() else ""
    return f"{before}{left}{HOLE}{right}{after}"
