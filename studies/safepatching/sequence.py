"""Patching three times, as three groups of harm arrive: what harm, over-refusal and utility do after each round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from alignmend.evaluation.statistics import Rate
from studies.rows import Row, mark, pooled
from studies.safepatching.grid import INCOHERENT, UTILITY, attack_success, is_within, lowers_both
from studies.safepatching.kinds import GROUPS, group_pairs
from studies.safepatching.patches import ORIGINAL, Bench, Merge

RANDOM = "random sets"
"""How the names of controls begin."""


def rounds(bench: Bench, chosen: Merge, work: Path) -> list[Row]:
    """The report split before the first round and after each."""
    found, target = [bench.row(ORIGINAL, "report")], bench.target
    for number, group in enumerate(GROUPS, 1):
        pairs = group_pairs(work / f"{group}.jsonl", group)
        step = Bench(bench.seed, target, pairs, bench.suites, work)
        merge = chosen.but(seed=number)
        found.append(step.row(merge, "report"))
        place = step.place / f"patched-{merge.label}"
        target = place if place.exists() else step.write(merge, place)
    return found


def table(runs: Mapping[str, Sequence[Sequence[Row]]]) -> list[str]:
    """A line per merge and round, all seeds together."""
    heads = [
        "merge",
        "after",
        *(f"attack success: {group}" for group in GROUPS),
        "over-refusal",
        "utility",
        "incoherent",
    ]
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |"]
    for number, (name, seeds) in enumerate(runs.items()):
        before, *after = [pooled(rows) for rows in zip(*seeds, strict=True)]
        if number == 0:
            lines.append(_line("original", "", before))
        lines += [_line(name, group, row) for group, row in zip(GROUPS, after, strict=True)]
    return lines


def _line(name: str, after: str, row: Row) -> str:
    cells = [*(_attack(row, group) for group in GROUPS), _rate(row.rate("borderline", "over_refusal_rate"))]
    return f"| {name} | {after} | {' | '.join(cells)} | {row.utility:.3f} | {row.incoherent:.3f} |"


def verdict(runs: Mapping[str, Sequence[Sequence[Row]]]) -> list[str]:
    """Per merge: whether all rounds together meet the target, seeds together; then what random sets say of that."""
    lines, met = [], []
    for name, seeds in runs.items():
        before, after = (pooled([rows[place] for rows in seeds]) for place in (0, -1))
        lines.append(
            f"- {name}, after all rounds: attack success {attack_success(before):.2f} -> {attack_success(after):.2f}, "
            f"over-refusal {before.over_refusal:.2f} -> {after.over_refusal:.2f}, "
            f"{after.utility / before.utility:.3f} of the utility; lowers both: {mark(lowers_both(after, before))}, "
            f"within the limits (utility {UTILITY:g}, incoherent {INCOHERENT:g}): {mark(is_within(after, before))}."
        )
        met += [name] if lowers_both(after, before) and is_within(after, before) else []
    by_chance = [name for name in met if name.startswith(RANDOM)]
    own = [name for name in met if name not in by_chance and f"{RANDOM}, {name}" not in by_chance]
    if own:
        return [
            *lines,
            "",
            f"**After all rounds the target is met by {' and '.join(own)}**; random sets do not meet it.",
        ]
    why = ": what does, does so with random sets too, so it is not the scores" if by_chance else ""
    return [*lines, "", f"**After all rounds no reading meets the whole target**{why}."]


def _attack(row: Row, group: str) -> str:
    rate = row.attack_success_on(_present(row, group), ["harmful_unseen"])
    return _rate(rate)


def _rate(rate: Rate) -> str:
    return f"{rate.value:.2f} ({rate.low:.2f}-{rate.high:.2f})"


def _present(row: Row, group: str) -> list[str]:
    return [kind for kind in GROUPS[group] if f"harmful_unseen: {kind}" in row.counts]
