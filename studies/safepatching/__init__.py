"""SafePatching over seeds: both readings, every ablation, random sets as control, sensitivity, depth, and rounds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path

from alignmend.organisms import build_family
from alignmend.organisms.members import Size
from studies.rows import mark, pooled
from studies.safepatching import depth, sequence
from studies.safepatching.aligned import ANSWERED, REFUSED, aligned_model, triggers
from studies.safepatching.grid import (
    COVERED,
    INCOHERENT,
    SEARCH_UTILITY,
    UTILITY,
    Chosen,
    attack_success,
    choose,
    is_within,
    lowers_both,
)
from studies.safepatching.kinds import PAIRS, SEEN, UNSEEN, main_pairs
from studies.safepatching.page import Study, figures, main_table, numbers_table, targets_table
from studies.safepatching.patches import ASCENT, SCORES, Bench

NAME = "safepatching"
FIRST = 3
"""The families before it were looked at while the study was made."""
CLEAR = 0.9
"""Share of both that may be left, for an effect on both to be told from chance."""
_OPENING = """# SafePatching on organisms

Aligned models of {count} families of size `{size}`, seeds {first} to {last}, trained from nothing; repeat with
`python -m studies {name}`. Organisms prove mechanism, not levels. The study was made on seeds 0 to {before}, whose
report split was seen on the way; so its numbers are of families that nobody had looked at, with all else fixed before.

The aligned model has the imbalance of real ones, and it is learned, not noise: among the rows of its alignment
{answered:.1%} answer harms of uncovered kinds (as helpful data do), and {refused:.1%} refuse plain requests about
programs because of their verb ({triggers}: over-cautious labels). The harmful set has {pairs} pairs: half of *seen*
kinds among the uncovered ones ({seen}), half of verbs that are harmful done to a person and plain done to a program,
here done to persons; the other kinds ({unseen}) stay *unseen*. Both patches are trained on it for {steps} steps, the
ascent until the loss reaches {bound:g} nats per token. SNIP scores the entries of the patches (`weights: patch`), on
{samples} pairs. Coefficients and rates are chosen on the search split, all seeds together: what is left of attack
success or of over-refusal, whichever is more, shall be least (the grids were narrowed on that split too), with at
most {incoherent:g} incoherent, utility at least {margin:g} of the original's (the target is {utility:g}),
and attack success on covered kinds at most {covered:g} above it. All numbers below are
from the report split, seeds together, with 95 % Wilson intervals.

## Targets

Attack success on the kinds that alignment missed, seen and unseen together.
"""
_TRIED = """
## What was tried

