"""Refusal judges beside people: how well phrase lists and this project's rule tell refusals, on labelled answers.

Needs local copies of XSTest's labelled answers (Röttger et al. 2024) in `$ALIGNMEND_DATA` or beside the project, which
the project does not ship.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignmend.evaluation.agreement import cohens_kappa
from alignmend.evaluation.judges import Answer, Judge, get_judge, list_rule_judges
from alignmend.evaluation.judges.phrase_rules import refusal_rules
from alignmend.evaluation.judges.refusal_phrases import RefusalRuleJudge
from alignmend.evaluation.records import Judgement, Prompt
from studies.judge_answers import composed
from studies.judge_groups import (
    counted,
    group_table,
    held_out_english,
    held_out_languages,
    language_table,
    right,
    seen_answers,
)
from studies.judge_points import LABELS, Labelled, fitted
from studies.judge_training import trained

MODELS = {"Llama 2": "xstest_labelled_llama2new.jsonl", "Mistral": "xstest_labelled_mistralinstruct.jsonl"}
COMPLIED, PARTIAL, REFUSED = range(3)
CLASSES = ("complied", "in part", "refused", "none")
"""What a judge can say, by the number that `said` gives; `none` is incoherent or unclear."""
FIGURES = "| accuracy | balanced accuracy | macro-F1 of three | kappa of three |"
UNSEEN = {
    "GPT-4": "xstest_labelled_gpt4.jsonl",
    "Llama 2, original system prompt": "xstest_labelled_llama2orig.jsonl",
    "Mistral with guardrail": "xstest_labelled_mistralguard.jsonl",
}
"""No answer of these was used to make anything."""
CASES = Path(__file__).parents[2] / "shared" / "cases" / "evaluation"
"""Answers written for this purpose that were seen while phrases and texts were written."""


def data_folder() -> Path:
    """Where local copies of published sets are."""
    return Path(os.environ.get("ALIGNMEND_DATA", Path(__file__).parents[2] / "shared" / "data"))


def read_labelled(path: Path) -> list[Labelled]:
    """Answers with people's labels, from JSONL with `prompt`, `response` and `label`."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [Labelled(row["prompt"], row["response"], row["label"]) for row in rows]


@dataclass(frozen=True)
class Scores:
    """How a judge agrees with people. `table` has a row per label and a column per class of `CLASSES`.

    `accuracy` and `balanced` are of refused (in part or not) against complied, partial refusals left out; `macro_f1`
    and `kappa` are of all three labels. What the judge could not say counts as wrong.
    """

    table: tuple[tuple[int, ...], ...]
    accuracy: float
    majority: float
    balanced: float
    macro_f1: float
    majority_f1: float
    kappa: float


def said(judgement: Judgement) -> int:
    """The class of a judgement."""
    if judgement.verdict == "refused":
        return PARTIAL if judgement.partial else REFUSED
    return COMPLIED if judgement.verdict == "complied" else len(CLASSES) - 1


def score(judge: Judge, answers: Sequence[Labelled]) -> Scores:
    """What `judge` says of `answers` beside their labels."""
    asked = [Answer(Prompt(suite="labelled", id=str(i), text=a.prompt), a.response) for i, a in enumerate(answers)]
    table = [[0] * len(CLASSES) for _ in LABELS]
    for answer, judgement in zip(answers, judge.judge_all(asked), strict=True):
        table[LABELS.index(answer.label)][said(judgement)] += 1
    return scores_of(table)


def scores_of(table: Sequence[Sequence[int]]) -> Scores:
    """All figures, from the counts alone."""
    complied, refused = table[COMPLIED], table[REFUSED]
    right = complied[COMPLIED], refused[PARTIAL] + refused[REFUSED]
    sizes = sum(complied), sum(refused)
    labels = [sum(row) for row in table]
    square = [*([*row] for row in table), [0] * len(CLASSES)]
    return Scores(
        table=tuple(map(tuple, table)),
        accuracy=sum(right) / sum(sizes),
        majority=max(sizes) / sum(sizes),
        balanced=(right[0] / sizes[0] + right[1] / sizes[1]) / 2,
        macro_f1=sum(_f1(table, each) for each in range(len(LABELS))) / len(LABELS),
        majority_f1=2 * max(labels) / (max(labels) + sum(labels)) / len(LABELS),
        kappa=cohens_kappa(square) or 0.0,
    )


def _f1(table: Sequence[Sequence[int]], each: int) -> float:
    predicted = sum(row[each] for row in table)
    return 2 * table[each][each] / max(1, sum(table[each]) + predicted)


def tuned_on(answers: Sequence[Labelled]) -> RefusalRuleJudge:
    """The rules alone with the points of the English one fitted on `answers`, its phrases as shipped."""
    return RefusalRuleJudge("refusal-phrases", {"en": fitted(refusal_rules()["en"], answers)})


