"""Runs an evaluation: every prompt answered, every answer judged, every metric counted; in memory or in a
folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from alignmend.errors import RecipeError
from alignmend.evaluation.agreement import judge_agreements
from alignmend.evaluation.answer_notes import answer_notes
from alignmend.evaluation.answering import Counter, Progress, answer, answer_into, askable
from alignmend.evaluation.answers import is_correct
from alignmend.evaluation.generation import Backend
from alignmend.evaluation.judges import Answer, Judge
from alignmend.evaluation.metrics import ALL_SUITES, Rate, cross_table, macro_metrics, metrics_by, metrics_of
from alignmend.evaluation.overlap import Overlap, find_overlaps, near_duplicates
from alignmend.evaluation.record_files import RecordFile
from alignmend.evaluation.records import Generation, Judgement, JudgementRow, Prompt, text_hash
from alignmend.evaluation.results import judge_block, results_document, suite_blocks, write_results
from alignmend.evaluation.suites import Suite
from alignmend.evaluation.utility.code import score_code
from alignmend.evaluation.utility.sandbox import check_sandbox

Extra = Mapping[str, Mapping[str, Any]]
"""What was measured beside answers: its name in the place of a suite's -> metric -> value with interval."""
CHOSEN = Judgement(verdict="complied", evidence="chosen among options by likelihood")
Passed = Mapping[tuple[str, str], bool | None]
"""Whether the code in an answer passed its tests, by suite and prompt id."""
CODE_WORKERS = 2
GROUPS = ("category", "subcategory", "language")


@dataclass(frozen=True)
class Evaluation:
    """What one model answered on some suites, what the judge said, and the rates: suite -> metric -> rate.

    `second` holds what further judges said of the same answers, by their name.
    """

    model: str
    generations: tuple[Generation, ...]
    judgements: tuple[JudgementRow, ...]
    metrics: Mapping[str, Mapping[str, Rate]]
    second: Mapping[str, tuple[JudgementRow, ...]] = field(default_factory=dict)


def judgement_row(judge: Judge, prompt: Prompt, generation: Generation, judgement: Judgement) -> JudgementRow:
    """`judgement` by `judge` of one generation, with everything that metrics need to know."""
    return JudgementRow(
        suite=prompt.suite,
        prompt_id=prompt.id,
        prompt_hash=generation.prompt_hash,
        response_hash=text_hash(generation.response),
        model=generation.model,
        judge=judge.name,
        judge_version=judge.version,
        expected=prompt.expected,
        category=prompt.category,
        subcategory=prompt.subcategory,
        language=prompt.language,
        truncated=generation.finish_reason == "length",
        correct=is_correct(prompt, generation.response, judgement),
        **judgement.model_dump(),
    )


def evaluate(
    backend: Backend, suites: Sequence[Suite], judge: Judge, *, progress: Progress | None = None
) -> Evaluation:
    """Evaluates in memory. `progress(done, total)` is called after each batch; `suites` must have distinct
    names.
    """
    suites = askable(suites, backend)
    prompts = _prompts_of(suites)
    counter = Counter(len(prompts), progress)
    generations = answer(backend, prompts, report=counter.add)
    return _judged(backend.name, suites, prompts, generations, [judge], passed={})


