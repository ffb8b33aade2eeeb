"""Tables and figures of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from studies.figures import figure
from studies.rows import Row, mark, pooled, table
from studies.safepatching.grid import INCOHERENT, UTILITY, Chosen, attack_success
from studies.safepatching.kinds import SEEN, UNSEEN
from studies.safepatching.patches import Bench, Merge

DENSITIES = (0.3, 0.6, 1.0)
FACTORS = (0.75, 1.0, 1.25)
WIDE = (0.25, 0.5, 1.0, 1.5)
READINGS = ("strict", "conflict")


@dataclass(frozen=True)
class Study:
    """One bench per seed, and what was chosen for all."""

    benches: Sequence[Bench]
    chosen: Chosen

    def rows(self, label: str) -> list[Row]:
        """A row of the main table, per seed."""
        return self.measured(self.chosen.rows[label])

    def measured(self, merge: Merge) -> list[Row]:
        """One row of the report split per seed."""
        return [bench.row(merge, "report") for bench in self.benches]


def main_table(study: Study) -> list[str]:
    """Every row, with attack success on seen and unseen kinds apart."""
    labels = list(study.chosen.rows)
    return table(
        {label: (study.rows(label), _kinds(study.rows(label))) for label in labels}, note="seen / unseen kinds"
    )


def _kinds(rows: Sequence[Row]) -> str:
    whole = pooled(rows)
    shown = []
    for kinds in (SEEN, UNSEEN):
        present = [kind for kind in kinds if f"harmful_unseen: {kind}" in whole.counts]
        shown.append(f"{whole.attack_success_on(present, ['harmful_unseen']).value:.2f}")
    return " / ".join(shown)


def targets_table(study: Study) -> list[str]:
    """Per seed and together: are both below the original, at what cost, and do random sets do it too?"""
    heads = (
        "merge",
        "seed",
        "attack success",
        "over-refusal",
        "both below",
        f"utility >= {UTILITY}",
        f"incoherent <= {INCOHERENT}",
    )
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |"]
    original, seeds = study.rows("original"), [str(bench.seed) for bench in study.benches]
    for label in _judged(study):
        rows = study.rows(label)
        cases = [*zip(seeds, rows, original, strict=True), ("all", pooled(rows), pooled(original))]
        lines += [f"| {label} | {seed} | {' | '.join(_target(row, before))} |" for seed, row, before in cases]
    return lines


def _judged(study: Study) -> list[str]:
    """Merges of both patches; not the ablations."""
    words = ("SafePatching", "control", "TIES", "arithmetic")
    return [label for label in study.chosen.rows if any(word in label for word in words)]


def _target(row: Row, before: Row) -> list[str]:
    attack, was = attack_success(row), attack_success(before)
    share = row.utility / before.utility
    return [
        f"{was:.2f} -> {attack:.2f}",
        f"{before.over_refusal:.2f} -> {row.over_refusal:.2f}",
        mark(attack < was and row.over_refusal < before.over_refusal),
        f"{share:.3f} {mark(share >= UTILITY)}",
        f"{row.incoherent:.3f} {mark(row.incoherent <= INCOHERENT)}",
    ]


def numbers_table(study: Study) -> list[str]:
    """What was chosen."""
    lines = ["| merge | numbers |", "| --- | --- |"]
    for name in ("strict", "conflict", "arithmetic", "ties"):
        merge: Merge = getattr(study.chosen, name)
        lines.append(f"| {name} | {', '.join(f'{key} {value}' for key, value in merge.parameters)} |")
    return lines


def figures(study: Study, pages: Path, prefix: str) -> list[str]:
    """Draw the sensitivity curves; returns the lines that show them."""
    lines = []
    for reading in READINGS:
        for name, axis, curve in _curves(study, reading):
            file = f"{prefix}-{reading}-{name}.svg"
            title = f"{'strict' if reading == 'strict' else 'conflict removal'}: {axis}"
            (pages / file).write_text(figure(title, axis, curve), encoding="utf-8")
            lines.append(f"![{title}]({file})")
        lines.append("")
    return lines


def _curves(study: Study, reading: str) -> list[tuple[str, str, list[tuple[float, Row]]]]:
    chosen: Merge = getattr(study.chosen, reading)

    def along(values: Sequence[float], *keys: str, factor: bool = False) -> list[tuple[float, Row]]:
        return [(value, pooled(study.measured(_changed(chosen, keys, value, factor)))) for value in values]

    return [
        ("density", "share kept at random (p)", along(DENSITIES, "density")),
        ("rates", "top rates, both, as a factor", along(WIDE, "safety_rate", "over_safety_rate", factor=True)),
        ("safety", "safety coefficient, as a factor", along(FACTORS, "safety_coefficient", factor=True)),
        ("over-safety", "over-safety coefficient, as a factor", along(FACTORS, "over_safety_coefficient", factor=True)),
    ]


def _changed(merge: Merge, keys: Sequence[str], value: float, factor: bool) -> Merge:
    before: Mapping[str, object] = dict(merge.parameters)
    return merge.but(**{key: round(value * float(str(before[key])), 6) if factor else value for key in keys})
