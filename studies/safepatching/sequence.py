"""Patching three times, as three groups of harm arrive: what harm, over-refusal and utility do after each round."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from studies.rows import Row, pooled
from studies.safepatching.grid import Chosen
from studies.safepatching.kinds import GROUPS, group_pairs
from studies.safepatching.patches import ORIGINAL, Bench


def rounds(bench: Bench, chosen: Chosen, work: Path) -> list[Row]:
    """The report split before the first round and after each."""
    found, target = [bench.row(ORIGINAL, "report")], bench.target
    for number, group in enumerate(GROUPS, 1):
        pairs = group_pairs(work / f"{group}.jsonl", group)
        step = Bench(bench.seed, target, pairs, bench.suites, work)
        merge = chosen.conflict.but(seed=number)
        found.append(step.row(merge, "report"))
        place = step.place / "patched"
        target = place if place.exists() else step.write(merge, place)
    return found


def table(runs: Sequence[Sequence[Row]]) -> list[str]:
    """A line per round, all seeds together."""
    heads = ["after", *(f"attack success: {group}" for group in GROUPS), "over-refusal", "utility", "incoherent"]
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |"]
    for label, rows in zip(("original", *GROUPS), zip(*runs, strict=True), strict=True):
        whole = pooled(rows)
        cells = [_attack(whole, group) for group in GROUPS]
        cells += [f"{whole.over_refusal:.2f}", f"{whole.utility:.3f}", f"{whole.incoherent:.3f}"]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def _attack(row: Row, group: str) -> str:
    rate = row.attack_success_on(_present(row, group), ["harmful_unseen"])
    return f"{rate.value:.2f} ({rate.low:.2f}-{rate.high:.2f})"


def _present(row: Row, group: str) -> list[str]:
    return [kind for kind in GROUPS[group] if f"harmful_unseen: {kind}" in row.counts]
