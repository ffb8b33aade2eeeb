"""How far two judges, or a judge and human labels, agree: Cohen's kappa, recall per class, the table, the differences.

Verdicts are compared in five classes (`verdict_class`), harm in two (`harm_class`); answers on which a side has no
opinion are left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from alignmend.errors import ParameterError, RecipeError
from alignmend.evaluation.metrics import Rate, wilson
from alignmend.evaluation.records import Judgement
from alignmend.nearest import nearest

DRAWS = 10_000

VERDICT_CLASSES = ("refused", "partial", "complied", "incoherent", "unclear")
HARM_CLASSES = ("harmful", "unharmful")

LABELS: Mapping[str, str] = {
    **{name: name for name in (*VERDICT_CLASSES, *HARM_CLASSES)},
    "full_refusal": "refused",
    "direct_refusal": "refused",
    "partial_refusal": "partial",
    "full_compliance": "complied",
    "direct_answer": "complied",
    "indirect_refusal": "indirect_refusal",
}
"""Human labels of XSTest and OKTest, and our own names. An indirect refusal is a class of its own."""


@dataclass(frozen=True)
class Interval:
    """A statistic with its 95 % bootstrap interval; all `None` where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Agreement:
    """`first` and `second` on the `n` answers of which both have an opinion, `left_out` others not counted.

    `table` counts first's class -> second's class. `recall` is, of each class that `first` gives, the share to which
    `second` gives it too; `balanced` their mean. `differences` are the positions of the answers on which they differ.
    """

    first: str
    second: str
    about: str
    n: int
    left_out: int
    table: Mapping[str, Mapping[str, int]]
    agreed: Rate
    kappa: Interval
    recall: Mapping[str, Rate]
    balanced: float
    differences: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON; numbers rounded to six decimals."""
        return {
            "first": self.first,
            "second": self.second,
            "about": self.about,
            "n": self.n,
            "left_out": self.left_out,
            "table": {row: dict(columns) for row, columns in self.table.items()},
            "agreed": self.agreed.as_dict(),
            "kappa": {name: _rounded(value) for name, value in vars(self.kappa).items()},
            "recall": {name: rate.as_dict() for name, rate in self.recall.items()},
            "balanced": _rounded(self.balanced),
            "differences": list(self.differences),
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def verdict_class(judgement: Judgement) -> str:
    """The verdict, with refusals told apart: `refused` or `partial`."""
    return "partial" if judgement.partial else judgement.verdict


def harm_class(judgement: Judgement) -> str | None:
    """`harmful`, `unharmful`, or `None` where the judge has no opinion on harm."""
    return None if judgement.harmful is None else HARM_CLASSES[0 if judgement.harmful else 1]


def label_class(label: str) -> str | None:
    """The class that a human label means, `None` for a blank one; `RecipeError` names the nearest known label."""
    plain = label.strip().lower().replace(" ", "_").replace("-", "_")
    plain = plain[2:] if plain[:2] in {"1_", "2_", "3_"} else plain
    if not plain:
        return None
    if plain not in LABELS:
        raise RecipeError(f"unknown label {label!r}{nearest(plain, LABELS)}; known labels: {', '.join(LABELS)}")
    return LABELS[plain]


def cohens_kappa(table: Sequence[Sequence[float]]) -> float | None:
    """(observed - chance) / (1 - chance) of a square table of counts (Cohen 1960).

    `None` where chance agreement is 1, that is where both sides gave one and the same class to everything.
    """
    total = float(sum(map(sum, table)))
    if total == 0:
        raise ParameterError("kappa needs at least one answer")
    observed = sum(table[index][index] for index in range(len(table))) / total
    rows = [sum(row) / total for row in table]
    columns = [sum(column) / total for column in zip(*table, strict=True)]
    chance = sum(row * column for row, column in zip(rows, columns, strict=True))
    return None if chance > 1 - 1e-12 else (observed - chance) / (1 - chance)


def kappa_interval(table: Sequence[Sequence[int]], *, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Cohen's kappa with its percentile bootstrap interval: answers drawn again with replacement, `draws` times.

    Draws in which kappa is not defined do not count; where kappa itself is not defined there is no interval.
    """
    value = cohens_kappa(table)
    if value is None:
        return Interval(None, None, None)
    import numpy as np

    counts = np.asarray(table, dtype=float)
    total = int(counts.sum())
    drawn = np.random.Generator(np.random.Philox(seed)).multinomial(total, counts.ravel() / total, size=draws)
    shares = drawn.reshape(draws, *counts.shape) / total
    observed = np.trace(shares, axis1=1, axis2=2)
    chance = (shares.sum(axis=1) * shares.sum(axis=2)).sum(axis=1)
    defined = chance < 1 - 1e-12
    kappas = (observed[defined] - chance[defined]) / (1 - chance[defined])
    low, high = np.percentile(kappas, [2.5, 97.5]) if defined.any() else (value, value)
    return Interval(value, float(low), float(high))


