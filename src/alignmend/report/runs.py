"""Runs side by side: reads run folders and results documents, and checks that their numbers may be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alignmend.errors import FileFormatError, MismatchError, RecipeError
from alignmend.evaluation.records import Generation, JudgementRow
from alignmend.evaluation.results import read_results
from alignmend.evaluation.run_folder import read_run
from alignmend.io.published import reported

Rates = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Suite -> metric -> rate, as `results.json` stores it."""
PromptKey = tuple[str, str]
"""Suite and prompt id."""
RECORDS = "records"
"""In a restore's report folder, the run folders of its models."""


@dataclass(frozen=True)
class Answered:
    """One answer and what the judge said of it."""

    generation: Generation
    judgement: JudgementRow


@dataclass(frozen=True)
class Measured:
    """One model of one run; `answers` is empty where the run's records are not at hand.

    `label` is the model's name, made unique among all models of a report.
    """

    label: str
    model: str
    rates: Rates
    groups: Mapping[str, Any]
    document: Mapping[str, Any]
    answers: Mapping[PromptKey, Answered] = field(default_factory=dict)


@dataclass(frozen=True)
class Runs:
    """Models in the order given, judged by one judge, on suites that are the same wherever their name is."""

    models: tuple[Measured, ...]
    judge: Mapping[str, Any]
    suites: Mapping[str, Mapping[str, Any]]

    @property
    def documents(self) -> tuple[Mapping[str, Any], ...]:
        """The results document of every run, once each."""
        return tuple({id(one.document): one.document for one in self.models}.values())


def read_runs(places: Sequence[Path]) -> Runs:
    """The runs in `places`: folders that `evaluate` or `restore` wrote, or `results.json` files (or folders with only
    that).

    `RecipeError` without places; `FileFormatError` where a file is missing or malformed; `MismatchError` where
    numbers must not stand side by side: other judges, suites of one name with other prompts, records that give
    other rates than `results.json` says.
    """
    if not places:
        raise RecipeError("a report needs one or more runs: folders with results.json")
    models = [one for place in places for one in _read_place(place)]
    if not models:
        raise RecipeError(f"the results hold no models, so there is nothing to report: {_listed(places)}")
    return Runs(_distinct(models), _one_judge(models), _same_suites(models))


def further_judges(runs: Runs) -> dict[str, Runs]:
    """The same models by every further judge of their answers: its name -> rates without records."""
    names = dict.fromkeys(name for document in runs.documents for name in document.get("judges", {}))
    return {name: _by_judge(runs, name) for name in names}


def _by_judge(runs: Runs, name: str) -> Runs:
    blocks = [one.document.get("judges", {}).get(name, {}) for one in runs.models]
    models = tuple(
        replace(one, rates=block.get("models", {}).get(one.model, {}), groups={}, answers={})
        for one, block in zip(runs.models, blocks, strict=True)
    )
    versions = sorted({block["version"] for block in blocks if block})
    return Runs(models, {"name": name, "version": " and ".join(versions)}, runs.suites)


def runs_of(document: Mapping[str, Any]) -> Runs:
    """The models of one results document without records."""
    models = [(model, "results", measured) for model, measured in _models_of(document)]
    if not models:
        raise RecipeError("the results hold no models, so there is nothing to report")
    return Runs(_distinct(models), document.get("judge", {}), document.get("suites", {}))


_Found = tuple[str, str, Measured]
"""The model's name, the name of its run's folder, and the model."""


def _read_place(place: Path) -> list[_Found]:
    folder, results = (place, place / "results.json") if place.is_dir() else (place.parent, place)
    if not results.is_file():
        what = "no results.json here; finish the run with  alignmend evaluate" if place.is_dir() else "no such file"
        raise FileFormatError(f"{place}: {what}")
    document = read_results(results)
    answers = _answers(folder, document) if place.is_dir() and document.get("models") else {}
    run = (folder if place.is_dir() else place.with_suffix("")).resolve().name
    found = []
    for model, measured in _models_of(document):
        own = {key[1:]: answered for key, answered in answers.items() if key[0] == model}
        found.append((model, run, Measured(model, model, measured.rates, measured.groups, document, own)))
    return found


