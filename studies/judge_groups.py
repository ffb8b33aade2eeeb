"""The default judge on answers written for this purpose, by group and by language.

`judge_texts/held_out_*.json` were written before anything was tuned, and looked at by nobody while it was. The answers
in `shared/cases/evaluation`, where that folder is, were seen while phrases were written.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignmend.evaluation.judges import Judge
from alignmend.evaluation.judges.registry import Answer
from alignmend.evaluation.records import Judgement, Prompt
from studies.judge_answers import bank
from studies.judge_points import LABELS

SAID = ("complied", "in part", "refused", "unclear", "incoherent")
RIGHT = dict(zip(LABELS, SAID, strict=False))
Counts = Mapping[tuple[str, str], Mapping[str, int]]
"""(group, label) -> how often the judge said what."""


@dataclass(frozen=True)
class Written:
    """An answer with its group (or language) and label."""

    group: str
    prompt: str
    response: str
    label: str


def held_out_english() -> list[Written]:
    """Whole answers in English, by group."""
    found = bank("held_out_en")
    return [
        Written(group, prompt, response, each["label"])
        for group, each in found.items()
        for prompt, response in each["answers"]
    ]


def held_out_languages(*, prompts_in_english: bool = False) -> list[Written]:
    """Short refusals and answers by language; `unknown` are sixteen languages without a rule."""
    english = bank("held_out_languages")["unknown"]["prompt"]
    return [
        Written(language, english if prompts_in_english else each["prompt"], response, label)
        for language, each in bank("held_out_languages").items()
        for kind, label in (("refusals", "full_refusal"), ("compliances", "full_compliance"))
        for response in each[kind]
    ]


def seen_answers(folder: Path) -> list[Written]:
    """The answers and short refusals of `shared/cases/evaluation`; reasoning before an answer is another's task."""
    found = []
    for name, key in (("answers.jsonl", "group"), ("short_refusals.jsonl", "lang")):
        for row in map(json.loads, (folder / name).read_text(encoding="utf-8").splitlines()):
            group = row[key] if key == "group" else f"short {row[key]}"
            if group != "thinking":
                found.append(Written(group, row["prompt"], row["response"], row["label"]))
    return found


def said(judgement: Judgement) -> str:
    """One of `SAID`."""
    if judgement.verdict == "refused":
        return "in part" if judgement.partial else "refused"
    return judgement.verdict


def counted(judge: Judge, answers: Sequence[Written]) -> Counts:
    """What the judge says of each group and label."""
    asked = [Answer(Prompt(suite="written", id=str(i), text=a.prompt), a.response) for i, a in enumerate(answers)]
    found: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: dict.fromkeys(SAID, 0))
    for answer, judgement in zip(answers, judge.judge_all(asked), strict=True):
        found[answer.group, answer.label][said(judgement)] += 1
    return found


def right(counts: Counts) -> float:
    """The share of answers with the label's own verdict."""
    hits = sum(each[RIGHT[label]] for (_, label), each in counts.items())
    return hits / sum(sum(each.values()) for each in counts.values())


def balanced(counts: Counts, group: str) -> float:
    """The mean of how many refusals are refused (in part or not) and how many answers complied."""
    refusals, answers = counts[group, "full_refusal"], counts[group, "full_compliance"]
    refused = (refusals["refused"] + refusals["in part"]) / max(1, sum(refusals.values()))
    return (refused + answers["complied"] / max(1, sum(answers.values()))) / 2


def group_table(counts: Counts) -> Iterable[str]:
    """A row for each group and label."""
    yield "| group | label | n | " + " | ".join(SAID) + " |"
    yield "| --- | --- | --- |" + " --- |" * len(SAID)
    for (group, label), each in counts.items():
        cells = " | ".join(str(each[name]) for name in SAID)
        yield f"| {group} | {label.replace('_', ' ')} | {sum(each.values())} | {cells} |"


def language_table(counts: Counts) -> Iterable[str]:
    """A row for each language: refusals and answers apart."""
    yield (
        "| language | refusals: refused/in part/unclear/complied | answers: complied/unclear/refused "
        "| balanced accuracy |"
    )
    yield "| --- | --- | --- | --- |"
    for group in dict.fromkeys(group for group, _ in counts):
        refusals, answers = counts[group, "full_refusal"], counts[group, "full_compliance"]
        first = "/".join(str(refusals[name]) for name in ("refused", "in part", "unclear", "complied"))
        second = f"{answers['complied']}/{answers['unclear']}/{answers['refused'] + answers['in part']}"
        share = "all are to be unclear" if group == "unknown" else f"{balanced(counts, group):.2f}"
        yield f"| {group} | {first} | {second} | {share} |"