def agreement(
    first: Sequence[str | None],
    second: Sequence[str | None],
    *,
    names: tuple[str, str],
    about: str = "verdict",
    draws: int = DRAWS,
    seed: int = 0,
) -> Agreement | None:
    """The agreement of two lists of classes over the same answers; `None` where no answer has both."""
    if len(first) != len(second):
        raise ParameterError(f"agreement needs the same answers: {len(first)} and {len(second)}")
    pairs = [(one, other) for one, other in zip(first, second, strict=True) if one is not None and other is not None]
    if not pairs:
        return None
    classes = _ordered({name for pair in pairs for name in pair})
    counts = Counter(pairs)
    table = {row: {column: counts[row, column] for column in classes} for row in classes}
    recall = {name: wilson(row[name], sum(row.values())) for name, row in table.items() if sum(row.values())}
    return Agreement(
        first=names[0],
        second=names[1],
        about=about,
        n=len(pairs),
        left_out=len(first) - len(pairs),
        table=table,
        agreed=wilson(sum(counts[name, name] for name in classes), len(pairs)),
        kappa=kappa_interval([list(row.values()) for row in table.values()], draws=draws, seed=seed),
        recall=recall,
        balanced=sum(rate.value for rate in recall.values()) / len(recall),
        differences=tuple(
            position
            for position, (one, other) in enumerate(zip(first, second, strict=True))
            if one is not None and other is not None and one != other
        ),
    )


def _ordered(classes: set[str]) -> list[str]:
    known = [name for name in (*VERDICT_CLASSES, *HARM_CLASSES) if name in classes]
    return known + sorted(classes - set(known))


def judge_agreements(judgements: Mapping[str, Sequence[Judgement]], *, seed: int = 0) -> list[Agreement]:
    """Every two of `judgements` (judge -> its judgements of the same answers), on verdicts and where both say it on
    harm.
    """
    found = []
    for one, other in combinations(judgements, 2):
        for about, class_of in (("verdict", verdict_class), ("harm", harm_class)):
            sides = [[class_of(judgement) for judgement in judgements[name]] for name in (one, other)]
            found.append(agreement(sides[0], sides[1], names=(one, other), about=about, seed=seed))
    return [each for each in found if each is not None]


def label_classes(labels: Sequence[str], *, name: str = "labels") -> list[str | None]:
    """The classes that human labels mean; `RecipeError` for an unknown label, labels of two kinds, or none at all."""
    classes = [label_class(label) for label in labels]
    given = {each for each in classes if each is not None}
    if not given:
        raise RecipeError(f"{name}: every label is blank")
    if given & set(HARM_CLASSES) and given - set(HARM_CLASSES):
        raise RecipeError(
            f"{name}: labels of harm and of refusal are mixed ({', '.join(sorted(given))});", advice="take one kind"
        )
    return classes


def label_agreements(
    classes: Sequence[str | None],
    judgements: Mapping[str, Sequence[Judgement]],
    *,
    name: str = "labels",
    seed: int = 0,
) -> list[Agreement]:
    """Human labels (`label_classes`) against every judge: on harm where they are labels of harm, else on verdicts.

    Labels come first, so that `recall` is the judge's.
    """
    harm = all(each is None or each in HARM_CLASSES for each in classes)
    about, class_of = ("harm", harm_class) if harm else ("verdict", verdict_class)
    found = [
        agreement(classes, [class_of(judgement) for judgement in said], names=(name, judge), about=about, seed=seed)
        for judge, said in judgements.items()
    ]
    return [each for each in found if each is not None]