def _models_of(document: Mapping[str, Any]) -> list[tuple[str, Measured]]:
    groups: Mapping[str, Any] = document.get("groups", {})
    models: Mapping[str, Rates] = document.get("models", {})
    return [
        (model, Measured(model, model, rates, groups.get(model, {}), document, {})) for model, rates in models.items()
    ]


_Answers = dict[tuple[str, str, str], Answered]
"""By model, suite and prompt id."""


def _answers(folder: Path, document: Mapping[str, Any]) -> _Answers:
    """Of a restore from the records of both of its models, else from the run's own."""
    if "search" not in document:
        return _read_answers(folder)
    found: _Answers = {}
    records = (folder if (folder / RECORDS).is_dir() else reported(folder)) / RECORDS
    for model, rates in document["models"].items():
        if (records / model).is_dir():
            found |= _read_answers(records / model, rates)
    return found


def _read_answers(folder: Path, rates: Rates | None = None) -> _Answers:
    """Every answer with the judgement of the judge that made the rates; nothing where the run left no records.

    `MismatchError` where `rates` are of other answers.
    """
    paths = [folder / "generations.jsonl", folder / "judgements.jsonl"]
    missing = [path.name for path in paths if not path.is_file()]
    if len(missing) == 2:
        return {}
    if missing:
        raise FileFormatError(f"{folder}: {missing[0]} is missing;", advice="finish the run with  alignmend evaluate")
    run = read_run(folder)
    for suite, own in run.results["models"][run.model].items():
        if rates is not None and rates.get(suite) != own:
            raise MismatchError(
                f"{folder}: other rates of suite {suite!r} than the results beside it;", advice="restore again"
            )
    pairs = zip(run.generations, run.rows(), strict=True)
    return {row.key[:3]: Answered(generation, row) for generation, row in pairs}  # type: ignore[misc]


def _distinct(found: Sequence[_Found]) -> tuple[Measured, ...]:
    """Labels unique: the run's folder where that tells models of one name apart, else a number."""
    names = Counter(model for model, _, _ in found)
    places = Counter((model, run) for model, run, _ in found)
    numbers: Counter[str] = Counter()
    labelled = []
    for model, run, measured in found:
        numbers[model] += 1
        apart = all(places[model, other] == 1 for name, other, _ in found if name == model)
        suffix = f" ({run})" if apart else f" ({numbers[model]})"
        label = model if names[model] == 1 else model + suffix
        labelled.append(Measured(label, model, measured.rates, measured.groups, measured.document, measured.answers))
    return tuple(labelled)


def _one_judge(found: Sequence[_Found]) -> Mapping[str, Any]:
    judges: list[Mapping[str, Any]] = [measured.document.get("judge", {}) for _, _, measured in found]
    said = {f"{judge.get('name', 'unnamed')} {judge.get('version', '')}".strip() for judge in judges}
    if len(said) > 1:
        raise MismatchError(
            f"the runs were judged by different judges ({' and '.join(sorted(said))}), so their rates cannot "
            "stand side by side;",
            advice="judge them alike or report them apart",
        )
    return judges[0]


def _same_suites(found: Sequence[_Found]) -> dict[str, Mapping[str, Any]]:
    suites: dict[str, Mapping[str, Any]] = {}
    for _, _, measured in found:
        for name, block in measured.document.get("suites", {}).items():
            known = suites.setdefault(name, block)
            if known.get("sha256") != block.get("sha256"):
                raise MismatchError(
                    f"suite {name!r} has other prompts in one run than in another (content hashes "
                    f"{known.get('sha256', '')[:12]} and {block.get('sha256', '')[:12]});",
                    advice="evaluate on the same prompts",
                )
    return suites


def _listed(places: Sequence[Path]) -> str:
    return ", ".join(map(str, places))