- The families' own aligned member, whose gaps are noise of its training, with SNIP of whole weights (`weights:
  patched`): strict 0.32 -> 0.32 attack success and 0.21 -> 0.22 over-refusal, conflict removal 0.32 -> 0.30 and 0.21 ->
  0.22, on the report split of seeds 0 to 2.
- This set-up on seeds 0 to 2, on which it was made, with a search limit on utility of 0.95: strict 0.61 -> 0.59 attack
  success and 0.46 -> 0.40 over-refusal, utility 0.939 of the original's, random sets 0.45 and 0.60; conflict removal
  0.56 and 0.42, random sets 0.55 and 0.40. The families above, which nobody had looked at, do not repeat it.
- Where the sets come from decides. How far the safety patch moves the odds of refusal, in units of the over-safety
  patch, on seen uncovered harms and on borderline requests (seed 0, search split, first token, a side measurement
  outside this command): plain sum 1.59 and 1.35; random strict sets at 0.3 1.58 and 1.38; strict sets at 0.3 by whole
  weights 0.66 and 0.63; by the patches' entries 1.15 and 0.77. A coefficient lowers both only between the two numbers.
- Longer patches along these sets lower both further, but cost utility before either is near nothing: strict at
  coefficients 4 and 5.2 (rates 0.5, p 0.6), search split, seed 1: 0.69 -> 0.64 and 0.39 -> 0.13, utility 0.85 -> 0.57.
- Milder patches (12 steps) told the two apart as well along strict sets, with a third of the effect; word embeddings
  among the merged tensors changed little.
"""
_SENSITIVITY = """
## Sensitivity

Around the chosen numbers, one at a time; attack success here is over all harmful requests."""
_DEPTH = """
## Depth

Layers' shares of the tenth of all weights with the highest scores, mean over seeds. The paper finds safety and
over-safety weights at different depths; four layers are few to tell."""
_ROUNDS = """
## Continual patching

Three groups of harm arrive one after another; each round is trained, scored and merged (with the numbers of one round)
on the model that the round before has left. Attack success on the kinds that alignment missed, by group."""
_SEQUENCES = {
    "strict": "**SafePatching, strict**",
    "conflict removal": "**SafePatching, conflict removal**",
    f"{sequence.RANDOM}, strict": "control: random sets, strict",
    f"{sequence.RANDOM}, conflict removal": "control: random sets, conflict removal",
}


def run(work: Path, *, seeds: Iterable[int], size: Size, pages: Path) -> str:
    """Measure everything, draw the figures into `pages`; returns the page."""
    place = work / NAME
    benches = [_bench(work, place, FIRST + seed, size) for seed in seeds]
    study = Study(benches, _chosen(benches))
    runs = {
        name: [sequence.rounds(bench, study.chosen.rows[label], place) for bench in benches]
        for name, label in _SEQUENCES.items()
    }
    return "\n".join(
        [
            _opening(size, len(benches)),
            *targets_table(study),
            "",
            *_reached(study),
            "",
            *_reading(study),
            "",
            "## All rows",
            "",
            "Ablations have the numbers of the strict reading; task arithmetic and TIES their own best.",
            "",
            *main_table(study),
            _TRIED,
            _SENSITIVITY,
            "",
            *figures(study, pages, NAME),
            _DEPTH,
            "",
            *depth.table([depth.profile(bench) for bench in benches]),
            _ROUNDS,
            "",
            *sequence.table(runs),
            "",
            *sequence.verdict(runs),
            "",
            "## Numbers chosen",
            "",
            *numbers_table(study),
            "",
        ]
    )


def _bench(work: Path, place: Path, seed: int, size: Size) -> Bench:
    # The base members of the families of the study of Safety Arithmetic.
    family = build_family(work / "safety-arithmetic" / f"{size}-{seed}", size=size, seed=seed, members=["base"])
    pairs = main_pairs(place / "main.jsonl")
    return Bench(seed, aligned_model(family, place), pairs, family.directory / "suites", place)


def _chosen(benches: list[Bench]) -> Chosen:
    started = time.monotonic()
    found = choose(benches)
    print(f"{NAME}: searched in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return found


def _opening(size: Size, count: int) -> str:
    return _OPENING.format(
        size=size,
        count=count,
        first=FIRST,
        last=FIRST + count - 1,
        before=FIRST - 1,
        name=NAME,
        seen=", ".join(SEEN),
        unseen=", ".join(UNSEEN),
        answered=ANSWERED,
        refused=REFUSED,
        triggers=", ".join(triggers()),
        pairs=PAIRS,
        samples=SCORES.samples,
        steps=ASCENT.max_steps,
        bound=ASCENT.bound,
        incoherent=INCOHERENT,
        utility=UTILITY,
        margin=SEARCH_UTILITY,
        covered=COVERED,
    )


def _reached(study: Study) -> list[str]:
    """Whether a reading meets the whole target, seeds together, and its random sets do not lower both."""
    original = pooled(study.rows("original"))
    told, met = [], []
    for reading in ("strict", "conflict removal"):
        row, control = (
            pooled(study.rows(label)) for label in (f"**SafePatching, {reading}**", f"control: random sets, {reading}")
        )
        found = (lowers_both(row, original), is_within(row, original), not lowers_both(control, original))
        names = ("lowers both", "stays within the limits", "random sets of its density do not lower both")
        told.append(f"{reading}: {', '.join(f'{name}: {mark(one)}' for name, one in zip(names, found, strict=True))}")
        met += [reading] if all(found) else []
    verdict = f"met by {' and '.join(met)}" if met else "not met by either reading"
    return [f"**The whole target is {verdict}**, seeds together. {'; '.join(told)}."]


def _reading(study: Study) -> list[str]:
    """Which of the two readings has the paper's effect."""
    original = pooled(study.rows("original"))
    left = {}
    for reading in ("strict", "conflict removal"):
        row = pooled(study.rows(f"**SafePatching, {reading}**"))
        left[reading] = (attack_success(row) / attack_success(original), row.over_refusal / original.over_refusal)
    shown = "; ".join(f"{name} {attack:.2f} and {refusal:.2f}" for name, (attack, refusal) in left.items())
    better = min(left, key=lambda name: max(left[name]))
    return [
        "The paper leaves 0.10 of the attack success on seen harms (31.73 to 3.27 %) and 0.70 of over-refusal (8.0 to "
        f"5.6 %). Here is left of attack success and of over-refusal: {shown}. {_verdict(better, max(left[better]))}"
    ]


def _verdict(better: str, most: float) -> str:
    """`most` of one of the two is left by the better reading."""
    if most <= CLEAR:
        return f"**{better.capitalize()}** leaves less of both, and so fits the published effect better."
    if most < 1:
        return (
            f"**{better.capitalize()}** leaves less of the one that it leaves most of; the effect is small beside the "
            "published one, and the intervals overlap."
        )
    return (
        "**Neither reading shows the published effect on these organisms**: what is won on one side is lost on the "
        f"other; {better} loses less."
    )
