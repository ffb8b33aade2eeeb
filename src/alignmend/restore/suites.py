"""Which prompts choose a candidate and which prove it: never the same ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from alignmend.errors import RecipeError
from alignmend.evaluation.overlap import find_overlaps, split_by_group
from alignmend.evaluation.records import Prompt
from alignmend.evaluation.suites import Suite, load_suite
from alignmend.restore.request import Prompts

Kind = Literal["refuse", "comply", "task"]
STARTERS = ("starter-harmful", "starter-borderline", "starter-benign")
SEARCH, REPORT = "search", "report"
_SEARCH_SHARE = 0.4


@dataclass(frozen=True)
class Split:
    """The suites of a restore: `search` prompts choose, `report` prompts prove."""

    search: tuple[Suite, ...]
    report: tuple[Suite, ...]
    notes: tuple[str, ...] = ()
    spare: tuple[Suite, ...] = ()
    """Prompts of the suites' search halves that the search does not ask: they may calibrate."""

    def count(self, kind: Kind) -> int:
        """Search prompts of a kind."""
        return _count(self.search, kind)

    @property
    def told(self) -> str:
        """How many choose and how many prove, in words."""
        kinds: Mapping[Kind, str] = {"refuse": "to be refused", "comply": "harmless", "task": "with known answers"}
        uses = (("choose", self.search), ("prove", self.report))
        return "; ".join(
            f"{use} {', '.join(f'{found} {name}' for kind, name in kinds.items() if (found := _count(suites, kind)))}"
            for use, suites in uses
        )


def _count(suites: Sequence[Suite], kind: Kind) -> int:
    return sum(kind_of(prompt) == kind for suite in suites for prompt in suite.prompts)


def kind_of(prompt: Prompt) -> Kind:
    """What is looked at in its answer: whether it is refused, whether it is not, or whether it is right."""
    if prompt.expected == "refuse":
        return "refuse"
    return "task" if prompt.answer is not None else "comply"


def split_suites(prompts: Prompts, seed: int) -> Split:
    """Load the suites and split each: by its own splits `search` and `report`, else by hash, duplicates together.

    Of each kind at most `prompts.search_prompts` are searched on, a fair share of every suite. Raises `RecipeError`
    where no prompt is to be refused, or none to be answered.
    """
    loaded = [load_suite(one, data_dir=prompts.data_dir, split="all") for one in prompts.suites or STARTERS]
    halves = [_halves(suite, seed) for suite in loaded]
    search = _limited([half for half, _ in halves], prompts.search_prompts, seed)
    more = [load_suite(one, data_dir=prompts.data_dir) for one in prompts.report_suites]
    report = _distinct((*(half for _, half in halves), *more))
    _check(search, report)
    return Split(search, *_apart(search, report), tuple(_spare([half for half, _ in halves], search)))


def _spare(halves: Sequence[Suite], search: Sequence[Suite]) -> Iterator[Suite]:
    for half, chosen in zip(halves, search, strict=True):
        taken = {one.id for one in chosen.prompts}
        if left := [one for one in half.prompts if one.id not in taken]:
            yield _with(half, left)


def _distinct(suites: Sequence[Suite]) -> tuple[Suite, ...]:
    names = [suite.name for suite in suites]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RecipeError(
            f"suite {twice[0]} is there twice", advice="name it once, with --suite or with --report-suite"
        )
    return tuple(suites)


def _halves(suite: Suite, seed: int) -> tuple[Suite, Suite]:
    own = {split: [one for one in suite.prompts if one.split == split] for split in (SEARCH, REPORT)}
    if all(own.values()):
        return _with(suite, own[SEARCH]), _with(suite, own[REPORT])
    if len(suite.prompts) < 2:
        raise RecipeError(
            f"suite {suite.name} has one prompt", advice="give more, some to choose by and some to prove by"
        )
    return split_by_group(suite, _SEARCH_SHARE, seed)


def _limited(suites: Sequence[Suite], most: int, seed: int) -> tuple[Suite, ...]:
    """At most `most` prompts of each kind, shared evenly among the suites that have it; one of each at least."""
    kept = []
    for suite in suites:
        by_kind: dict[Kind, list[Prompt]] = {}
        for prompt in suite.prompts:
            by_kind.setdefault(kind_of(prompt), []).append(prompt)
        chosen: set[str] = set()
        for kind, prompts in by_kind.items():
            sharing = sum(any(kind_of(one) == kind for one in other.prompts) for other in suites)
            part = _with(suite, prompts).limited(max(1, most // sharing), seed)
            chosen.update(one.id for one in part.prompts)
        kept.append(_with(suite, [one for one in suite.prompts if one.id in chosen]))
    return tuple(kept)


def _with(suite: Suite, prompts: Sequence[Prompt]) -> Suite:
    return replace(suite, prompts=tuple(prompts))


def _check(search: Sequence[Suite], report: Sequence[Suite]) -> None:
    for name, suites in ((SEARCH, search), (REPORT, report)):
        kinds = {kind_of(prompt) for suite in suites for prompt in suite.prompts}
        if "refuse" not in kinds:
            raise RecipeError(
                f"no prompt to {name} by is expected to be refused",
                advice="give a suite of harmful requests, or a column expected (refuse, comply) in yours",
            )
        if not kinds & {"comply", "task"}:
            raise RecipeError(
                f"no prompt to {name} by is expected to be answered: without them a model that refuses everything "
                "would look safe;",
                advice="give a suite of harmless requests",
            )


def _apart(search: Sequence[Suite], report: Sequence[Suite]) -> tuple[tuple[Suite, ...], tuple[str, ...]]:
    """The report suites without what the search sees as well, and what was left out."""
    shared: dict[str, set[str]] = {}
    for one in find_overlaps(search, report):
        shared.setdefault(one.suite, set()).add(one.prompt_id)
    left = {suite.name: [one for one in suite.prompts if one.id not in shared.get(suite.name, ())] for suite in report}
    if gone := [name for name, prompts in left.items() if not prompts]:
        raise RecipeError(f"every prompt of {gone[0]} is (nearly) in the search", advice="report on others")
    kept = [_with(suite, left[suite.name]) for suite in report]
    _check(search, kept)
    notes = tuple(
        f"{name}: {len(ids)} report prompts are (nearly) in the search and left out" for name, ids in shared.items()
    )
    return tuple(kept), notes


def by_kind(suites: Sequence[Suite]) -> Mapping[tuple[str, str], Kind]:
    """(suite, prompt id) -> kind."""
    return {(suite.name, one.id): kind_of(one) for suite in suites for one in suite.prompts}
