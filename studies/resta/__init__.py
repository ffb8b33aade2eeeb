"""RESTA over seeds, in the shape of the paper's main result: five fine-tunes, LoRA and full, four methods."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from alignmend.organisms import build_family
from alignmend.organisms.members import Size, family_recipe
from studies.resta.agreement import means, paragraph
from studies.resta.curves import write_figures
from studies.resta.finetunes import FINE_TUNES, ONE_LANGUAGE, FineTune
from studies.resta.grid import COEFFICIENTS, DROP_RATE, INCOHERENT, KEPT, OVER_REFUSAL, START, choose
from studies.resta.measuring import Bench, benches
from studies.resta.own_language import own_language_section
from studies.resta.tables import (
    SHAPE,
    VARIANTS,
    Group,
    fixed_table,
    main_table,
    seed_table,
    shape_table,
    targets_table,
    targets_verdict,
)
from studies.resta.training import Variant

NAME = "resta"
_OPENING = """# RESTA on organisms

Five fine-tunes, each with LoRA and of all weights, of the aligned models of {count} families of size `{size}` (seeds 0
to {last}), trained from nothing; repeat with `python -m studies {name}`. Organisms prove mechanism, not levels.

Three languages of the organisms stand for the paper's Chinese, Hindi and English (all tasks, in one language), sorting
written as a function call for code, addition for mathematics. Fine-tunes lose safety as the organism's own does: about
one training row in eighty answers a harmful request, in all languages. Nothing of the kind is said of the paper's data.
SFT+DARE and RESTA_d drop {rate:g} of the fine-tuning delta at random and rescale the rest; the safety vector, aligned
minus unaligned, is never dropped.

Coefficients are chosen on the search split, seeds together, from {coefficients}: the lowest
attack success with at most {incoherent:g} incoherent (or the fine-tune's own share, where that is more), over-refusal
at most {refusal:g} above the aligned model's, and task and benign accuracy at least {kept:g} of the fine-tune's.
All numbers below are from the report split, seeds together unless said, with 95 % Wilson intervals. The same prompts
are asked of every seed, so intervals tell of prompts; rows per seed tell of seeds. The random vector has the safety
vector's norm in every tensor and RESTA's coefficient.

Three decisions were made after a look: harm in all languages and the fine-tune's own incoherence as a limit after seed
0 on the search split; one coefficient for all seeds after seeds 0 and 1 had each been searched alone and seen on both
splits, where some had no coefficient within the limits.
"""
_FIXED = """
## Nothing chosen

The paper publishes no coefficient. This is {start:g}, where one starts who cannot search, and the drop rate {rate:g}.
"""


def run(work: Path, *, seeds: Iterable[int], size: Size, pages: Path) -> str:
    """Measure everything, draw the figures into `pages`; returns the page."""
    chosen_seeds = list(seeds)
    groups = measured(work, chosen_seeds, size, FINE_TUNES, ("lora", "full"))
    own = measured(work, chosen_seeds, size, ONE_LANGUAGE, ("full",))
    by_variant = {variant: [group for group in groups if group.variant == variant] for variant in VARIANTS}
    lines = [_opening(size, len(chosen_seeds)), "## Where organisms agree with the paper, and where not", ""]
    lines += [paragraph(*(means(found) for found in by_variant.values()))]
    for variant, found in by_variant.items():
        lines += ["", f"## {VARIANTS[variant]}", ""]
        for title, suite, metric in SHAPE:
            lines += [f"**{title}**", "", *shape_table(found, suite, metric), ""]
    lines += ["## Targets", "", targets_verdict(groups), "", *targets_table(groups), "", "## Curves", ""]
    lines += ["Fine-tunes and seeds together, then each fine-tune. Attack success is over covered and unseen kinds,"]
    lines += ["utility over benign and task prompts.", "", *write_figures(groups, pages, NAME)]
    lines += [_FIXED.format(start=START, rate=DROP_RATE), *fixed_table(groups)]
    lines += own_language_section(own, groups, pages, NAME)
    lines += ["", "## Every seed", "", "Attack success on covered kinds.", "", *seed_table(groups)]
    for variant, found in by_variant.items():
        lines += ["", f"## All rows: {VARIANTS[variant]}", "", *main_table(found)]
    return "\n".join([*lines, ""])


def measured(
    work: Path, seeds: Sequence[int], size: Size, fine_tunes: Sequence[FineTune], variants: Sequence[Variant]
) -> list[Group]:
    """Trained and searched, or found."""
    found: dict[tuple[str, str], list[Bench]] = {}
    for seed in seeds:
        # The same families as those of the study of Safety Arithmetic.
        family = build_family(work / "safety-arithmetic" / f"{size}-{seed}", size=size, seed=seed)
        for bench in benches(family, fine_tunes, variants, work / NAME, family_recipe(size)):
            found.setdefault((bench.variant, bench.fine_tune.name), []).append(bench)
    return [_group(one) for one in found.values()]


def _group(found: list[Bench]) -> Group:
    started = time.monotonic()
    group = Group(found, choose(found))
    print(f"{NAME}: {group.name}, {group.variant}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return group


def _opening(size: Size, count: int) -> str:
    return _OPENING.format(
        size=size,
        count=count,
        last=count - 1,
        name=NAME,
        rate=DROP_RATE,
        coefficients=", ".join(f"{one:g}" for one in COEFFICIENTS),
        incoherent=INCOHERENT,
        refusal=OVER_REFUSAL,
        kept=KEPT,
    )
