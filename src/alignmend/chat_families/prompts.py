"""What trains and what proves: prompts from different published sets, and nothing that is (nearly) in both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from alignmend.chat_families.recipe import Recipe
from alignmend.chat_families.sets import DataFolder
from alignmend.chat_families.tasks import TASKS, Pair
from alignmend.errors import RecipeError
from alignmend.evaluation.overlap import find_overlaps
from alignmend.evaluation.records import Prompt
from alignmend.evaluation.suites import Suite, load_suite

HARMFUL = ("harmfulqa", "dangerousqa", "harmbench")
"""English requests that an aligned model learns to refuse."""
TRAINING_SETS = (*HARMFUL, "multijail", "or-bench", "self-instruct", "truthfulqa", "belle")
SUITE_SETS = ("simple-safety-tests", "advbench", "catqa-en", "catqa-zh", "catqa-vi", "xstest")
_HELD_OUT = 0.3
"""Share of a set that trains and measures which is kept for measuring, at most."""
SEARCH, REPORT = "search", "report"
Suites = Mapping[str, Sequence[Prompt]]


@dataclass(frozen=True)
class Prompts:
    """Everything that is asked of the members of a family."""

    harmful: tuple[Prompt, ...]
    """To be refused: English and Chinese."""
    borderline: tuple[Prompt, ...]
    plain: tuple[Prompt, ...]
    instructions: tuple[Pair, ...]
    """Plain requests with published answers, mixed into every fine-tune."""
    tasks: Mapping[str, tuple[Pair, ...]]
    suites: Suites
    """By name; every prompt says whether it searches or reports."""
    left_out: Mapping[str, int]
    """By set: training prompts that a suite has too, exactly, nearly or in another language."""


def needed_sets(tasks: Iterable[str]) -> list[str]:
    """The published sets that a family with these tasks is built from."""
    return list(dict.fromkeys([*TRAINING_SETS, *SUITE_SETS, *(one for task in tasks for one in TASKS[task].sets)]))


def choose_prompts(
    data: DataFolder, tasks: Sequence[str], recipe: Recipe, seed: int, *, fits: Callable[[str], bool] | None = None
) -> Prompts:
    """Choose the suites first, then what trains from all that is not (nearly) in them; by `seed`.

    `fits` tells whether a request leaves room for an answer in a training row; those that do not are left out.
    Raises `FileFormatError` for sets that are missing, `RecipeError` where too little is left.
    """
    data.check(needed_sets(tasks))
    shuffled = _Shuffled(data, seed)
    suites = _suites(shuffled, tasks, recipe)
    trained = _trained(shuffled, tasks, recipe, fits or (lambda request: True))
    left_out, apart = _apart(trained, suites)
    pairs = {name: {id(one.prompt): one for one in found} for name, found in trained.pairs.items()}
    kept = {name: tuple(pairs[name][id(one)] for one in apart[f"pairs {name}"]) for name in pairs}
    found = Prompts(
        harmful=(*_mixed([apart[name] for name in HARMFUL]), *apart["multijail"]),
        borderline=tuple(apart["or-bench"]),
        plain=tuple(_mixed([apart[name] for name in ("self-instruct", "truthfulqa", "belle")])),
        instructions=kept.pop("self-instruct"),
        tasks=kept,
        suites=suites,
        left_out=left_out,
    )
    _check(found)
    return found


class _Shuffled:
    """Sets in an order that the seed decides, each cut once into what trains and what measures."""

    def __init__(self, data: DataFolder, seed: int) -> None:
        self._data, self._seed = data, seed

    def prompts(self, name: str, *, split: str = "all", language: str | None = None) -> list[Prompt]:
        found = self._data.prompts(name, split=split, language=language)
        Random(f"{self._seed} {name}").shuffle(found)
        return found

    def measuring(self, name: str, most: int) -> list[Prompt]:
        """The part of the set `name` that measures."""
        found = self.prompts(name)
        return found[: min(most, round(_HELD_OUT * len(found)))]

    def training(self, name: str, most: int) -> list[Prompt]:
        """The other part."""
        found = self.prompts(name)
        return found[min(most, round(_HELD_OUT * len(found))) :]


@dataclass(frozen=True)
class _Trained:
    """Candidates for training, by set."""

    prompts: Mapping[str, list[Prompt]]
    pairs: Mapping[str, list[Pair]]


def _suites(shuffled: _Shuffled, tasks: Sequence[str], recipe: Recipe) -> Suites:
    """Search prompts of a kind come from other sets than report prompts, where the kind has two."""
    search, report = recipe.search_prompts, recipe.report_prompts
    harmful = _limited("harmful", shuffled.prompts("advbench"), report)
    suites: dict[str, list[Prompt]] = {
        "harmful": [
            *_split(_limited("harmful", shuffled.prompts("simple-safety-tests"), search), SEARCH, "refuse"),
            *_split(harmful, REPORT, "refuse"),
        ],
        "borderline": [
            *_split(shuffled.measuring("or-bench", search), SEARCH, "comply"),
            *_split(_limited("borderline", shuffled.prompts("xstest", split="safe"), report), REPORT, "comply"),
        ],
        "benign": [
            *_split(_without_answers(shuffled.measuring("truthfulqa", search)), SEARCH, "comply"),
            *_split(_limited("benign", load_suite("starter-benign").prompts, report), REPORT, "comply"),
        ],
    }
    for name, source in (("categories", "catqa-en"), ("zh", "catqa-zh"), ("vi", "catqa-vi")):
        suites[f"harmful-{name}"] = _split(_limited(source, shuffled.prompts(source), report), REPORT, "refuse")
    for task in tasks:
        suites[f"task-{task}"] = _task_suite(shuffled, task, recipe)
    return suites


def _task_suite(shuffled: _Shuffled, name: str, recipe: Recipe) -> list[Prompt]:
    task, search, report = TASKS[name], recipe.search_prompts, recipe.report_prompts
    own = task.measured_on != task.trained_on
    found = shuffled.prompts(task.measured_on) if own else shuffled.measuring(task.measured_on, search + report)
    first = min(search, round(len(found) * search / (search + report)))
    asked = [task.measure(prompt) for prompt in found]
    return [*_split(asked[:first], SEARCH, "comply"), *_split(asked[first : first + report], REPORT, "comply")]


def _trained(shuffled: _Shuffled, tasks: Sequence[str], recipe: Recipe, fits: Callable[[str], bool]) -> _Trained:
    search, both = recipe.search_prompts, recipe.search_prompts + recipe.report_prompts
    prompts = {
        "harmfulqa": shuffled.prompts("harmfulqa"),
        "dangerousqa": shuffled.prompts("dangerousqa"),
        "harmbench": shuffled.prompts("harmbench", split="standard"),
        "multijail": shuffled.prompts("multijail", language="zh"),
        "or-bench": shuffled.training("or-bench", search),
        "self-instruct": shuffled.prompts("self-instruct"),
        "truthfulqa": _without_answers(shuffled.training("truthfulqa", search)),
        "belle": _without_answers(shuffled.training("belle", both)),
    }
    prompts = {name: [one for one in found if fits(one.text)] for name, found in prompts.items()}
    pairs = {"self-instruct": [Pair(one, one.text, one.answer) for one in prompts["self-instruct"] if one.answer]}
    for name in tasks:
        task = TASKS[name]
        own = task.measured_on != task.trained_on
        rows = shuffled.prompts(task.trained_on) if own else shuffled.training(task.trained_on, both)
        pairs[name] = [pair for prompt in rows if (pair := task.pair(prompt)) is not None and fits(pair.request)]
    return _Trained(prompts, pairs)


def _apart(trained: _Trained, suites: Suites) -> tuple[dict[str, int], dict[str, list[Prompt]]]:
    """The training prompts that no suite has, and how many of each set a suite has."""
    candidates = dict(trained.prompts) | {
        f"pairs {name}": [pair.prompt for pair in found] for name, found in trained.pairs.items()
    }
    used = [_suite(name, prompts) for name, prompts in candidates.items() if prompts]
    asked = [_suite(f"suite {name}", prompts) for name, prompts in suites.items() if prompts]
    shared = {(one.other_suite, one.other_id) for one in find_overlaps(used, asked)}
    kept: dict[str, list[Prompt]] = {name: [] for name in candidates}
    for suite in used:
        rows = zip(suite.prompts, candidates[suite.name], strict=True)
        kept[suite.name] = [row for numbered, row in rows if (suite.name, numbered.id) not in shared]
    left_out = {name: len(candidates[name]) - len(kept[name]) for name in candidates}
    return {name: count for name, count in left_out.items() if count}, kept


def _suite(name: str, prompts: Sequence[Prompt]) -> Suite:
    """Prompts of any set under ids that are unique here; translations stay known as such."""
    rows = [
        one.model_copy(update={"id": str(number), "suite": name, "text": one.text})
        for number, one in enumerate(prompts)
    ]
    return Suite(name, tuple(rows))


def _split(prompts: Sequence[Prompt], split: str, expected: str) -> list[Prompt]:
    return [
        one.model_copy(update={"split": split, "expected": expected, "id": f"{one.suite}-{one.id}"}) for one in prompts
    ]


def _limited(name: str, prompts: Sequence[Prompt], most: int) -> list[Prompt]:
    return list(Suite(name, tuple(prompts)).limited(most).prompts)


def _without_answers(prompts: Sequence[Prompt]) -> list[Prompt]:
    """As plain requests: what a published set calls the answer is one of many."""
    return [one.model_copy(update={"answer": None, "scoring": "words"}) for one in prompts]


def _mixed(groups: Sequence[Sequence[Prompt]]) -> list[Prompt]:
    """All prompts, so ordered that every beginning has its share of each group."""
    placed = [
        ((number + 0.5) / len(group), place, one)
        for place, group in enumerate(groups)
        for number, one in enumerate(group)
    ]
    return [one for *_, one in sorted(placed, key=lambda each: each[:2])]


def _check(found: Prompts) -> None:
    kinds = {"harmful": found.harmful, "borderline": found.borderline, "plain": found.plain, **found.tasks}
    empty = [name for name, rows in kinds.items() if not rows]
    empty += [f"suite {name}" for name, rows in found.suites.items() if not rows]
    if empty:
        raise RecipeError(f"nothing is left for {', '.join(empty)}", advice="give the published sets whole")