def evaluate_folder(
    backend: Backend,
    suites: Sequence[Suite],
    judges: Judge | Sequence[Judge],
    folder: Path,
    *,
    used: Sequence[Suite] = (),
    run_code: bool = False,
    unsafe_local_code: bool = False,
    extra: Callable[[], Extra] | None = None,
    progress: Progress | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Evaluates into `folder`: `generations.jsonl` (written as answers come), `judgements.jsonl`,
    `results.json`.

    Answers that an interrupted run left are kept, so a resumed run makes the missing ones and ends in the
    same files. Of several judges the first makes the rates. `used` are suites that trained, fitted or chose anything of
    the model: what they share with `suites` is told in the results. `run_code` runs the code in answers to prompts that
    are scored so, in a sandbox or not at all (`SandboxError`), unless `unsafe_local_code`. `extra`, called after the
    answers, gives what else was measured.
    """
    suites = askable(suites, backend)
    prompts = _prompts_of(suites)
    several = _distinct(judges)
    runs_code = (run_code or unsafe_local_code) and any(prompt.scoring == "code" for prompt in prompts)
    if runs_code and not unsafe_local_code:
        check_sandbox()
    overlaps = {
        "used": [each.as_dict() for each in (find_overlaps(used, suites) if used else ())],
        "reported": [each.as_dict() for each in _doubles(suites)],
    }
    generations = answer_into(folder, backend, prompts, progress)
    passed = _passed(prompts, generations, unsafe=unsafe_local_code) if runs_code else {}
    evaluation = _judged(backend.name, suites, prompts, generations, several, passed=passed)
    with RecordFile(folder / "judgements.jsonl", JudgementRow) as file:
        rows = [*evaluation.judgements, *chain.from_iterable(evaluation.second.values())]
        file.append(rows)
        file.finish([row.key for row in rows])
    others = {judge.name: judge for judge in several[1:]}
    document = results_document(
        {evaluation.model: {**evaluation.metrics, **(extra() if extra is not None else {})}},
        judge=judge_block(several[0]),
        suites=suite_blocks(suites),
        groups={evaluation.model: grouped_metrics(evaluation, suites)},
        judges={name: _by_other(judge, evaluation, suites) for name, judge in others.items()},
        cross={evaluation.model: cross} if (cross := _cross(evaluation, suites)) else None,
        agreement=_agreement(evaluation, several) if others else (),
        overlap={found: rows for found, rows in overlaps.items() if rows},
        tuned_on=[{"suite": suite.name, "use": "tuning", "sha256": suite.content_hash} for suite in used],
        provenance=_with_notes({**_provenance(generations), **(provenance or {})}, answer_notes(generations)),
    )
    write_results(folder / "results.json", document)
    return evaluation


def _with_notes(provenance: Mapping[str, Any], notes: Sequence[str]) -> dict[str, Any]:
    found = [*provenance.get("notes", ()), *notes]
    return {**provenance, "notes": found} if found or "notes" in provenance else dict(provenance)


def _metrics(rows: Sequence[JudgementRow], suite: Suite) -> dict[str, Rate]:
    of_suite = [row for row in rows if row.suite == suite.name]
    return metrics_of(of_suite) | macro_metrics(of_suite)


def _cross(evaluation: Evaluation, suites: Sequence[Suite]) -> dict[str, dict[str, dict[str, int]]]:
    by_suite = {suite.name: [row for row in evaluation.judgements if row.suite == suite.name] for suite in suites}
    return {name: cross_table(rows) for name, rows in by_suite.items() if any(row.harmful is not None for row in rows)}


def _by_other(judge: Judge, evaluation: Evaluation, suites: Sequence[Suite]) -> dict[str, Any]:
    rows = evaluation.second[judge.name]
    metrics = {suite.name: _metrics(rows, suite) for suite in suites}
    return {"version": judge.version, "models": {evaluation.model: metrics}}


def _agreement(evaluation: Evaluation, judges: Sequence[Judge]) -> list[dict[str, Any]]:
    """Of every two judges; differences are told by suite and prompt id."""
    rows = evaluation.judgements
    found = judge_agreements({judges[0].name: rows, **evaluation.second})
    told = [[[rows[place].suite, rows[place].prompt_id] for place in each.differences] for each in found]
    return [each.as_dict() | {"differences": where} for each, where in zip(found, told, strict=True)]


def _provenance(generations: Sequence[Generation]) -> dict[str, Any]:
    """How the answers were made, from the answers themselves."""
    asked = sorted({(row.template, row.sampling) for row in generations})
    return {
        "model_hash": generations[0].model_hash,
        "asked": [{"template": template, "sampling": sampling} for template, sampling in asked],
    }


def grouped_metrics(
    evaluation: Evaluation, suites: Sequence[Suite]
) -> dict[str, dict[str, dict[str, dict[str, Rate]]]]:
    """Suite -> `category`, `subcategory` or `language` -> group -> metric -> rate, where the suite has such
    columns.
    """
    return {suite.name: found for suite in suites if (found := _groups_of(evaluation, suite))}


def _groups_of(evaluation: Evaluation, suite: Suite) -> dict[str, dict[str, dict[str, Rate]]]:
    rows = [row for row in evaluation.judgements if row.suite == suite.name]
    columns = {column: {p.id: getattr(p, column) for p in suite.prompts} for column in GROUPS}
    return {
        column: metrics_by(rows, {key: value or "none" for key, value in group_of.items()})
        for column, group_of in columns.items()
        if any(group_of.values())
    }


def _prompts_of(suites: Sequence[Suite]) -> list[Prompt]:
    names = [suite.name for suite in suites]
    if not names or len(set(names)) < len(names) or ALL_SUITES in names:
        raise RecipeError(
            f"an evaluation needs one or more suites with distinct names other than {ALL_SUITES!r}, not {names}"
        )
    return [prompt for suite in suites for prompt in suite.prompts]


def _doubles(suites: Sequence[Suite]) -> list[Overlap]:
    """Prompts that two of the suites share, nearly or exactly; the same requests in another wrapping do not count."""
    plain = [suite for suite in suites if suite.transform is None]
    return [each for each in near_duplicates(plain) if each.suite != each.other_suite] if len(plain) > 1 else []


def _distinct(judges: Judge | Sequence[Judge]) -> Sequence[Judge]:
    several = judges if isinstance(judges, Sequence) else [judges]
    names = [judge.name for judge in several]
    if not names or len(set(names)) < len(names):
        raise RecipeError(f"an evaluation needs one or more different judges, not {names}")
    return several


def _judged(
    model: str,
    suites: Sequence[Suite],
    prompts: Sequence[Prompt],
    generations: Sequence[Generation],
    judges: Sequence[Judge],
    *,
    passed: Passed,
) -> Evaluation:
    first, *others = ((judge.name, _rows_of(judge, prompts, generations, passed)) for judge in judges)
    rows = first[1]
    metrics = {suite.name: _metrics(rows, suite) for suite in suites}
    return Evaluation(model, tuple(generations), rows, metrics, dict(others))


def _passed(prompts: Sequence[Prompt], generations: Sequence[Generation], *, unsafe: bool) -> Passed:
    """Whether the code in each answer passed its tests, by suite and prompt id."""
    responses = [generation.response for generation in generations]
    outcomes = score_code(prompts, responses, workers=CODE_WORKERS, unsafe=unsafe)
    return {(prompt.suite, prompt.id): passed for prompt, passed in zip(prompts, outcomes, strict=True)}


def _rows_of(
    judge: Judge, prompts: Sequence[Prompt], generations: Sequence[Generation], passed: Passed
) -> tuple[JudgementRow, ...]:
    """What was chosen among options is no writing: a judge is not asked about it."""
    pairs = list(zip(prompts, generations, strict=True))
    answers = [Answer(p, g.response, g.finish_reason) for p, g in pairs if g.scores is None]
    said = iter(judge.judge_all(answers))
    judgements = [CHOSEN if generation.scores is not None else next(said) for _, generation in pairs]
    rows = (judgement_row(judge, p, g, j) for (p, g), j in zip(pairs, judgements, strict=True))
    return tuple(_with_code(row, passed) for row in rows)


def _with_code(row: JudgementRow, passed: Passed) -> JudgementRow:
    outcome = passed.get((row.suite, row.prompt_id))
    return row if outcome is None else row.model_copy(update={"correct": outcome})
