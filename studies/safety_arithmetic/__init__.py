"""Safety Arithmetic over seeds: base, two fine-tunes and an edit, each stage alone and both, and random controls."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path

from alignmend.organisms.members import Size
from studies.figures import figure
from studies.rows import VERDICTS, told
from studies.safety_arithmetic.agreement import findings
from studies.safety_arithmetic.curves import coefficient_curve, density_curve, strength_curve
from studies.safety_arithmetic.grid import COEFFICIENTS, INCOHERENT, OVER_REFUSAL, STRENGTHS, UTILITY, choose
from studies.safety_arithmetic.measuring import Scenario
from studies.safety_arithmetic.scenarios import PAIRS, scenarios
from studies.safety_arithmetic.tables import (
    Study,
    main_table,
    own_best_table,
    own_best_verdict,
    targets_table,
    unclear,
)

NAME = "safety-arithmetic"


_OPENING = """# Safety Arithmetic on organisms

Families of size `{size}` (base and fine-tuned models) and `deep` (edited ones), {count} of each, seeds 0 to {last},
trained from nothing; repeat with `python -m studies {name}`. Organisms prove mechanism, not levels.

The harm model is the aligned one after 30 steps on a family's 240 harmful pairs; vectors are fitted on {pairs} contrast
pairs with the preset `recommended`, on the model that stage 1 has left. Coefficients are chosen per seed on the search
split, from {coefficients} and strengths {strengths}: the lowest attack success with at most {incoherent:g} incoherent,
utility at least {utility:g} of the target's, and over-refusal at most {over_refusal:g} above the aligned model's (a
limit that the paper does not set). The grid itself was fixed after a look at seed 0. All
numbers below are from the report split, all seeds together, with 95 % Wilson intervals. The same prompts are asked of
every seed, so intervals tell of prompts; the table of targets tells of seeds.

## Targets

Attack success over both harmful suites. *Utility* is the share of benign and task prompts answered right.
"""
_ROWS = """
Both stages keep their coefficients in the rows where they stand alone, as in the paper. The task vector has the
coefficient that suits it best. Random weights have the trimmed harm vector's norm in every tensor, but move every
weight and not a tenth of them; random vectors have the steering vector's norm in every layer.

## Each method at its own best

A harder comparison, which the paper does not make: each stage alone may take the coefficient that suits it best under
the same limits. {verdict}"""
_AGREEMENT = f"""## Where organisms agree with the paper, and where not

{VERDICTS}

| paper | here | agrees |
| --- | --- | --- |"""


def run(work: Path, *, seeds: Iterable[int], size: Size, pages: Path) -> str:
    """Measure everything, draw the figures into `pages`; returns the page."""
    studies = _measured(work / NAME, list(seeds), size)
    figures = _figures(studies, pages)
    lines = [_opening(size, len(studies[0].scenarios)), *targets_table(studies), *_caution(studies)]
    for study in studies:
        lines += ["", f"## {study.name[0].upper()}{study.name[1:]}", "", *_area(study), *main_table(study)]
    lines.append(_ROWS.format(verdict=own_best_verdict(studies)))
    for study in studies:
        lines += ["", f"**{study.name}**", "", *own_best_table(study)]
    lines += ["", "## Curves", "", *figures, _AGREEMENT]
    lines += [f"| {one.paper} | {one.here} | {told(one.verdict)} |" for one in findings(studies)]
    return "\n".join([*lines, ""])


def _caution(studies: list[Study]) -> list[str]:
    names = unclear(studies)
    if not names:
        return []
    return [
        "",
        "Small differences are not proven: with all seeds together, the intervals of Safety Arithmetic and of the "
        f"better of its parts overlap on {', '.join(names)}.",
    ]


def _opening(size: Size, count: int) -> str:
    return _OPENING.format(
        size=size,
        count=count,
        last=count - 1,
        name=NAME,
        pairs=PAIRS,
        coefficients=", ".join(f"{one:g}" for one in COEFFICIENTS),
        strengths=", ".join(f"{one:g}" for one in STRENGTHS),
        incoherent=INCOHERENT,
        utility=UTILITY,
        over_refusal=OVER_REFUSAL,
    )


def _measured(work: Path, seeds: list[int], size: Size) -> list[Study]:
    by_name: dict[str, list[Scenario]] = {}
    for seed in seeds:
        for scenario in scenarios(work, seed, size):
            by_name.setdefault(scenario.name, []).append(scenario)
    return [_study(name, found) for name, found in by_name.items()]


def _study(name: str, found: list[Scenario]) -> Study:
    chosen = []
    for scenario in found:
        started = time.monotonic()
        chosen.append(choose(scenario))
        print(f"{name}, seed {scenario.seed}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return Study(name, found, chosen)


def _area(study: Study) -> list[str]:
    areas = [one.layers for one in study.scenarios]
    if not any(areas):
        return []
    shown = "; ".join(f"seed {one.seed}: {', '.join(map(str, one.layers))}" for one in study.scenarios)
    return [f"Both stages act on the edited layers and their neighbours alone (equations 11 to 13): {shown}.", ""]


def _figures(studies: list[Study], pages: Path) -> list[str]:
    lines = []
    for study in studies:
        short = study.name.split(" (")[0] + ("-lora" if "LoRA" in study.name else "")
        drawn = {
            "density": figure(f"{study.name}: density", "share of the harm vector kept", density_curve(study)),
            "coefficient": figure(
                f"{study.name}: coefficient",
                "coefficient of HDR (dashed: attack success with the vector)",
                coefficient_curve(study),
                coefficient_curve(study, steered=True),
            ),
            "strength": figure(
                f"{study.name}: strength", "strength of the vector, on top of HDR", strength_curve(study)
            ),
        }
        for kind, text in drawn.items():
            file = f"{NAME}-{short}-{kind}.svg"
            (pages / file).write_text(text, encoding="utf-8")
            lines.append(f"![{study.name}: {kind}]({file})")
        lines.append("")
    return lines
