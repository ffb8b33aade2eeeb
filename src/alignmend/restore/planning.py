"""What a search tries next: a pure function of what it has tried, so that a search that was killed goes on alike.

First candidates take turns by family, and every third trial halves a gap between what passes the limits and what does
not. Once they are tried, every second trial does so, and the others explore: families take turns by how many numbers
they have, a family that holds a smaller one begins at the best found of that, a family of one number is filled where
it is steepest, and the sampler draws the rest, every second time as far along as the best of its family went.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from alignmend.restore.families import FAMILIES, RANGES, Family, Numbers, on_grid

if TYPE_CHECKING:
    from alignmend.restore.front import Aim
    from alignmend.restore.trials import Tried

FAMILY = "family"
PLAN = 2
"""Of journals: another plan has other families' numbers, and goes on otherwise."""
_WIDE = 0.25
"""Between two steps, as a share of the longer one: what holds the family waits until it is narrower."""
_OFTEN = 3
"""Candidates of one step of a family, after which the sampler draws the step as well."""
_NEAR = 0.1
"""Share of a step by which another is no new one."""


@dataclass(frozen=True)
class Placed:
    """A trial: its numbers by name, and what came of it; `None` while it is measured."""

    numbers: Numbers
    tried: Tried | None

    @property
    def family(self) -> str:
        """Its name; empty while it is drawn."""
        return str(self.numbers.get(FAMILY, ""))


def planned(placed: Sequence[Placed], families: Sequence[str], aim: Aim) -> Numbers:
    """The numbers of the next candidate; those that are left out are the sampler's to draw."""
    first = next(_untried_first(placed, families), None)
    halving = len(placed) % 3 == 2 if first is not None else len(placed) % 2 == 1
    if halving and (between := _between(placed, aim)) is not None:
        return between
    return first if first is not None else _explored(placed, families, aim)


def firsts(name: str, families: Sequence[str]) -> tuple[Numbers, ...]:
    """What a family begins with by itself: its own first numbers, or of the family that it holds, if that is not tried.

    With that one beside it, it begins at the best found of that.
    """
    nesting = FAMILIES[name].nesting
    if nesting is None:
        return FAMILIES[name].first
    return () if nesting.inner in families else tuple(nesting.lift(one) for one in FAMILIES[nesting.inner].first)


def _untried_first(placed: Sequence[Placed], families: Sequence[str]) -> Iterator[Numbers]:
    ordered = [(name, firsts(name, families)) for name in families]
    for place in range(max((len(found) for _, found in ordered), default=0)):
        for name, found in ordered:
            if place < len(found) and not _is_tried(name, found[place], placed):
                yield {FAMILY: name, **found[place]}


def _is_tried(name: str, numbers: Numbers, placed: Sequence[Placed]) -> bool:
    return any(dict(one.numbers) == {FAMILY: name, **numbers} for one in placed)


def _explored(placed: Sequence[Placed], families: Sequence[str], aim: Aim) -> Numbers:
    """The family with the fewest candidates for its numbers: where it should begin, or what the sampler draws."""
    spent = Counter(one.family for one in placed)
    name = min(families, key=lambda one: spent[one] / FAMILIES[one].numbers)
    family, own = FAMILIES[name], [one for one in placed if one.family == name]
    if (inner := family.nesting and family.nesting.inner) in families:
        gap = min(_gaps([one for one in placed if one.family == inner], aim), key=_value, default=None)
        if gap is not None and gap.width > _WIDE:
            return gap.numbers
    start = next(_untried_starts(name, family, placed, aim), None)
    if start is not None:
        return {FAMILY: name, **start}
    if family.numbers == 1:
        return _steepest(own) or {FAMILY: name}
    return {FAMILY: name, **(_best_step(own, aim) if spent[name] % 4 < 2 else {})}


def _best_step(own: Sequence[Placed], aim: Aim) -> Numbers:
    """How far the best of a family goes: the sampler draws its other numbers."""
    told = [
        (aim.rank(one.tried.worth, one.tried.measured), one)
        for one in own
        if one.tried is not None and one.tried.worth is not None
    ]
    if not told:
        return {}
    best = min(told, key=lambda one: one[0])[1]
    name = _step_of(best)
    there = [one for one in own if one.numbers.get(name) == best.numbers[name]]
    return {name: best.numbers[name]} if len(there) < _OFTEN else {}


