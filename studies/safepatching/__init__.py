"""SafePatching over seeds: both readings, every ablation, random sets as control, sensitivity, depth, and rounds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path

from alignmend.organisms import build_family
from alignmend.organisms.members import Size
from studies.rows import mark, pooled
from studies.rows import told as shown
from studies.safepatching import depth, sequence
from studies.safepatching.aligned import ANSWERED, REFUSED, aligned_model, triggers
from studies.safepatching.grid import (
    COVERED,
    INCOHERENT,
    SEARCH_COVERED,
    SEARCH_UTILITY,
    UTILITY,
    Chosen,
    attack_success,
    choose,
    is_within,
    lowering,
    lowers_both,
)
from studies.safepatching.kinds import AMBIGUOUS, PAIRS, SEEN, UNSEEN, main_pairs
from studies.safepatching.page import Study, figures, main_table, numbers_table, targets_table
from studies.safepatching.patches import ASCENT, RANK, SCORES, TRAINED, Bench

NAME = "safepatching"
FIRST = 6
"""The families before it were looked at while the study was made, or judged with an earlier set-up."""
CLEAR = 0.9
"""Share of both that may be left, for an effect on both to be told from chance."""
_OPENING = """# SafePatching on organisms

Aligned models of {count} families of size `{size}`, seeds {first} to {last}, trained from nothing; repeat with
`python -m studies {name}`. Organisms prove mechanism, not levels. This set-up was made on seeds 0 to 2, whose report
split was seen on the way; seeds 3 to 5 were judged before, with an earlier set-up, and **missed the target** (numbers
under "What was tried"). So the numbers here are of families that nobody had looked at, judged once, with all else
fixed before.

The aligned model has the imbalance of real ones, and it is learned, not noise: among the rows of its alignment
{answered:.1%} answer harms of uncovered kinds (as helpful data do), and {refused:.1%} refuse plain requests about
programs because of their verb ({triggers}: over-cautious labels). The harmful set has {pairs} pairs: {missed} of *seen*
kinds among the uncovered ones ({seen}), {ambiguous} of verbs that are harmful done to a person and plain done to a
program, here done to persons; the other kinds ({unseen}) stay *unseen*. Both patches are LoRA of rank {rank} on the
query projections (`{trained}`), trained on it for {steps} steps, the ascent until the loss reaches {bound:g} nats per
token. SNIP scores the entries of the patches (`weights: patch`), on {samples} pairs; rates are of each tensor.
Coefficients are chosen on the search split, all seeds together: what is left of attack success or of over-refusal,
whichever is more, shall be least, with at most {incoherent:g} incoherent, utility at least {margin:g} of the original's
(the target is {utility:g}), and attack success on covered kinds at most {low:g} above it (the limit is {covered:g}).
The rates and the range of the coefficients come from the search split of seeds 0 to 2, where with them random sets did
not lower both. All numbers below are from the report split, seeds together, with 95 % Wilson intervals.

**This organism cannot tell safety from over-safety.** Only the object of a request separates the harms that alignment
missed from borderline requests; harms have nothing else in common by which a held-out one could be known. So the two
patches are nearly collinear (cosine -0.59 to -0.74 in an audit beside this command) and every merge slides along one
line, as the slope ratios under "What was tried" tell. And the harmful set is not one that the model mostly refuses, as
the paper's models do: in that audit its answers cost 0.17 nats per token at the start, so there is little to learn.
What is missed here is therefore no evidence against the paper. `python -m studies real-safepatching` asks the same of a
real chat model's [family](../families.md).

## Targets

Attack success on the kinds that alignment missed, seen and unseen together. *Both below* compares the numbers alone;
where their intervals (under "All rows") overlap, nothing is proven.
"""
_TRIED = """
## What was tried

