"""What changes along the coefficient and the drop rate: the figures of the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from studies.figures import Curve, figure
from studies.resta.grid import COEFFICIENTS, DROP_RATES
from studies.resta.measuring import Change
from studies.resta.tables import VARIANTS, Group
from studies.rows import Row, pooled


def write_figures(groups: Sequence[Group], pages: Path, name: str) -> list[str]:
    """Draw everything into `pages`; returns the lines that show it."""
    drawn = {}
    for variant, told in VARIANTS.items():
        found = [group for group in groups if group.variant == variant]
        drawn[f"coefficient-{variant}"] = figure(
            f"{told}: coefficient",
            "coefficient of RESTA",
            coefficient_curve(found),
        )
        drawn[f"drop-{variant}"] = figure(
            f"{told}: drop rate",
            "drop rate of RESTA_d (dashed: attack success of SFT+DARE)",
            drop_curve(found),
            drop_curve(found, alone=True),
        )
    for one in dict.fromkeys(group.name for group in groups):
        full, lora = ([group for group in groups if (group.name, group.variant) == (one, v)] for v in ("full", "lora"))
        axis = "coefficient, all weights (dashed: attack success, LoRA)"
        drawn[one] = figure(f"{one}: coefficient", axis, coefficient_curve(full), coefficient_curve(lora))
    for kind, text in drawn.items():
        (pages / f"{name}-{kind}.svg").write_text(text, encoding="utf-8")
    return [f"![{kind}]({name}-{kind}.svg)" for kind in drawn]


def coefficient_curve(groups: Sequence[Group]) -> Curve:
    """RESTA from no step to the longest."""
    return [(step, _all(groups, lambda _, step=step: Change(step))) for step in (0.0, *COEFFICIENTS)]  # type: ignore[misc]


def drop_curve(groups: Sequence[Group], *, alone: bool = False) -> Curve:
    """RESTA_d at its chosen coefficient, or dropping alone, from no drop to nearly all."""

    def change(chosen: Change, rate: float) -> Change:
        return Change(drop_rate=rate) if alone else replace(chosen, drop_rate=rate)

    return [(rate, _all(groups, lambda one, rate=rate: change(one, rate))) for rate in (0.0, *DROP_RATES)]  # type: ignore[misc]


def _all(groups: Sequence[Group], change: Callable[[Change], Change]) -> Row:
    """Fine-tunes and seeds together."""
    rows = []
    for group in groups:
        rows += group.everywhere(change(group.chosen.dropped))
    return pooled(rows)