def run() -> str:
    """Every judge of phrases on the answers of `MODELS`, with labels of people."""
    folder = data_folder()
    answers = {model: read_labelled(folder / name) for model, name in MODELS.items()}
    lists = [name for name in list_rule_judges() if name.startswith("refusal-phrases")]
    lines = []
    for model, rows in answers.items():
        scored: dict[str, Scores] = {name: score(get_judge(name), rows) for name in lists}
        for other, tuning in answers.items():
            how = "in sample" if other == model else "held out"
            scored[f"own rule, points fitted on {other} ({how})"] = score(tuned_on(tuning), rows)
        lines += [f"### Answers of {model}", "", *_figures(scored), "", *_confusion(scored), ""]
    return "\n".join(lines)


def _figures(scored: Mapping[str, Scores]) -> Iterable[str]:
    any_scores = next(iter(scored.values()))
    yield "| judge " + FIGURES
    yield "| --- | --- | --- | --- | --- |"
    yield f"| always the majority | {any_scores.majority:.3f} | 0.500 | {any_scores.majority_f1:.3f} | 0.000 |"
    for name, found in scored.items():
        figures = (found.accuracy, found.balanced, found.macro_f1, found.kappa)
        yield f"| {_code(name)} | " + " | ".join(f"{figure:.3f}" for figure in figures) + " |"


def _confusion(scored: Mapping[str, Scores]) -> Iterable[str]:
    yield "| judge | " + " | ".join(f"{label}: {'/'.join(CLASSES)}" for label in LABELS) + " |"
    yield "| --- | --- | --- | --- |"
    for name, found in scored.items():
        yield f"| {_code(name)} | " + " | ".join("/".join(map(str, row)) for row in found.table) + " |"


def _code(name: str) -> str:
    return name if " " in name else f"`{name}`"


def sections() -> Mapping[str, Callable[[], str]]:
    """What stands between the marks of docs/judges.md, by their name."""
    return {"calibration": run, "directions": directions, "unseen": unseen, "written": written}


def directions() -> str:
    """The default trained anew without one model's answers, on those; it takes minutes."""
    folder, lines = data_folder(), ["| trained on | tested on " + FIGURES, "| --- | --- | --- | --- | --- | --- |"]
    answers = {model: read_labelled(folder / name) for model, name in MODELS.items()}
    for model, rows in answers.items():
        for other in answers.keys() - {model}:
            classifier = trained(rows, composed())
            judge = RefusalRuleJudge("refusal-phrases", refusal_rules(), {"en": classifier})
            lines.append(f"| {model} | {other} | {_row(score(judge, answers[other]))} |")
    return "\n".join(lines)


def unseen() -> str:
    """The default and its rules alone on the answers of `UNSEEN`."""
    lines = ["| answers of | judge " + FIGURES, "| --- | --- | --- | --- | --- | --- |"]
    scored = {
        (model, name): score(get_judge(name), read_labelled(data_folder() / file))
        for model, file in UNSEEN.items()
        for name in ("refusal-phrases", "refusal-phrases-rules")
    }
    lines += [f"| {model} | `{name}` | {_row(found)} |" for (model, name), found in scored.items()]
    shown = {model: found for (model, name), found in scored.items() if name == "refusal-phrases"}
    return "\n".join([*lines, "", *_confusion(shown)])


def written() -> str:
    """The default on answers written for this purpose, by group and language."""
    judge = get_judge("refusal-phrases")
    english = counted(judge, held_out_english())
    lines = [f"Held-out English answers: {right(english):.3f} right.", "", *group_table(english), ""]
    for how, prompts_in_english in (("prompts of the same language", False), ("English prompts", True)):
        found = counted(judge, held_out_languages(prompts_in_english=prompts_in_english))
        lines += [f"Held-out answers in other languages, {how}:", "", *language_table(found), ""]
    if CASES.is_dir():
        seen = counted(judge, seen_answers(CASES))
        lines += [f"Answers seen while texts were written: {right(seen):.3f} right.", "", *group_table(seen), ""]
    return "\n".join(lines).rstrip()


def _row(found: Scores) -> str:
    return " | ".join(f"{figure:.3f}" for figure in (found.accuracy, found.balanced, found.macro_f1, found.kappa))


def between(page: str, name: str) -> tuple[str, str, str]:
    """What is before, between and after the marks of a section."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, rest = page.split(begin)
    inside, after = rest.split(end)
    return before + begin, inside.strip(), end + after


def write(page: Path) -> None:
    """Put fresh tables between the marks in `page`; a section whose data are not there stays as it is."""
    text = page.read_text(encoding="utf-8")
    for name, made in sections().items():
        before, _, after = between(text, name)
        try:
            text = f"{before}\n\n{made()}\n\n{after}"
        except FileNotFoundError as error:
            print(f"{name}: left as it is, {error.filename} is missing")
    page.write_text(text, encoding="utf-8")
