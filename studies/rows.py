"""Rows of a study: what a model answered, counted by suite, and pooled over seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from alignmend.evaluation.generation import TransformersBackend
from alignmend.evaluation.judges import get_judge
from alignmend.evaluation.metrics import by_category, metrics_of
from alignmend.evaluation.run import evaluate
from alignmend.evaluation.statistics import Rate, wilson
from alignmend.evaluation.suites import load_suite

SUITES = ("harmful", "harmful_unseen", "borderline", "benign", "task")
HARMFUL = ("harmful", "harmful_unseen")
METRICS = ("attack_success_rate", "over_refusal_rate", "accuracy", "incoherent_rate")
Split = Literal["search", "report"]
Verdict = Literal["yes", "not proven", "no", "the opposite"]
"""What numbers say of a claim, the better first."""
Counts = Mapping[str, Mapping[str, tuple[int, int]]]
"""Suite -> metric -> (how many, of how many)."""
COLUMNS = (
    ("attack success, covered kinds", "harmful", "attack_success_rate"),
    ("attack success, unseen kinds", "harmful_unseen", "attack_success_rate"),
    ("over-refusal", "borderline", "over_refusal_rate"),
    ("benign", "benign", "accuracy"),
    ("task", "task", "accuracy"),
)
_MAX_NEW_TOKENS = 48


@dataclass(frozen=True)
class Row:
    """What was counted."""

    counts: Counts

    def rate(self, suite: str, metric: str) -> Rate:
        """With its Wilson interval."""
        return wilson(*self.counts[suite][metric])

    @property
    def attack_success(self) -> float:
        """Over both suites of harmful requests together."""
        return self.together(HARMFUL, "attack_success_rate").value

    def attack_success_on(self, kinds: Sequence[str], suites: Sequence[str]) -> Rate:
        """On harmful requests of some categories together."""
        return self.together([f"{suite}: {kind}" for suite in suites for kind in kinds], "attack_success_rate")

    @property
    def utility(self) -> float:
        """Share of benign and task prompts answered correctly."""
        return self.together(("benign", "task"), "accuracy").value

    @property
    def incoherent(self) -> float:
        """Of all answers."""
        return self.together(SUITES, "incoherent_rate").value

    @property
    def over_refusal(self) -> float:
        """Of borderline requests."""
        return self.rate("borderline", "over_refusal_rate").value

    def together(self, suites: Sequence[str], metric: str) -> Rate:
        """Over several suites (or kinds of requests) with one interval."""
        found = [self.counts[suite][metric] for suite in suites]
        return wilson(sum(count for count, _ in found), sum(total for _, total in found))


def measure(
    model: Any,
    tokenizer: Any,
    suites: Path,
    split: Split,
    *,
    name: str,
    steering: Callable[[Any], AbstractContextManager[object]] | None = None,
) -> Counts:
    """Ask one half of every suite in the folder `suites`, judge and count."""
    loaded = [load_suite(suites / f"{suite}.jsonl", split=split) for suite in SUITES]
    backend = TransformersBackend(
        model,
        tokenizer,
        name=name,
        max_new_tokens=_MAX_NEW_TOKENS,
        steering=steering,
        steering_description="" if steering is None else name,
    )
    found = evaluate(backend, loaded, get_judge("organism"))
    counts = {suite: counts_of(found.metrics[suite]) for suite in SUITES}
    for suite in HARMFUL:
        kinds = by_category(row for row in found.judgements if row.suite == suite)
        counts |= {f"{suite}: {kind}": counts_of(metrics_of(rows)) for kind, rows in kinds.items()}
    return counts


def counts_of(metrics: Mapping[str, Rate]) -> dict[str, tuple[int, int]]:
    """How many of how many, of every metric that is counted."""
    return {
        name: (round(metrics[name].value * metrics[name].n), metrics[name].n) for name in METRICS if name in metrics
    }


def pooled(rows: Sequence[Row]) -> Row:
    """All answers of several seeds together."""
    first = rows[0].counts
    return Row(
        {
            suite: {
                metric: (
                    sum(row.counts[suite][metric][0] for row in rows),
                    sum(row.counts[suite][metric][1] for row in rows),
                )
                for metric in first[suite]
            }
            for suite in first
        }
    )


def table(rows: Mapping[str, tuple[Sequence[Row], str]], note: str) -> list[str]:
    """Markdown: a line per label with its rows of all seeds together, and what `note` is for it."""
    heads = ["row", note, *(name for name, _, _ in COLUMNS), "incoherent"]
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |"]
    for label, (measured, told) in rows.items():
        whole = pooled(measured)
        cells = [cell(whole.rate(suite, metric)) for _, suite, metric in COLUMNS]
        lines.append(f"| {label} | {told} | {' | '.join(cells)} | {whole.incoherent:.3f} |")
    return lines


def cell(rate: Rate) -> str:
    """A rate with its interval, for a table."""
    return f"{rate.value:.2f} ({rate.low:.2f}-{rate.high:.2f})"


def mark(met: bool) -> str:
    """Whether a target was met."""
    return "yes" if met else "**no**"


def is_below(one: Rate, other: Rate) -> Verdict:
    """Whether `one` is below `other`: `yes` and `the opposite` only where the intervals lie apart."""
    if one.high < other.low:
        return "yes"
    if one.low > other.high:
        return "the opposite"
    return "not proven" if one.value < other.value else "no"


def least(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of several verdicts: of a claim that has as many parts."""
    order = get_args(Verdict)
    return max(verdicts, key=order.index)


def told(verdict: Verdict) -> str:
    """For a table."""
    return {"no": "**no**", "the opposite": "**the opposite**"}.get(verdict, verdict)


VERDICTS = """*Yes* and *the opposite* are said only where the 95 % intervals lie apart; *not proven*: the numbers go
the paper's way and the intervals overlap; *no*: the numbers do not go its way. What is no rate (a coefficient that was
chosen) has no interval."""
"""What stands above a table of verdicts."""
