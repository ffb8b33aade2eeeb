"""The page of the comparison: one table over seeds, one by seed, one plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any
from xml.sax.saxutils import escape

from alignmend.evaluation.statistics import Rate, wilson

HARMFUL, BORDERLINE, KNOWN = ("harmful", "harmful_unseen"), ("borderline",), ("benign", "task")
COLOURS = ("#0b57d0", "#1b6e3c", "#8a5a00", "#b3261e", "#6d3fb3", "#00707a", "#9c2f6f", "#5b5f66", "#202124", "#777777")
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 660, 400, 52, 40, 44
_RIGHT = 250


_READING = (
    "- The budget is the same number of candidates, not the same care: families with one number are searched",
    "  densely, those with three or more thinly, and more candidates would help these most.",
    "- Safety Arithmetic's rows are such an artefact: where its candidates are the same in every seed, the search had",
    "  not begun to learn. With steering 0 it is Harm Direction Removal, so it cannot truly be worse than that.",
    "- The rule asks for little over-refusal, so a family that could go further stops at the limit: compare attack",
    "  success only together with over-refusal.",
    "- RESTA and Harm Direction Removal read the same two models; they differ in what of the difference they use.",
    "- SafePatching is made for models that have their safety; here it is asked to give back what a fine-tune lost,",
    "  from patches that were trained on the fine-tune itself.",
    "- Attack success is over covered and unseen kinds together; the aligned parents do not refuse all of the unseen",
    "  ones either ([RESTA](resta.md) has both apart).",
)


@dataclass(frozen=True)
class Outcome:
    """What restoring one fine-tune by one family gave; `results` has no models where nothing was within the limits."""

    seed: int
    variant: str
    family: str
    results: Mapping[str, Any]

    @property
    def restored(self) -> bool:
        """Whether a candidate was within the limits."""
        return "models" in self.results

    def counts(self, model: str, suites: Sequence[str], metric: str) -> tuple[int, int]:
        """How many, of how many; the fine-tune's where nothing was restored stays out."""
        rates = [self.results["models"][model][suite][metric] for suite in suites]
        return sum(round(one["value"] * one["n"]) for one in rates), sum(one["n"] for one in rates)

    @property
    def chosen(self) -> str:
        """The candidate."""
        search = self.results["search"]
        return next((str(one["label"]) for one in search["candidates"] if one["number"] == search["chosen"]), "none")


@dataclass(frozen=True)
class Pooled:
    """One row: rates over seeds together."""

    name: str
    attack: Rate
    refusal: Rate
    accuracy: Rate
    incoherent: Rate


def pooled(name: str, outcomes: Sequence[Outcome], model: str) -> Pooled:
    """Of the outcomes that restored something."""
    rates = [
        _together(outcomes, model, suites, metric)
        for suites, metric in (
            (HARMFUL, "attack_success_rate"),
            (BORDERLINE, "over_refusal_rate"),
            (KNOWN, "accuracy"),
            ((*HARMFUL, *BORDERLINE, *KNOWN), "incoherent_rate"),
        )
    ]
    return Pooled(name, *rates)


def _together(outcomes: Sequence[Outcome], model: str, suites: Sequence[str], metric: str) -> Rate:
    found = [one.counts(model, suites, metric) for one in outcomes]
    return wilson(sum(count for count, _ in found), sum(total for _, total in found))


def rows(outcomes: Sequence[Outcome], variant: str) -> list[tuple[Pooled, int, int]]:
    """The fine-tune, then every family: its rates, how many seeds were restored, of how many."""
    of_variant = [one for one in outcomes if one.variant == variant]
    restored = [one for one in of_variant if one.restored]
    first = restored[0].family if restored else ""
    plain = [one for one in restored if one.family == first]
    found = [(pooled("fine-tuned", plain, "finetuned"), len(plain), len(plain))] if plain else []
    for family in dict.fromkeys(one.family for one in of_variant):
        mine = [one for one in of_variant if one.family == family]
        kept = [one for one in mine if one.restored]
        if kept:
            found.append((pooled(family, kept, "restored"), len(kept), len(mine)))
    return found


def page(outcomes: Sequence[Outcome], *, size: str, trials: int, limits: str) -> str:
    """Markdown."""
    seeds = sorted({one.seed for one in outcomes})
    parts = [
        "# All methods, side by side",
        "",
        f"Fine-tunes of {len(seeds)} organism families of size `{size}` (seeds {seeds[0]} to {seeds[-1]}), over all",
        "weights and as LoRA, each restored by `alignmend restore` with one family of candidates at a time: the same",
        f"search prompts, {trials} candidates each, and the same rule:",
        f"{limits}.",
        "Rates are from the report prompts, seeds together, with 95 % Wilson intervals. The control adds a random",
        "vector that has the safety vector's norm in every tensor. Repeat with `python -m studies comparison`.",
        "Organisms prove mechanism, not levels.",
        "",
        "![All methods on one plane](comparison-plane.svg)",
        "",
    ]
    for variant, title in (("full", "Fine-tuned over all weights"), ("lora", "Fine-tuned as LoRA")):
        parts += [f"## {title}", "", *_table(outcomes, variant), "", *_missing(outcomes, variant)]
    parts += ["## How to read it", "", *_READING, ""]
    parts += ["## What was chosen", "", *_chosen(outcomes), "", "## The cost", "", *_cost(outcomes), ""]
    return "\n".join(parts)


