"""The first model against each other one on the same prompts: McNemar's test, and the answers that flipped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from alignmend.errors import MismatchError
from alignmend.evaluation.metrics import PairedDifference, mcnemar
from alignmend.evaluation.outcomes import Turn, is_noise, turn_of
from alignmend.evaluation.records import JudgementRow
from alignmend.evaluation.shares import SHARES, Share
from alignmend.evaluation.statistics import difference_interval
from alignmend.report.runs import Answered, Measured, PromptKey, Runs

_QUESTIONS: Mapping[str, Share] = {
    "attack success": SHARES["attack_success_rate"],
    "over-refusal": SHARES["over_refusal_rate"],
    "mistakes": SHARES["accuracy"],
}
"""What is asked, and the rate that says of which prompts, and when an answer fails."""


@dataclass(frozen=True)
class Comparison:
    """One failure on one suite, `before` (index of the model) against `after`.

    `to_noise` of the `difference.fixed` prompts did not get better but incoherent or unclear.
    """

    before: int
    after: int
    suite: str
    question: str
    difference: PairedDifference
    to_noise: int

    @property
    def interval(self) -> str:
        """Of the difference, in points."""
        change = self.difference
        low, high = difference_interval(change.n, change.fixed, change.broken)
        return f"{100 * low:.1f} to {100 * high:.1f}".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Flip:
    """One prompt whose verdict is not the same: mended (a failure became right), broken (the reverse), or changed."""

    before: int
    after: int
    turn: Turn
    answers: tuple[Answered, Answered]

    @property
    def suite(self) -> str:
        """The prompt's suite."""
        return self.answers[0].judgement.suite


def comparisons(runs: Runs) -> tuple[Comparison, ...]:
    """Every question on every suite, the first model with records against each other one."""
    return tuple(found for before, after in _pairs(runs) for found in _compare(runs, before, after))


def flips(runs: Runs) -> tuple[Flip, ...]:
    """Every flip, in the order of the pairs and of the first model's records."""
    return tuple(found for before, after in _pairs(runs) for found in _flips(runs, before, after))


def _pairs(runs: Runs) -> Iterator[tuple[int, int]]:
    """The first model with records with every later one."""
    having = [index for index, measured in enumerate(runs.models) if measured.answers]
    return ((having[0], after) for after in having[1:])


Both = tuple[Answered, Answered]


def _shared(runs: Runs, before: int, after: int) -> dict[PromptKey, Both]:
    """The answers to every prompt of the suites that both answered; these must be the same prompts."""
    first, second = runs.models[before], runs.models[after]
    suites = {suite for suite, _ in first.answers} & {suite for suite, _ in second.answers}
    left, right = (_hashes(one, suites) for one in (first, second))
    if left != right:
        suite, prompt = min(left ^ right)[:2]
        raise MismatchError(
            f"{first.label} and {second.label} answered other prompts of suite {suite!r} (such as {prompt!r}); a "
            "paired comparison needs the same prompts",
            advice="evaluate both on the same suite",
        )
    return {key: (one, second.answers[key]) for key, one in first.answers.items() if key[0] in suites}


def _hashes(measured: Measured, suites: set[str]) -> set[tuple[str, str, str]]:
    return {(*key, one.judgement.prompt_hash) for key, one in measured.answers.items() if key[0] in suites}


def _compare(runs: Runs, before: int, after: int) -> Iterator[Comparison]:
    by_suite: dict[str, list[Both]] = {}
    for key, both in _shared(runs, before, after).items():
        by_suite.setdefault(key[0], []).append(both)
    for suite, both_of in by_suite.items():
        for question, share in _QUESTIONS.items():
            rows = [(one.judgement, two.judgement) for one, two in both_of if share.counts(one.judgement)]
            if rows:
                yield Comparison(before, after, suite, question, *_difference(share, rows))


def _difference(share: Share, rows: Sequence[tuple[JudgementRow, JudgementRow]]) -> tuple[PairedDifference, int]:
    """McNemar's test, and how many of the failures became noise."""
    failed = [(share.fails(one), share.fails(two)) for one, two in rows]
    noise = sum(one and not two and is_noise(row) for (one, two), (_, row) in zip(failed, rows, strict=True))
    return mcnemar([one for one, _ in failed], [two for _, two in failed]), noise


def _flips(runs: Runs, before: int, after: int) -> Iterator[Flip]:
    for both in _shared(runs, before, after).values():
        turn = turn_of(*(answered.judgement for answered in both))
        if turn is not None:
            yield Flip(before, after, turn, both)


def withheld(row: JudgementRow) -> bool:
    """Whether an answer may hold what it should not: nothing but a whole refusal of a harmful request is harmless."""
    if row.harmful:
        return True
    return row.expected != "comply" and (row.verdict != "refused" or row.partial)
