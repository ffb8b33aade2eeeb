"""`compare`: two runs, prompt by prompt."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignmend.api.judges import Names, names_of
from alignmend.api.shown import Shown
from alignmend.errors import OutputError, ParameterError

if TYPE_CHECKING:
    from rich.table import Table

    from alignmend.evaluation.changes import Change
    from alignmend.evaluation.comparison import Comparison
    from alignmend.evaluation.run_folder import RunFolder


@dataclass(frozen=True, repr=False)
class ComparisonResult(Shown):
    """What changed from one run to the other, on the prompts that both were asked."""

    comparison: Comparison

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What limits the comparison, prompts that were used for tuning included."""
        found = self.comparison
        return (*found.notes, *dict.fromkeys([*_leaks(found.before), *_leaks(found.after)]))

    def as_dict(self) -> dict[str, Any]:
        """As `alignmend compare --json` prints it."""
        from alignmend.report.labels import metric_label

        document = self.comparison.as_dict()
        labelled = [{"question": metric_label(one["metric"]), **one} for one in document["comparisons"]]
        return {**document, "notes": [*self.notes], "comparisons": labelled}

    def table(self) -> Table:
        """Every metric before and after, with the paired test."""
        return _table(self.comparison)

    def summary(self) -> list[str]:
        """How many verdicts and answers changed."""
        return _summary(self.comparison)

    def _facts(self) -> Iterable[str]:
        found = self.comparison
        yield f"{found.before.model} to {found.after.model}"
        yield f"{len(found.pairs):,} prompts"
        yield f"{len(found.flips):,} verdicts changed"

    def _parts(self) -> Iterable[Any]:
        yield from (f"note: {note}" for note in self.notes)
        yield from (f"left out: {lone}" for lone in self.comparison.unpaired)
        yield self.table()
        yield from self.summary()


def compare(
    before: str | Path,
    after: str | Path,
    *,
    suites: Names = (),
    metrics: Names = (),
    judge: str | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> ComparisonResult:
    """Compare two folders that `evaluate` wrote; with `out` also write every prompt with both judgements as JSONL.

    `suites` and `metrics` are all, and the main ones, where none is named; `judge` is the first of both runs.
    """
    from alignmend.evaluation.comparison import compare_runs
    from alignmend.evaluation.run_folder import read_run

    target, named = None if out is None else Path(out), names_of(metrics)
    if target is not None and target.exists() and not overwrite:
        raise OutputError(f"{target} exists;", advice="choose another name or say --overwrite")
    found = compare_runs(
        read_run(Path(before)), read_run(Path(after)), suites=names_of(suites), metrics=named, judge=judge, seed=seed
    )
    if not found.changes:
        raise ParameterError(f"no prompt of both runs has {', '.join(named)}: nothing to compare")
    if target is not None:
        _write_pairs(found, target)
    return ComparisonResult(found)


def _leaks(run: RunFolder) -> list[str]:
    from alignmend.report.leaks import leaks
    from alignmend.report.runs import runs_of

    return [f"not a fair test of {run.model}: {leak}" for leak in leaks(runs_of(run.results))]


def _table(found: Comparison) -> Table:
    from rich import box
    from rich.table import Table

    from alignmend.report.labels import metric_label
    from alignmend.report.numbers import clean

    names = " against ".join(clean(run.model) for run in (found.before, found.after))
    title = f"{names}; percent and points, 95% intervals below"
    table = Table(title=title, title_style="dim", title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("suite", overflow="fold")
    table.add_column("metric")
    for name in ("n", "before", "after", "change", "fixed/\nbroken", "p, Holm"):
        table.add_column(name, justify="right")
    for change in found.changes:
        table.add_row(clean(change.suite), metric_label(change.metric), str(change.n), *_cells(change))
    return table


def _cells(change: Change) -> tuple[str, ...]:
    from alignmend.report.numbers import with_interval

    rates = ("\n".join(with_interval(change.metric, rate.as_dict())) for rate in (change.before, change.after))
    ends = f"{_points(change.low, 0)} to {_points(change.high, 0)}"
    if change.test is None or change.p_holm is None:
        return (*rates, f"{_points(change.difference)}\n{ends}", "", "")
    turned = f"{change.test.fixed}/{change.test.broken}"
    p_value = "<0.001" if change.p_holm < 0.001 else f"{change.p_holm:.3f}"
    return (*rates, f"{_points(change.difference)}\n{ends}", turned, p_value)


def _points(share: float, decimals: int = 1) -> str:
    return f"{round(100 * share, decimals) + 0.0:+.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def _summary(found: Comparison) -> list[str]:
    counts = {turn: sum(pair.turn == turn for pair in found.flips) for turn in ("mended", "broken", "changed")}
    told = ", ".join(f"{count} {turn}" for turn, count in counts.items())
    noise = sum(change.to_noise or 0 for change in found.changes if change.metric == "attack_success_rate")
    same, answers = found.same_answers
    lines = [
        f"{len(found.flips)} of {len(found.pairs)} prompts with another verdict: {told}",
        f"{same} of {answers} answers are the same to the letter",
    ]
    if noise:
        lines.append(f"{noise} of the fixed attack successes are now noise or unclear, which is no safety")
    return lines


def _write_pairs(found: Comparison, path: Path) -> None:
    from alignmend.evaluation.comparison import pair_record
    from alignmend.io.atomic import replace_bytes

    lines = (json.dumps(pair_record(pair)) for pair in found.pairs)
    replace_bytes(path, "".join(f"{line}\n" for line in lines).encode("ascii"))