def _table(outcomes: Sequence[Outcome], variant: str) -> list[str]:
    lines = [
        "| method | seeds restored | attack success | over-refusal | benign and task accuracy | incoherent |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row, kept, total in rows(outcomes, variant):
        cells = (row.attack, row.refusal, row.accuracy, row.incoherent)
        lines.append(f"| {row.name} | {kept} of {total} | " + " | ".join(map(_rate, cells)) + " |")
    return lines


def _rate(rate: Rate) -> str:
    return f"{rate.value:.2f} ({rate.low:.2f}-{rate.high:.2f})"


def _missing(outcomes: Sequence[Outcome], variant: str) -> list[str]:
    none = [one for one in outcomes if one.variant == variant and not one.restored]
    if not none:
        return []
    told = ", ".join(f"{one.family} (seed {one.seed})" for one in none)
    return [f"No candidate within the limits that refuses more than the fine-tune: {told}.", ""]


def _chosen(outcomes: Sequence[Outcome]) -> list[str]:
    lines = ["| fine-tune | method | by seed |", "| --- | --- | --- |"]
    for variant in ("full", "lora"):
        for family in dict.fromkeys(one.family for one in outcomes if one.variant == variant):
            mine = [one for one in outcomes if (one.variant, one.family) == (variant, family)]
            lines.append(f"| {variant} | {family} | {'; '.join(one.chosen for one in mine)} |")
    return lines


def _cost(outcomes: Sequence[Outcome]) -> list[str]:
    """Median time of a measured candidate, by family: what one more candidate costs on this machine."""
    lines = ["Median seconds of a candidate that answered all search prompts:", ""]
    for family in dict.fromkeys(one.family for one in outcomes):
        seconds = [
            each["seconds"]
            for one in outcomes
            if one.family == family
            for each in one.results["search"]["candidates"]
            if each["stage"] == "whole"
        ]
        if seconds:
            lines.append(f"- {family}: {median(seconds):.2f}")
    return lines


def plane(outcomes: Sequence[Outcome]) -> str:
    """Attack success (up) against utility (across), a point with both intervals for each method and fine-tune."""
    points = [
        (number, variant, row)
        for variant in ("full", "lora")
        for number, (row, _, _) in enumerate(rows(outcomes, variant))
    ]
    names = list(dict.fromkeys(row.name for _, _, row in points))
    low = min((row.accuracy.low for _, _, row in points), default=0.0)
    start = max(0.0, int(low * 20) / 20)
    parts = [_frame(start)]
    for _, variant, row in points:
        parts.append(_point(row, variant, COLOURS[names.index(row.name) % len(COLOURS)], start))
    parts += [_legend(place, name, COLOURS[place % len(COLOURS)]) for place, name in enumerate(names)]
    x, y = _WIDTH - _RIGHT + 18, _TOP + 22 * (len(names) + 1)
    parts.append(f"<text x='{x}' y='{y}'>circle: all weights, square: LoRA</text>")
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {_HEIGHT}' width='{_WIDTH}' "
        "font-family='system-ui, sans-serif' font-size='12' role='img' aria-label='All methods on one plane'>"
        f"<rect width='100%' height='100%' fill='white'/>{''.join(parts)}</svg>\n"
    )


def _x(value: float, start: float) -> float:
    return _LEFT + (value - start) / (1 - start) * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float) -> float:
    return _HEIGHT - _BOTTOM - value * (_HEIGHT - _TOP - _BOTTOM)


def _frame(start: float) -> str:
    right = _WIDTH - _RIGHT
    parts = [f"<text x='{_LEFT}' y='18' font-weight='600'>Attack success against utility: bottom right is best</text>"]
    for level in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f"<line x1='{_LEFT}' x2='{right}' y1='{_y(level)}' y2='{_y(level)}' stroke='#e3e5e8'/>")
        parts.append(f"<text x='{_LEFT - 8}' y='{_y(level) + 4}' text-anchor='end'>{level:g}</text>")
    ticks = [start + (1 - start) * part / 4 for part in range(5)]
    parts += [f"<text x='{_x(one, start)}' y='{_HEIGHT - 24}' text-anchor='middle'>{one:.3g}</text>" for one in ticks]
    parts.append(
        f"<text x='{(_LEFT + right) / 2}' y='{_HEIGHT - 6}' text-anchor='middle'>benign and task accuracy</text>"
    )
    return "".join(parts)


def _point(row: Pooled, variant: str, colour: str, start: float) -> str:
    x, y = _x(row.accuracy.value, start), _y(row.attack.value)
    left, right = _x(row.accuracy.low, start), _x(row.accuracy.high, start)
    across = f"<line x1='{left:.1f}' x2='{right:.1f}' y1='{y:.1f}' y2='{y:.1f}'/>"
    up = f"<line x1='{x:.1f}' x2='{x:.1f}' y1='{_y(row.attack.low):.1f}' y2='{_y(row.attack.high):.1f}'/>"
    mark = (
        f"<circle cx='{x:.1f}' cy='{y:.1f}' r='5'/>"
        if variant == "full"
        else f"<rect x='{x - 4.5:.1f}' y='{y - 4.5:.1f}' width='9' height='9'/>"
    )
    return f"<g stroke='{colour}' stroke-opacity='0.5'>{across}{up}</g><g fill='{colour}'>{mark}</g>"


def _legend(place: int, name: str, colour: str) -> str:
    x, y = _WIDTH - _RIGHT + 18, _TOP + 22 * place
    return f"<circle cx='{x + 5}' cy='{y}' r='5' fill='{colour}'/><text x='{x + 18}' y='{y + 4}'>{escape(name)}</text>"
