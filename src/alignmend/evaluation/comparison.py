"""Two runs on the same prompts: how every metric changed, what the second model mended and what it broke."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignmend.errors import MismatchError, RecipeError
from alignmend.evaluation.changes import COMPARED, Change, changes
from alignmend.evaluation.outcomes import state_of
from alignmend.evaluation.pairing import Pair, Unpaired, pair_rows
from alignmend.evaluation.records import JudgementRow
from alignmend.evaluation.run_folder import RunFolder
from alignmend.evaluation.statistics import DRAWS
from alignmend.nearest import nearest

MAIN = ("attack_success_rate", "over_refusal_rate", "accuracy", "incoherent_rate")
"""What is compared unless other metrics are asked for."""
EVERY = "all"
_KEPT = ("expected", "category", "verdict", "partial", "harmful", "empty", "score", "parsed", "truncated", "correct")


@dataclass(frozen=True)
class Comparison:
    """Everything that `compare_runs` found; `notes` say in words what makes the comparison less than fair."""

    before: RunFolder
    after: RunFolder
    judge: str
    pairs: tuple[Pair, ...]
    unpaired: tuple[Unpaired, ...]
    changes: tuple[Change, ...]
    notes: tuple[str, ...]
    seed: int

    @property
    def flips(self) -> tuple[Pair, ...]:
        """The pairs whose answers came to something else, in the order of the first run."""
        return tuple(pair for pair in self.pairs if pair.turn is not None)

    @property
    def same_answers(self) -> tuple[int, int]:
        """How many of the pairs' written answers are the same to the letter, and how many there are.

        Space around an answer does not count: servers cut it off.
        """
        said = [
            {(row.suite, row.prompt_id): row.response.strip() for row in run.generations if not row.scores}
            for run in (self.before, self.after)
        ]
        keys = [(pair.suite, pair.before.prompt_id) for pair in self.pairs]
        both = [(said[0][key], said[1][key]) for key in keys if key in said[0] and key in said[1]]
        return sum(one == other for one, other in both), len(both)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, without text of any answer."""
        same, answers = self.same_answers
        return {
            "before": self.before.model,
            "after": self.after.model,
            "judge": {"name": self.judge, "version": self.pairs[0].before.judge_version},
            "bootstrap": {"draws": DRAWS, "seed": self.seed},
            "pairs": len(self.pairs),
            "same_answers": {"same": same, "n": answers},
            "unpaired": [vars(one) for one in self.unpaired],
            "notes": list(self.notes),
            "comparisons": [change.as_dict() for change in self.changes],
            "flips": [_flip(pair) for pair in self.flips],
        }


def compare_runs(
    before: RunFolder,
    after: RunFolder,
    *,
    suites: Sequence[str] = (),
    metrics: Sequence[str] = (),
    judge: str | None = None,
    seed: int = 0,
) -> Comparison:
    """Compares two runs prompt by prompt: same suite, id and words.

    `suites` and `metrics` narrow what is compared (by default every suite, and `MAIN`; `all` means every metric);
    `judge` is one that both runs have, by default the one that made the rates. `MismatchError` where the judges differ,
    even in version, or no prompt is in both; `RecipeError` for unknown names.
    """
    chosen = _known_metrics(metrics)
    sides = [run.rows(judge) for run in (before, after)]
    _check_same_judge(*sides)
    for name in suites:
        _check_suite(name, before, after)
    rows = [[row for row in side if not suites or row.suite in suites] for side in sides]
    pairs, unpaired = pair_rows(rows[0], rows[1])
    if not pairs:
        raise MismatchError(
            f"no prompt is in both {before.path} and {after.path}", advice="evaluate both on the same suites"
        )
    found = changes(pairs, chosen, seed)
    return Comparison(before, after, sides[0][0].judge, pairs, unpaired, found, _notes(before, after), seed)


def pair_record(pair: Pair) -> dict[str, Any]:
    """One prompt with what the judge said before and after: enough to count every metric again; no text of answers."""
    about = {name: getattr(pair.before, name) for name in ("suite", "prompt_id", "prompt_hash")}
    sides = {"before": pair.before, "after": pair.after}
    return about | {side: {name: getattr(of, name) for name in _KEPT} for side, of in sides.items()}


def _flip(pair: Pair) -> dict[str, Any]:
    return {
        "suite": pair.suite,
        "prompt_id": pair.before.prompt_id,
        "turn": pair.turn,
        "before": state_of(pair.before),
        "after": state_of(pair.after),
    }


def _known_metrics(metrics: Sequence[str]) -> Sequence[str]:
    for name in metrics:
        if name not in (*COMPARED, EVERY):
            raise RecipeError(f"no metric {name!r} to compare{nearest(name, COMPARED)}; metrics: {', '.join(COMPARED)}")
    return COMPARED if EVERY in metrics else tuple(dict.fromkeys(metrics)) or MAIN


def _check_same_judge(before: Sequence[JudgementRow], after: Sequence[JudgementRow]) -> None:
    one, other = (f"{rows[0].judge} ({rows[0].judge_version})" for rows in (before, after))
    if one != other:
        raise MismatchError(
            f"the runs were judged by different judges, {one} and {other};", advice="judge them alike first"
        )


def _check_suite(name: str, before: RunFolder, after: RunFolder) -> None:
    for run in (before, after):
        known = dict.fromkeys(row.suite for row in run.rows())
        if name not in known:
            raise RecipeError(f"{run.path} has no suite {name!r}{nearest(name, known)}; suites: {', '.join(known)}")


def _notes(before: RunFolder, after: RunFolder) -> tuple[str, ...]:
    ways = [
        " and ".join(sorted({f"{row.template} template, {row.sampling}" for row in run.generations if not row.scores}))
        for run in (before, after)
    ]
    if ways[0] == ways[1]:
        return ()
    return (f"the models were asked in different ways ({ways[0]}; {ways[1]}): the change may be of that",)