def _steepest(own: Sequence[Placed]) -> Numbers | None:
    """Between the two neighbouring steps that differ most in attack success and over-refusal."""
    name = _step_of(own[0]) if own else ""
    told = sorted(
        ((one.numbers[name], one.tried.worth.objectives[:2]) for one in own if one.tried and one.tried.worth),
        key=lambda one: one[0],
    )
    taken = [one.numbers[name] for one in own if name in one.numbers]
    found = [
        (sum(abs(a - b) for a, b in zip(here, there, strict=True)), on_grid(name, (step + further) / 2))
        for (step, here), (further, there) in pairwise(told)
    ]
    free = [(steep, step) for steep, step in found if all(abs(step - one) > RANGES[name][2] / 2 for one in taken)]
    return {**own[0].numbers, name: max(free, key=lambda one: one[0])[1]} if free else None


def _untried_starts(name: str, family: Family, placed: Sequence[Placed], aim: Aim) -> Iterator[Numbers]:
    """Around the best found of the smaller family, unless something like it was tried."""
    nesting = family.nesting
    if nesting is None:
        return
    neutral, value = nesting.neutral
    pool: list[tuple[tuple[float, ...], Numbers]] = []
    for one in placed:
        if one.tried is None or one.tried.worth is None:
            continue
        rank, own = aim.rank(one.tried.worth, one.tried.measured), _own(one.numbers)
        if one.family == nesting.inner:
            pool.append((rank, nesting.lift(own)))
        elif one.family == name and own[neutral] == value:
            pool.append((rank, own))
    if pool:
        best = min(pool, key=lambda one: one[0])[1]
        step = f"{name}.{family.step_name}"
        seen = [one.numbers for one in placed if one.family == name]
        yield from (start for start in nesting.starts(best) if not any(_alike(start, one, step) for one in seen))


def _own(numbers: Numbers) -> dict[str, Any]:
    return {name: value for name, value in numbers.items() if name != FAMILY}


def _alike(start: Numbers, other: Numbers, step: str) -> bool:
    same = all(other.get(name) == value for name, value in start.items() if name != step)
    return same and step in other and abs(other[step] - start[step]) <= max(RANGES[step][2], _NEAR * start[step])


@dataclass(frozen=True)
class _Gap:
    """Between the longest step that passes and the shortest that does not, with other numbers alike."""

    attack: float
    """What may be hoped for: the mean of attack success beyond, and of the safest that passes in the family."""
    width: float
    """As a share of the longer step."""
    numbers: Numbers
    """What to try there."""


def _value(gap: _Gap) -> float:
    return gap.attack


def _between(placed: Sequence[Placed], aim: Aim) -> Numbers | None:
    """Where the least attack success may be hoped for; `None` where nothing lies between any two steps."""
    gap = min(_gaps(placed, aim), key=_value, default=None)
    return None if gap is None else gap.numbers


def _gaps(placed: Sequence[Placed], aim: Aim) -> Iterator[_Gap]:
    """Of each family and its other numbers, the step to try.

    That lies halfway between the longest step that passes and the shortest longer one; where none is longer, half as
    far again; where none passes, at half of the shortest.
    """
    groups: dict[tuple[Any, ...], list[Placed]] = {}
    for one in placed:
        name = _step_of(one)
        if name in one.numbers:
            others = tuple(sorted((key, value) for key, value in one.numbers.items() if key != name))
            groups.setdefault((name, others), []).append(one)
    safest: dict[str, float] = {}
    for one in placed:
        if one.tried is not None and (found := one.tried.measured) is not None and aim.passes(found):
            safest[one.family] = min(safest.get(one.family, 1.0), found.worth.objectives[0])
    for (name, _), steps in groups.items():
        told = {one.numbers[name]: one.tried for one in steps if one.tried is not None and one.tried.worth is not None}
        passing = [step for step, tried in told.items() if (found := tried.measured) and aim.passes(found)]
        longest, size = max(passing, default=0.0), RANGES[name][2]
        shortest = min((step for step in told if step > longest + size / 2), default=None)
        further = 2 * longest if shortest is None else shortest
        wanted = on_grid(name, (longest + further) / 2)
        if told and all(abs(wanted - one.numbers[name]) > size / 2 for one in steps):
            hoped = 0.0 if shortest is None else _attack(told[shortest])
            yield _Gap(
                (safest.get(steps[0].family, 1.0) + hoped) / 2,
                (further - longest) / further,
                {**steps[0].numbers, name: wanted},
            )


def _attack(tried: Tried) -> float:
    return 1.0 if tried.worth is None else tried.worth.objectives[0]


def _step_of(one: Placed) -> str:
    return f"{one.family}.{FAMILIES[one.family].step_name}" if one.family in FAMILIES else ""
