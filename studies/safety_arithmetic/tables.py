"""The tables of the page: rates with intervals, pooled over seeds, and which targets were met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alignmend.evaluation.statistics import Rate
from studies.safety_arithmetic.grid import INCOHERENT, UTILITY, Chosen
from studies.safety_arithmetic.measuring import Change, Row, Scenario, pooled

COLUMNS = (
    ("attack success, covered kinds", "harmful", "attack_success_rate"),
    ("attack success, unseen kinds", "harmful_unseen", "attack_success_rate"),
    ("over-refusal", "borderline", "over_refusal_rate"),
    ("benign", "benign", "accuracy"),
    ("task", "task", "accuracy"),
)
WHOLE = "Safety Arithmetic"
PARTS = ("HDR, trimmed", "Safe-Align")


@dataclass(frozen=True)
class Study:
    """One scenario over seeds."""

    name: str
    scenarios: Sequence[Scenario]
    chosen: Sequence[Chosen]

    def rows(self, *, own_best: bool = False) -> dict[str, list[Row]]:
        """Label -> one row of the report split per seed."""
        changes = [one.own_best if own_best else one.rows for one in self.chosen]
        return {label: self.measured([each[label] for each in changes]) for label in changes[0]}

    def measured(self, changes: Sequence[Change]) -> list[Row]:
        """One row of the report split per seed."""
        return [scenario.row(change, "report") for scenario, change in zip(self.scenarios, changes, strict=True)]

    def changes(self, label: str) -> list[Change]:
        """What a row of the main table is, per seed."""
        return [one.rows[label] for one in self.chosen]


def main_table(study: Study) -> list[str]:
    """Every row of the scenario."""
    return _table({label: (rows, study.changes(label)) for label, rows in study.rows().items()})


def own_best_table(study: Study) -> list[str]:
    """Each method with the coefficients that suit it best."""
    changes = [one.own_best for one in study.chosen]
    rows = study.rows(own_best=True)
    return _table({label: (rows[label], [each[label] for each in changes]) for label in rows})


def _table(rows: Mapping[str, tuple[list[Row], list[Change]]]) -> list[str]:
    heads = ["row", "coefficient, strength", *(name for name, _, _ in COLUMNS), "incoherent"]
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |"]
    for label, (measured, changes) in rows.items():
        whole = pooled(measured)
        cells = [_cell(whole.rate(suite, metric)) for _, suite, metric in COLUMNS]
        lines.append(f"| {label} | {_steps(changes)} | {' | '.join(cells)} | {whole.incoherent:.3f} |")
    return lines


def _cell(rate: Rate) -> str:
    return f"{rate.value:.2f} ({rate.low:.2f}-{rate.high:.2f})"


def _steps(changes: Sequence[Change]) -> str:
    """The coefficients of all seeds, once where they agree."""
    texts = [f"{one.coefficient:g}, {one.steering:g}" for one in changes]
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)


def targets_table(studies: Sequence[Study]) -> list[str]:
    """Per scenario and seed, and pooled: is Safety Arithmetic below both of its parts, at what cost?"""
    heads = (
        "scenario", "seed", "original", *PARTS, WHOLE, "below both", f"incoherent <= {INCOHERENT}",
        f"utility >= {UTILITY} of the target's", "both random",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |"]
    for study in studies:
        rows = study.rows()
        for number, scenario in enumerate(study.scenarios):
            one = {label: found[number] for label, found in rows.items()}
            lines.append(_target_line(study.name, str(scenario.seed), one))
        lines.append(_target_line(study.name, "all", {label: pooled(found) for label, found in rows.items()}))
    return lines


def _target_line(name: str, seed: str, rows: Mapping[str, Row]) -> str:
    whole, share = rows[WHOLE], rows[WHOLE].utility / rows["original"].utility
    below = all(whole.attack_success < rows[part].attack_success for part in PARTS)
    shown = [f"{rows[label].attack_success:.3f}" for label in ("original", *PARTS, WHOLE)]
    cells = [
        name,
        seed,
        *shown,
        _mark(below),
        f"{whole.incoherent:.3f} {_mark(whole.incoherent <= INCOHERENT)}",
        f"{share:.3f} {_mark(share >= UTILITY)}",
        f"{rows['control: both random'].attack_success:.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def _mark(met: bool) -> str:
    return "yes" if met else "**no**"
