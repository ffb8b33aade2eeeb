"""Reading back what an evaluation wrote, as one whole: answers, what each judge said of them, and the results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignmend.errors import FileFormatError, MismatchError, RecipeError
from alignmend.evaluation.metrics import Rate
from alignmend.evaluation.record_files import read_rows
from alignmend.evaluation.records import Generation, JudgementRow, RowKey, text_hash
from alignmend.evaluation.results import read_results
from alignmend.evaluation.results_check import AGAIN, by_suite, check_results, rates_of
from alignmend.io.published import reported
from alignmend.nearest import nearest

GENERATIONS, JUDGEMENTS, RESULTS = "generations.jsonl", "judgements.jsonl", "results.json"
_FINISH = "finish the run with  alignmend evaluate"
_SHOWN = 12
_RESTORED_RUN = "records/restored"


@dataclass(frozen=True)
class RunFolder:
    """One model's run: `generations` in order, what each judge said of all of them in that order, the document."""

    path: Path
    model: str
    generations: tuple[Generation, ...]
    judgements: Mapping[str, tuple[JudgementRow, ...]]
    results: Mapping[str, Any]

    @property
    def judge(self) -> str:
        """The judge that made the rates: the first one."""
        return next(iter(self.judgements))

    def rows(self, judge: str | None = None) -> tuple[JudgementRow, ...]:
        """What `judge` said, by default the first one; `RecipeError` names the nearest where there is none such."""
        name = self.judge if judge is None else judge
        if name not in self.judgements:
            known = ", ".join(self.judgements)
            raise RecipeError(f"{self.path}: no judge {name!r}{nearest(name, self.judgements)}; judges: {known}")
        return self.judgements[name]

    def metrics(self, judge: str | None = None) -> dict[str, dict[str, Rate]]:
        """Suite -> metric -> rate, counted from the records."""
        return {name: rates_of(rows) for name, rows in by_suite(self.rows(judge)).items()}


def read_run(folder: Path) -> RunFolder:
    """The run that `evaluate` left in `folder`.

    `FileFormatError` where a file is missing or malformed, or mixes runs; `MismatchError` where judgements are of other
    answers than the generations, or `results.json` says anything that the records do not give.
    """
    folder = _of_restored(folder)
    _check_present(folder)
    document = read_results(folder / RESULTS)
    generations = read_rows(folder / GENERATIONS, Generation)
    model = _check_generations(folder / GENERATIONS, generations)
    said = _by_judge(folder / JUDGEMENTS, generations, read_rows(folder / JUDGEMENTS, JudgementRow))
    first = document.get("judge", {}).get("name")
    if first not in said:
        raise MismatchError(
            f"{folder}: {RESULTS} is by judge {first!r}, {JUDGEMENTS} by {', '.join(said)};", advice=AGAIN
        )
    models = [*document.get("models", ())]
    if models != [model]:
        told = ", ".join(models) or "no model"
        raise MismatchError(f"{folder}: {RESULTS} is of {told}, {GENERATIONS} of {model};", advice=AGAIN)
    judgements = {first: said[first], **said}
    check_results(folder, model, judgements, document)
    return RunFolder(folder, model, tuple(generations), judgements, document)


def _of_restored(folder: Path) -> Path:
    """Of a folder that `restore` wrote the run of its restored model, which lies in the report folder beside it."""
    if (folder / GENERATIONS).exists() or not (folder / RESULTS).is_file():
        return folder
    places = (folder / _RESTORED_RUN, reported(folder) / _RESTORED_RUN)
    return next((place for place in places if (place / GENERATIONS).is_file()), folder)


def _check_present(folder: Path) -> None:
    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "no such folder"
        raise FileFormatError(f"{folder}: {what};", advice="name the folder of a run")
    missing = [name for name in (GENERATIONS, JUDGEMENTS, RESULTS) if not (folder / name).is_file()]
    if missing:
        below = [str(found.parent) for found in sorted(folder.glob(f"**/{JUDGEMENTS}"))]
        if below and GENERATIONS in missing:
            more = f" and {len(below) - _SHOWN} more" if len(below) > _SHOWN else ""
            raise FileFormatError(
                f"{folder}: no run, but holds some;", advice=f"name one of {', '.join(below[:_SHOWN])}{more}"
            )
        raise FileFormatError(f"{folder}: {' and '.join(missing)} missing;", advice=_FINISH)


def _check_generations(path: Path, rows: Sequence[Generation]) -> str:
    """One model, with one set of weights, asked in one way, every prompt once; returns the model's name."""
    if not rows:
        raise FileFormatError(f"{path}: no answers;", advice=_FINISH)
    if doubled := _doubled(rows):
        raise FileFormatError(f"{path}: answers {doubled} twice; {AGAIN} into a new folder")
    mixed = {
        "models": {row.model for row in rows},
        "weights": {row.model_hash[:12] for row in rows},
        "settings": {f"{row.template} template, {row.sampling}" for row in rows if row.scores is None},
    }
    for what, found in mixed.items():
        if len(found) > 1:
            raise FileFormatError(f"{path}: mixes {what}: {' and '.join(sorted(found))}; {AGAIN} into a new folder")
    return rows[0].model


def _doubled(rows: Iterable[Generation | JudgementRow]) -> str | None:
    seen: set[RowKey] = set()
    for row in rows:
        if row.key in seen:
            return _place(row)
        seen.add(row.key)
    return None


def _by_judge(
    path: Path, generations: Sequence[Generation], rows: Sequence[JudgementRow]
) -> dict[str, tuple[JudgementRow, ...]]:
    """Each judge's rows in the order of the answers, exactly one for each."""
    if not rows:
        raise FileFormatError(f"{path}: no judgements;", advice=_FINISH)
    if doubled := _doubled(rows):
        raise FileFormatError(f"{path}: judges {doubled} twice;", advice=AGAIN)
    found: dict[str, dict[RowKey, JudgementRow]] = {}
    for row in rows:
        found.setdefault(row.judge, {})[row.key[:3]] = row
    return {judge: _aligned(path, judge, generations, said) for judge, said in found.items()}


def _aligned(
    path: Path, judge: str, generations: Sequence[Generation], said: Mapping[RowKey, JudgementRow]
) -> tuple[JudgementRow, ...]:
    versions = sorted({row.judge_version for row in said.values()})
    if len(versions) > 1:
        raise FileFormatError(f"{path}: mixes versions of judge {judge!r}: {' and '.join(versions)};", advice=AGAIN)
    answered = {generation.key for generation in generations}
    for key, row in said.items():
        if key not in answered:
            raise MismatchError(f"{path}: judges {_place(row)}, which {GENERATIONS} does not hold;", advice=AGAIN)
    return tuple(_fitting(path, judge, generation, said.get(generation.key)) for generation in generations)


def _fitting(path: Path, judge: str, generation: Generation, row: JudgementRow | None) -> JudgementRow:
    """The judgement of one answer, which was cut off where the answer's own record says so."""
    if row is None:
        raise MismatchError(f"{path}", advice=f"judge {judge!r} says nothing of {_place(generation)}; {AGAIN}")
    given = (generation.prompt_hash, text_hash(generation.prompt), text_hash(generation.response))
    if given != (row.prompt_hash, row.prompt_hash, row.response_hash):
        raise MismatchError(
            f"{path}: the judgement of {_place(row)} is of another answer than {GENERATIONS} holds;", advice=AGAIN
        )
    return row.model_copy(update={"truncated": generation.finish_reason == "length", "withheld": generation.withheld})


def _place(row: Generation | JudgementRow) -> str:
    return f"prompt {row.prompt_id!r} of suite {row.suite!r}"
