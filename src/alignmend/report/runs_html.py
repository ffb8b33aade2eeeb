"""The report of runs: several models side by side in one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from alignmend.evaluation.statistics import holm
from alignmend.report import made, pairs, plane, runs_view
from alignmend.report.entries import Entries, entries_of_failures, entries_of_flips
from alignmend.report.environment import page
from alignmend.report.leaks import Leak, leaks, shared, tunings
from alignmend.report.mix import STATES, mixes
from alignmend.report.quantities import pooled_quantities
from alignmend.report.runs import Runs, further_judges
from alignmend.report.search_plane import SearchPlane, search_plane, size_words
from alignmend.report.search_view import SearchView, proof_notices, searches

_BLOCK_TITLES = {"cross": "Harm by coherence, in answers", "method": "Method", "provenance": "Provenance"}
Item = TypeVar("Item")


def render_runs(runs: Runs, *, show_text: bool = False) -> str:
    """The page of `runs`; equal runs give equal pages, wherever they lie.

    All text from models and files is escaped. Answers that may be harmful are left out of the file; with `show_text`
    they are there, collapsed. Suites that were tuned on are told and count in no card.
    """
    leaked = leaks(runs)
    tuned = sorted({leak.suite for leak in leaked})
    pooled = pooled_quantities(runs, left_out=tuned)
    compared, names = pairs.comparisons(runs), [one.label for one in runs.models]
    found = _entries(runs, show_text=show_text)
    worse, beyond = proof_notices(runs)
    return page(
        "runs.html.j2",
        title="Restoring safety" if searches(runs) else "Evaluation",
        headline=runs_view.headline(runs, pooled),
        grave=[*_grave(leaked), *worse],
        notices=[*beyond, *runs_view.notices(runs, pooled)],
        names=names,
        pooled=pooled,
        tuned=tuned,
        lines=runs_view.lines(runs, headline=True),
        other_lines=runs_view.lines(runs, headline=False),
        searches=[_drawn(view) for view in searches(runs)],
        mixes=mixes(runs),
        states=STATES,
        planes=plane.planes(pooled[0], pooled[1:3], names),
        group_tables=runs_view.group_tables(runs),
        comparisons=compared,
        adjusted=holm([each.difference.p_value for each in compared]),
        paired=bool(compared),
        entries=found,
        show_text=show_text,
        made=[made.made(one) for one in runs.models],
        judge=runs.judge,
        agreements=made.agreements(runs),
        shared=_of_all(runs, shared),
        further=[(one.judge, runs_view.lines(one, headline=True)) for one in further_judges(runs).values()],
        suites=made.suite_facts(runs),
        tuning=[*tunings(runs), *(str(leak) for leak in leaked if leak.other)],
        details=_details(runs),
        limits=runs_view.limits(runs),
    )


def _drawn(view: SearchView) -> tuple[SearchView, SearchPlane, tuple[tuple[float, str], ...]]:
    """With its plane, and what its sizes say."""
    return view, search_plane(view), size_words(view.block["limits"]["utility"])


def _entries(runs: Runs, *, show_text: bool) -> Entries:
    if sum(bool(one.answers) for one in runs.models) > 1:
        return entries_of_flips(pairs.flips(runs), show_text=show_text)
    return entries_of_failures(runs, show_text=show_text)


def _grave(leaked: Sequence[Leak]) -> list[str]:
    if not leaked:
        return []
    return [f"Not a fair test: {'; '.join(map(str, leaked))}. These suites flatter the models and count in no card."]


def _of_all(runs: Runs, part: Callable[[Mapping[str, Any]], Iterable[Item]]) -> list[Item]:
    """A part of every run's document; what several runs say alike, once."""
    found: list[Item] = []
    for document in runs.documents:
        found += [item for item in part(document) if item not in found]
    return found


def _details(runs: Runs) -> list[tuple[str, Any]]:
    """Blocks of the documents in full, the same block of several runs once."""
    found: list[tuple[str, Any]] = []
    for document in runs.documents:
        for block, title in _BLOCK_TITLES.items():
            tree: Mapping[str, Any] | Sequence[Any] = document.get(block, ())
            if tree and (title, tree) not in found:
                found.append((title, tree))
    return found
