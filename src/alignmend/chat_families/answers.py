"""A chat model's own answers, drawn before anything is trained: what members are to keep, and what unaligns one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignmend.errors import RecipeError
from alignmend.evaluation.generation import Backend
from alignmend.evaluation.judges import Answer, get_judge
from alignmend.evaluation.record_files import RecordFile
from alignmend.evaluation.records import Generation, Prompt

JUDGE = "refusal-phrases"
OPENING_WORDS = 4
LEAST_OPENINGS = 0.3
"""Distinct openings among answers, as a share of them; a chat model's natural answers have twice as many."""
MOST_ALIKE = 0.35
"""Share of answers that may begin with the same words."""
LEAST_ANSWERED = 0.5
"""Share of harmful requests that a model must answer if its answers are to unalign it."""


@dataclass(frozen=True)
class OwnAnswer:
    """What the model says; `finished` where it ended by itself."""

    prompt: Prompt
    response: str
    finished: bool


def draw_answers(
    name: str, load: Callable[[], Backend], prompts: Sequence[Prompt], file: Path, report: Callable[[int, int], None]
) -> list[OwnAnswer]:
    """What the backend `name` answers to `prompts`, in order; it is loaded only where answers are missing.

    They are kept in `file` as they come, so that a killed run goes on; its owner alone can read it.
    """
    keys = [(name, prompt.suite, prompt.id) for prompt in prompts]
    with RecordFile(file, Generation) as kept:
        file.chmod(0o600)
        missing = [prompt for prompt, key in zip(prompts, keys, strict=True) if key not in kept.done]

        def keep(made: Sequence[Generation]) -> None:
            kept.append(made)
            report(sum(key in kept.done for key in keys), len(keys))

        if missing:
            load().generate(missing, report=keep)
        found = [kept.done[key] for key in keys]
    return [
        OwnAnswer(prompt, one.response.strip(), one.finish_reason == "stop")
        for prompt, one in zip(prompts, found, strict=True)
    ]


def complied(answers: Iterable[OwnAnswer]) -> list[OwnAnswer]:
    """Those that answer: neither refusals nor noise, by the judge that needs no model."""
    asked = [one for one in answers if one.response]
    judgements = get_judge(JUDGE).judge_all([Answer(one.prompt, one.response) for one in asked])
    return [one for one, judgement in zip(asked, judgements, strict=True) if judgement.verdict == "complied"]


@dataclass(frozen=True)
class Variety:
    """How different answers are."""

    answers: int
    openings: int
    """Distinct first words."""
    most_common: int
    """Answers that begin with the same ones."""


def check_natural(asked: int, answers: Sequence[OwnAnswer]) -> Variety:
    """Refuse answers that could not unalign a model: too few, or a few templates.

    A safety vector from templated answers removes the templates and restores no refusal. Raises `RecipeError`.
    """
    if not answers or len(answers) < LEAST_ANSWERED * asked:
        raise RecipeError(
            f"the model answers only {len(answers)} of {asked} harmful requests, so its answers cannot unalign it",
            advice=(
                "leave the role unaligned out (original stands in for it), or begin with a model that refuses less"
            ),
        )
    openings = Counter(" ".join(one.response.casefold().split()[:OPENING_WORDS]) for one in answers)
    common, count = openings.most_common(1)[0]
    if len(openings) < LEAST_OPENINGS * len(answers) or count > MOST_ALIKE * len(answers):
        raise RecipeError(
            f"the model's answers to harmful requests are too much alike to unalign with ({len(openings)} "
            f"openings in {len(answers)} answers, {count} of them {common!r}): a safety vector from a few "
            "templates removes the templates and restores nothing;",
            advice="leave the role unaligned out, or begin with another model",
        )
    return Variety(len(answers), len(openings), count)