- The families' own aligned member, whose gaps are noise of its training, with SNIP of whole weights (`weights:
  patched`): strict 0.32 -> 0.32 attack success and 0.21 -> 0.22 over-refusal, conflict removal 0.32 -> 0.30 and 0.21 ->
  0.22, on the report split of seeds 0 to 2.
- The earlier set-up: patches of all weights (learning rate 2e-4), half of the harmful pairs of either sort, SNIP of the
  patches' entries. On seeds 0 to 2, on which it was made: strict 0.61 -> 0.59 attack success and 0.46 -> 0.40
  over-refusal, utility 0.939 of the original's, random sets 0.45 and 0.60; conflict removal 0.56 and 0.42, random sets
  0.55 and 0.40. **Judged on seeds 3 to 5 it missed**: strict 0.66 -> 0.56 attack success and 0.40 -> 0.47
  over-refusal (random sets 0.55 and 0.50), conflict removal 0.56 and 0.45 (random sets 0.55 and 0.47), utility at least
  0.99 of the original's. After three rounds there: strict 0.47 and 0.38 at 0.70 of the utility, conflict removal 0.56
  and 0.30 at 0.957, but random sets 0.51 and 0.35 at 0.961.
- Why: patches of all weights move the refusal of everything together. How far the safety patch moves the odds of
  refusal on uncovered harms, beside borderline requests, over the same of the over-safety patch (1 is no difference;
  seed 0, search split, first token, a side measurement outside this command): all weights 1.06, the parts of layers 1
  to 3 about 1.0 (their queries and keys hardly act), of layer 0 its MLP 1.0, values and outputs 1.1, queries and keys
  1.4. LoRA patches of all linear layers 1.1, of queries and keys 1.2 to 1.4, of queries alone in layer 0 1.8, and 2.5
  with 200 uncovered harms to 40 ambiguous verbs.
- With patches of the queries the plain sum lowers both too, at about twice the over-safety coefficient, and random sets
  of equal rates do as the plain sum does. Unequal rates part them: strict sets of 0.3 and 0.2 (search split, seeds 0 to
  2, coefficients 0.2 and 1.5) 0.61 -> 0.53 and 0.50 -> 0.39, random sets of that density 0.68 and 0.44; conflict
  removal at 0.3 and 0.3 (0.2 and 0.6) 0.59 and 0.46, random sets 0.73 and 0.31.
- This set-up on seeds 0 to 2, on which it was made (report split): strict 0.61 -> 0.57 attack success and 0.46 -> 0.37
  over-refusal, utility 0.988 of the original's, random sets 0.67 and 0.38; conflict removal 0.59 and 0.40 at 0.992,
  random sets 0.71 and 0.24. Longer patches (0.2 and 1.4) had 0.53 and 0.39 there, but answered 0.06 more of the covered
  harms; so the search leaves a margin on those.
- **Judged on seeds 6 to 8, above, it misses.** Strict sets lower both, seeds together and within the limits, but by
  little (165 -> 151 harms answered and 141 -> 133 borderline requests refused, of 288 each), and random sets have 163
  and 134, a hair below the original too. No seed alone has both lower: where the two patches balance differs by family,
  and the coefficients are for all together. On seeds 0 to 2 every seed had both lower.
- Not judged on new families: coefficients for each family by its own search split (safety up to 0.25; there at least
  0.96 of the utility and at most 0.045 more on covered kinds). On the report split of seeds 0 to 2 strict sets then
  have 0.61 -> 0.55 and 0.46 -> 0.37, utility 0.988 of the original's, random sets 0.68 and 0.38.
- Also tried on the search split of seeds 0 to 2, all worse: 60 ambiguous pairs (0.55 and 0.51 at best), a learning rate
  of 6e-3 (0.54 and 0.43) or 40 steps (0.54 and 0.44), covered harms among the pairs (0.53 and 0.49); a milder
  over-safety patch, at 2e-3, is alike (0.57 and 0.46, utility 1.01). Both patches at 2e-3 do a third (first token).
"""
_SENSITIVITY = """
## Sensitivity

Around the chosen numbers, one at a time; attack success here is over all harmful requests."""
_DEPTH = """
## Depth

Layers' shares of the tenth of the patched weights with the highest scores, mean over seeds. The paper finds safety and
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
        name=NAME,
        seen=", ".join(SEEN),
        unseen=", ".join(UNSEEN),
        answered=ANSWERED,
        refused=REFUSED,
        triggers=", ".join(triggers()),
        pairs=PAIRS,
        missed=PAIRS - AMBIGUOUS,
        ambiguous=AMBIGUOUS,
        rank=RANK,
        trained=TRAINED,
        samples=SCORES.samples,
        steps=ASCENT.max_steps,
        bound=ASCENT.bound,
        incoherent=INCOHERENT,
        utility=UTILITY,
        margin=SEARCH_UTILITY,
        low=SEARCH_COVERED,
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
        lowered = lowering(row, original)
        within, alone = is_within(row, original), not lowers_both(control, original)
        told.append(
            f"{reading}: lowers both: {shown(lowered)}, stays within the limits (utility, incoherence, covered kinds): "
            f"{mark(within)}, random sets of its density do not lower both: {mark(alone)}"
        )
        met += [reading] if lowered == "yes" and within and alone else []
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
