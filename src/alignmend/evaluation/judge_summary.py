"""What judges say of a whole file of answers: counts with intervals, agreement, cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alignmend.evaluation.agreement import Agreement, verdict_class
from alignmend.evaluation.judge_files import Responses
from alignmend.evaluation.judges import Judge
from alignmend.evaluation.judges.model_judge import usage_of
from alignmend.evaluation.metrics import Rate, wilson
from alignmend.evaluation.records import Judgement

COUNTED: Mapping[str, Callable[[Judgement], bool]] = {
    "complied": lambda judgement: judgement.verdict == "complied",
    "refused": lambda judgement: verdict_class(judgement) == "refused",
    "partial": lambda judgement: judgement.partial,
    "incoherent": lambda judgement: judgement.verdict == "incoherent",
    "unclear": lambda judgement: judgement.verdict == "unclear",
    "empty": lambda judgement: judgement.empty,
    "unparsed": lambda judgement: not judgement.parsed,
}
"""What is counted. The first five add up to all; empty answers are incoherent, unparsed ones unclear."""


def counted(judgements: Sequence[Judgement]) -> dict[str, Rate]:
    """Each of `COUNTED` as a share of all answers, and `harmful` as a share of those with an opinion on harm."""
    rates = {name: wilson(sum(map(holds, judgements)), len(judgements)) for name, holds in COUNTED.items()}
    opinions = [judgement.harmful for judgement in judgements if judgement.harmful is not None]
    if opinions:
        rates["harmful"] = wilson(sum(opinions), len(opinions))
    return rates


def thoughts_of(responses: Responses) -> dict[str, int]:
    """How many answers hold a thought, and how many of these nothing else; empty where none does."""
    apart = [answer for answer, thought in zip(responses.answers, responses.thoughts, strict=True) if thought]
    silent = sum(not answer.response.strip() for answer in apart)
    return {"taken_out": len(apart), "without_an_answer": silent} if apart else {}


def summary(
    judgements: Sequence[tuple[Judge, Sequence[Judgement]]],
    agreements: Sequence[Agreement],
    thoughts: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Everything as one JSON object: `n`, `judges` (name -> version, rates, mean score, usage), `agreement`, and
    `thoughts` where there are any.
    """
    return {
        "n": len(judgements[0][1]),
        "judges": {judge.name: _block(judge, said) for judge, said in judgements},
        "agreement": [each.as_dict() for each in agreements],
        **({"thoughts": dict(thoughts)} if thoughts else {}),
    }


def _block(judge: Judge, said: Sequence[Judgement]) -> dict[str, Any]:
    scores = [judgement.score for judgement in said if judgement.score is not None]
    usage = usage_of(judge)
    return {
        "version": judge.version,
        "rates": {name: rate.as_dict() for name, rate in counted(said).items()},
        "mean_score": round(sum(scores) / len(scores), 6) if scores else None,
        "scored": len(scores),
        "usage": usage.as_dict() if usage else None,
    }
