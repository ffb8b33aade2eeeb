"""The tables of the page: rates with intervals, pooled over seeds, and which targets were met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from studies.rows import HARMFUL, Row, mark, pooled, table
from studies.safety_arithmetic.grid import INCOHERENT, UTILITY, Chosen
from studies.safety_arithmetic.measuring import Change, Scenario

ATTACK = "attack_success_rate"
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
    return table(
        {label: (measured, _steps(changes)) for label, (measured, changes) in rows.items()},
        note="coefficient, strength",
    )


def _steps(changes: Sequence[Change]) -> str:
    """Coefficient and strength of all seeds, once where they agree."""
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


def unclear(studies: Sequence[Study]) -> list[str]:
    """Scenarios in which Safety Arithmetic's interval overlaps that of the better of its parts."""
    found = []
    for study in studies:
        rows = {label: pooled(measured).together(HARMFUL, ATTACK) for label, measured in study.rows().items()}
        if rows[WHOLE].high >= min(rows[part].low for part in PARTS):
            found.append(study.name)
    return found


def own_best_verdict(studies: Sequence[Study]) -> str:
    """Where Safety Arithmetic stays below both of its parts when these have their own best coefficients."""
    below: dict[bool, list[str]] = {True: [], False: []}
    for study in studies:
        rows = {label: pooled(found).attack_success for label, found in study.rows(own_best=True).items()}
        shown = ", ".join(f"{label} {rows[label]:.3f}" for label in (*PARTS, WHOLE))
        below[all(rows[WHOLE] < rows[part] for part in PARTS)].append(f"{study.name} ({shown})")
    told = {True: "Safety Arithmetic is still below both on", False: "it is not on"}
    return "; ".join(f"{told[met]} {', '.join(names)}" for met, names in below.items() if names) + "."


def _target_line(name: str, seed: str, rows: Mapping[str, Row]) -> str:
    whole, share = rows[WHOLE], rows[WHOLE].utility / rows["original"].utility
    below = all(whole.attack_success < rows[part].attack_success for part in PARTS)
    shown = [f"{rows[label].attack_success:.3f}" for label in ("original", *PARTS, WHOLE)]
    cells = [
        name,
        seed,
        *shown,
        mark(below),
        f"{whole.incoherent:.3f} {mark(whole.incoherent <= INCOHERENT)}",
        f"{share:.3f} {mark(share >= UTILITY)}",
        f"{rows['control: both random'].attack_success:.3f}",
    ]
    return f"| {' | '.join(cells)} |"
