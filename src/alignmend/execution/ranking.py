"""The exact cut of a ranking, without a sort and without a second copy of the scores.

Bit patterns of non-negative float32 sort as the numbers do, so the cut is a pattern. A small sample brackets it; one
pass counts what lies above the bracket and makes a histogram of what lies inside. Where the bracket misses, the
histogram of the remaining patterns is taken instead: each further pass narrows 2^20-fold, so it ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np

from alignmend.algebra.nodes import Source, Top
from alignmend.algebra.resolver import row_length
from alignmend.algebra.structure import Ranked, population
from alignmend.algebra.thresholds import Cut, Cuts, Findings
from alignmend.errors import MismatchError
from alignmend.execution.blocks import Evaluator
from alignmend.execution.files import Files
from alignmend.execution.parallel import in_order
from alignmend.execution.scores import (
    LARGEST,
    Bracket,
    Counts,
    Part,
    PartTally,
    Patterns,
    changed,
    parts_of,
    patterns_of,
    sampled,
    tallied,
    thinned,
    tie_stop,
    zero_bits,
)

SAMPLE_SIZE = 2_000_000
CACHED = 32
"""A single tensor is sampled only when it is so many times larger."""
LEAST_RUN = 256
"""Elements, about, that are sampled at least from a large part; of a very large model only every so many parts."""
REMEMBERED = 4_000_000
"""Histogram entries of single parts that are kept to locate ties; beyond it they are counted again."""
LARGE = 1 << 24
"""Elements of a tensor that is worth all threads."""
FEW = 1 << 20
"""Elements of a tensor whose whole histogram costs less than a sample."""
THINNING = 61
"""One element in so many, which divides no usual number of columns."""
MARGIN = 12.0
"""Half width of the bracket in standard errors of an independent sample; neighbours are not independent, hence wide."""

Each: TypeAlias = Callable[[Sequence[Part], Callable[[Evaluator, Part], Any]], Iterator[Any]]
"""Work done on parts, with results in their order."""


def find_cuts(ranking: Top, target: Source, found: Findings, files: Files, threads: int) -> Cuts:
    """The cuts of one ranking, given what was found of those inside of it.

    Raises `NonFiniteError` where a score is NaN or infinite.
    """
    members = population(ranking, target, found)
    if not members:
        raise MismatchError(f"nothing to rank: the expression selects no weight of {target.folder.location}")
    if ranking.scope == "model":
        return {None: _find_cut(members, ranking, _shared(files, threads), REMEMBERED)}
    find = _count_rows if ranking.scope == "row" else _find_cuts
    return dict(find(members, ranking, files, threads))


def _count_rows(members: tuple[Ranked, ...], ranking: Top, *_: object) -> Iterator[tuple[str, Cut]]:
    return ((member.entry.name, _counted(member, ranking)) for member in members)


def _find_cuts(members: tuple[Ranked, ...], ranking: Top, files: Files, threads: int) -> Iterator[tuple[str, Cut]]:
    """A cut for each tensor: a thread has a tensor to itself, except that all share one that is large."""
    for large, group in groupby(members, lambda member: member.entry.size > LARGE):
        if large:
            yield from (
                (one.entry.name, _find_cut((one,), ranking, _shared(files, threads), REMEMBERED)) for one in group
            )
            continue
        found = in_order(
            group,
            lambda: Evaluator(files),
            lambda own, one: _find_cut((one,), ranking, partial(_alone, own), REMEMBERED // threads),
            threads,
        )
        yield from ((one.entry.name, cut) for one, cut in found)


def _shared(files: Files, threads: int) -> Each:
    """Work on parts by all threads."""
    return lambda parts, work: (result for _, result in in_order(parts, lambda: Evaluator(files), work, threads))


def _alone(evaluator: Evaluator, parts: Sequence[Part], work: Callable[[Evaluator, Part], Any]) -> Iterator[Any]:
    """Work on parts by this thread."""
    return (work(evaluator, part) for part in parts)


def _counted(member: Ranked, ranking: Top) -> Cut:
    """How many each row keeps; which they are is found row by row while the expression is computed."""
    columns, size = row_length(member.entry), member.entry.size
    return Cut(0, member.entry.name, size, ranking.count(columns) * (size // max(1, columns)), size)


def _find_cut(members: tuple[Ranked, ...], ranking: Top, each: Each, remembered: int) -> Cut:
    total = sum(member.entry.size for member in members)
    wanted = ranking.count(total)
    last = members[-1].entry
    if wanted == total:
        return Cut(0, last.name, last.size, total, total)
    if wanted == 0:
        return Cut(LARGEST, members[0].entry.name, 0, 0, total)
    parts = [part for member in members for part in parts_of(member)]
    search = _Search(parts, wanted, total, each, remembered)
    if ranking.scope == "tensor" and total > FEW and zero_bits(members):
        return search.run(search.thinned_bracket())
    # A tensor by itself stays in the page cache: counting it twice costs less than a sample that could miss.
    sampling = total > SAMPLE_SIZE * (1 if ranking.scope == "model" else CACHED)
    return search.run(search.sampled_bracket() if sampling else Bracket(0, LARGEST))


class _Search:
    """Narrows the bracket until it is a single pattern, then finds which of the ties are in."""

    def __init__(self, parts: list[Part], wanted: int, total: int, each: Each, remember: int) -> None:
        self.parts = parts
        self.wanted = wanted
        self.total = total
        self.each = each
        self.remember = remember
        self.remembered: list[PartTally] | None = None

    def run(self, bracket: Bracket) -> Cut:
        """The cut, beginning with `bracket`, which may miss it."""
        finest = zero_bits([part.member for part in self.parts])
        bracket = replace(bracket, finest=finest)
        while True:
            above, histogram = self._pass(bracket)
            missing = self.wanted - above
            if missing <= 0:
                bracket = Bracket(((bracket.high >> finest) + 1) << finest, LARGEST, finest)
            elif missing > histogram.sum():
                bracket = Bracket(0, bracket.low - 1, finest)
            else:
                from_top = np.cumsum(histogram[::-1])
                bin_ = len(histogram) - 1 - int(np.searchsorted(from_top, missing))
                quota = missing - int(histogram[bin_ + 1 :].sum())
                low = bracket.low + (bin_ << bracket.shift)
                if bracket.is_exact:
                    return self._with_ties(low, bin_, quota, int(histogram[bin_]))
                bracket = Bracket(low, min(bracket.high, low + (1 << bracket.shift) - 1), finest)

    def _pass(self, bracket: Bracket) -> tuple[int, Counts]:
        histogram = np.zeros(((bracket.high - bracket.low) >> bracket.shift) + 1, dtype=np.int64)
        above, entries = 0, 0
        self.remembered = []
        for tally in self.each(self.parts, lambda own, part: tallied(part, bracket, own)):
            above += tally.above
            histogram[tally.bins] += tally.counts
            entries += tally.bins.size
            if self.remembered is not None:
                self.remembered.append(tally)
            if entries > self.remember:
                self.remembered = None
        return above, histogram

    def thinned_bracket(self) -> Bracket:
        """From every so many elements of the whole tensor, stored bfloat16: rows and columns may differ in scale."""
        return self._bracket(list(self.each(self.parts, lambda own, part: thinned(part, THINNING, own))))

    def sampled_bracket(self) -> Bracket:
        """From runs that are spread over all parts."""
        rate = SAMPLE_SIZE / self.total
        largest = max(part.stop - part.start for part in self.parts)
        every = max(1, round(LEAST_RUN / (largest * rate)))

        def work(own: Evaluator, part: Part) -> Patterns:
            return sampled(part, math.ceil((part.stop - part.start) * rate * every), own)

        return self._bracket(list(self.each(self.parts[::every], work)))

    def _bracket(self, found: list[Patterns]) -> Bracket:
        sample = np.concatenate(found)
        sample.sort()
        share = self.wanted / self.total
        middle = sample.size * (1.0 - share)
        margin = 2.0 + MARGIN * (sample.size * share * (1.0 - share)) ** 0.5
        low, high = int(middle - margin), int(middle + margin) + 1
        return Bracket(int(sample[low]) if low > 0 else 0, int(sample[high]) if high < sample.size else LARGEST)

    def _with_ties(self, bits: int, bin_: int, quota: int, ties: int) -> Cut:
        last = self.parts[-1].member.entry
        if quota == ties:
            return Cut(bits, last.name, last.size, self.wanted, self.total)
        for part, here in zip(self.parts, self._ties(bits, bin_), strict=True):
            if here >= quota:
                (stop,) = self.each([part], partial(_tie_stop, bits, quota))
                return Cut(bits, part.member.entry.name, stop, self.wanted, self.total)
            quota -= here
        raise changed(self.parts[-1])

    def _ties(self, bits: int, bin_: int) -> list[int]:
        """How many ties each part holds."""
        if self.remembered is not None:
            return [int(tally.counts[tally.bins == bin_].sum()) for tally in self.remembered]
        return list(self.each(self.parts, partial(_ties_in, bits)))


def _tie_stop(bits: int, quota: int, evaluator: Evaluator, part: Part) -> int:
    return tie_stop(part, bits, quota, evaluator)


def _ties_in(bits: int, evaluator: Evaluator, part: Part) -> int:
    return sum(int(np.count_nonzero(found == bits)) for _, found in patterns_of(part, evaluator))
