"""What the paper reports and what organisms show, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from alignmend.evaluation.statistics import Rate
from studies.resta.grid import kept
from studies.resta.tables import Group
from studies.rows import Row, Verdict, is_below, least, pooled

HALF = 0.5
CLEAR = 0.02
"""Differences between means that are smaller are none."""
CHEAP = 0.05


@dataclass(frozen=True)
class Finding:
    """A claim of the paper and what is found here."""

    paper: str
    here: str
    agrees: bool


@dataclass(frozen=True)
class Means:
    """Of one variant over its fine-tunes, seeds pooled; attack success is of covered kinds."""

    aligned: float
    before: float
    dropped: float
    after: float
    after_dropped: float
    cost: float
    """Share of the task accuracy that RESTA takes."""
    refusal: tuple[float, float, float]
    """Over-refusal of the aligned models, of the fine-tunes, and after RESTA."""
    lost: Verdict
    """Whether fine-tuning raised attack success; the least of the fine-tunes decides."""
    restored: Verdict
    """Whether RESTA lowered it, likewise."""
    paid: Verdict
    """Whether the task pays for it, likewise."""

    @property
    def left(self) -> float:
        """Share of the attack success that RESTA leaves."""
        return self.after / self.before if self.before else 0.0


def means(groups: Sequence[Group]) -> Means:
    """Means of one variant."""
    found = [{label: pooled(rows) for label, rows in group.rows().items()} for group in groups]

    def mean(label: str) -> float:
        return sum(_attack(rows[label]) for rows in found) / len(found)

    refusals = [sum(rows[label].over_refusal for rows in found) / len(found) for label in ("aligned", "SFT", "RESTA")]
    cost = sum(1 - kept(rows["RESTA"], rows["SFT"], "task") for rows in found) / len(found)
    return Means(
        mean("aligned"),
        mean("SFT"),
        mean("SFT+DARE"),
        mean("RESTA"),
        mean("RESTA_d"),
        cost,
        (refusals[0], refusals[1], refusals[2]),
        least(is_below(_rate(rows["aligned"]), _rate(rows["SFT"])) for rows in found),
        least(is_below(_rate(rows["RESTA"]), _rate(rows["SFT"])) for rows in found),
        least(is_below(rows["RESTA"].rate("task", "accuracy"), rows["SFT"].rate("task", "accuracy")) for rows in found),
    )


def findings(lora: Means, full: Means) -> Iterator[Finding]:
    """Claim by claim."""
    yield Finding(
        "fine-tuning compromises safety: mean unsafety 18.6 % with PEFT, 9.2 % with full fine-tuning",
        f"from {full.aligned:.3f} to {lora.before:.3f} and {full.before:.3f}: far more, as harm slips in on purpose",
        min(lora.before - lora.aligned, full.before - full.aligned) > CLEAR and least((lora.lost, full.lost)) == "yes",
    )
    yield Finding(
        "RESTA restores it: to 5.1 % and 1.5 %",
        f"to {lora.after:.3f} and {full.after:.3f}",
        max(lora.left, full.left) < HALF and least((lora.restored, full.restored)) == "yes",
    )
    yield Finding(
        "PEFT loses more safety than full fine-tuning",
        f"{lora.before:.3f} against {full.before:.3f}",
        lora.before - full.before > CLEAR,
    )
    yield Finding(
        "full fine-tunes are restored further: 0.16 of the unsafety is left, against 0.27",
        f"{full.left:.3f} is left, against {lora.left:.3f}",
        lora.left - full.left > CLEAR,
    )
    proven = least((lora.paid, full.paid)) == "yes"
    yield Finding(
        "the task pays little, about 2.4 % with PEFT and 0.5 % with full fine-tuning",
        f"{100 * lora.cost:.1f} % and {100 * full.cost:.1f} %"
        f"{'' if proven else '; that it pays at all is not proven, intervals overlap'}",
        max(lora.cost, full.cost) <= CHEAP,
    )
    yield Finding(
        "dropping before (RESTA_d) helps, with PEFT in particular",
        f"with LoRA {lora.after_dropped:.3f} after RESTA_d, {lora.after:.3f} after RESTA",
        lora.after - lora.after_dropped > CLEAR,
    )


def paragraph(lora: Means, full: Means) -> str:
    """In one paragraph: where organisms agree with the paper, where not, and what the paper does not report."""
    told: dict[bool, list[str]] = {True: [], False: []}
    for one in findings(lora, full):
        told[one.agrees].append(f"{one.paper} (here: {one.here})")
    aligned, before, after = (f"{one:.2f} and {two:.2f}" for one, two in zip(lora.refusal, full.refusal, strict=True))
    parts = [
        f"Organisms agree with the paper that {'; that '.join(told[True])}." if told[True] else "",
        f"They do not show that {'; that '.join(told[False])}." if told[False] else "",
        f"Dropping alone leaves {lora.dropped:.3f} and {full.dropped:.3f} of attack success.",
        "What the paper does not report is over-refusal (LoRA and full): "
        f"aligned {aligned}, fine-tuned {before}, after RESTA {after}.",
    ]
    return " ".join(part for part in parts if part)


def _attack(row: Row) -> float:
    return _rate(row).value


def _rate(row: Row) -> Rate:
    return row.rate("harmful", "attack_success_rate")
