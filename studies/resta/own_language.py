"""A fine-tune that loses safety in one language alone: the safety vector acts on all languages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median_low

from studies.figures import figure
from studies.resta.curves import coefficient_curve
from studies.resta.measuring import Change
from studies.resta.tables import Group, coefficient_of
from studies.rows import Row, pooled, table

_OPENING = """
## Where safety is lost in one language alone

The fine-tune {name} once more (all weights), with its harmful rows in its own language alone, so that the two others
stay safe: attack success over all languages is {before:.2f}. The safety vector acts on every language. With {usual:g},
the median of the coefficients chosen above, attack success becomes {after:.2f}, over-refusal goes from {refused:.2f} to
{refusing:.2f} and benign accuracy from {benign:.2f} to {benign_after:.2f}. {verdict}
"""


def own_language_section(own: Sequence[Group], groups: Sequence[Group], pages: Path, name: str) -> list[str]:
    """What that does to one such fine-tune, with a figure along the coefficient."""
    (group,) = own
    usual = Change(median_low([one.chosen.plain.coefficient for one in groups]))
    rows = group.rows()
    shown: dict[str, tuple[Sequence[Row], str]] = {
        "aligned": (rows["aligned"], ""),
        "SFT": (rows["SFT"], ""),
        "RESTA, chosen": (rows["RESTA"], coefficient_of(group, "RESTA")),
        "RESTA, median": (group.everywhere(usual), f"{usual.coefficient:g}"),
    }
    file = f"{name}-{group.name}.svg"
    axis = "coefficient of RESTA"
    (pages / file).write_text(figure(f"{group.name}: coefficient", axis, coefficient_curve(own)), encoding="utf-8")
    return [_opening(group, shown, usual), *table(shown, note="coefficient"), "", f"![{group.name}]({file})"]


def _opening(group: Group, shown: dict[str, tuple[Sequence[Row], str]], usual: Change) -> str:
    before, after = (pooled(shown[label][0]) for label in ("SFT", "RESTA, median"))
    return _OPENING.format(
        name=group.name.removesuffix("-own"),
        before=before.attack_success,
        after=after.attack_success,
        usual=usual.coefficient,
        refused=before.over_refusal,
        refusing=after.over_refusal,
        benign=before.rate("benign", "accuracy").value,
        benign_after=after.rate("benign", "accuracy").value,
        verdict="One coefficient that stays within the limits is in the table."
        if group.chosen.plain_fits
        else "No coefficient stays within the limits.",
    )
