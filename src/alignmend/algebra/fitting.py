"""From inner products of two deltas to coefficients: what each rule makes of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from alignmend.algebra.names import layer_of
from alignmend.algebra.nodes import Opposition, Ranked, Rule, Share, Similar
from alignmend.algebra.thresholds import Coefficient, Coefficients

Group = int | str | None
"""A layer, a tensor, or the model."""


@dataclass(frozen=True)
class TensorProducts:
    """Inner products of two deltas on one tensor, or sums of them over several."""

    name: str
    left: float
    """Squared norm of the left delta."""
    right: float
    product: float
    size: int = field(default=0, kw_only=True)
    """Elements."""

    @property
    def cosine(self) -> float | None:
        """Of the angle between the two; None where one is zero."""
        squares = self.left * self.right  # of equal ones the root is exact, so that a delta is just as long as itself
        norms = math.sqrt(squares) if 0 < squares < math.inf else math.sqrt(self.left) * math.sqrt(self.right)
        return max(-1.0, min(1.0, self.product / norms)) if norms > 0 else None

    @property
    def ratio(self) -> float | None:
        """Norm of the left delta over that of the right one; None where that is zero."""
        return math.sqrt(self.left / self.right) if self.right > 0 else None


def fit(rule: Rule, products: Sequence[TensorProducts]) -> Coefficients:
    """The coefficient of every tensor that a rule speaks of, from inner products of its two deltas, in name order."""
    groups: dict[Group, list[TensorProducts]] = {}
    for one in products:
        groups.setdefault(_group(rule, one.name), []).append(one)
    sums = {group: _total(members) for group, members in groups.items()}
    inside = {group: total for group, total in sums.items() if rule.unit != "layer" or isinstance(group, int)}
    match rule:
        case Opposition():
            values = {group: _opposed(total) for group, total in inside.items()}
        case Similar():
            values = dict(_low(rule, inside))
        case Ranked():
            values = dict(_by_rank(rule, inside))
        case Share():
            values = {group: total.size / total.left if total.left else 0.0 for group, total in inside.items()}
    outside = rule.outside if isinstance(rule, Similar | Ranked) else 0.0
    return {
        one.name: Coefficient(one.name, values.get(group, outside), sums[group].cosine, sums[group].ratio)
        for group, members in groups.items()
        for one in members
    }


def _group(rule: Rule, name: str) -> Group:
    if rule.unit == "model":
        return None
    layer = layer_of(name) if rule.unit == "layer" else None
    return name if layer is None else layer


def _total(members: Sequence[TensorProducts]) -> TensorProducts:
    columns = zip(*((one.left, one.right, one.product) for one in members), strict=True)
    return TensorProducts(members[0].name, *map(math.fsum, columns), size=sum(one.size for one in members))


def _opposed(total: TensorProducts) -> float:
    return max(0.0, -total.product / total.right) if total.right > 0 else 0.0


def _low(rule: Similar, sums: Mapping[Group, TensorProducts]) -> Iterator[tuple[Group, float]]:
    known = [(group, total.cosine) for group, total in sums.items() if total.cosine is not None]
    if rule.number is not None:  # a stable sort: equal cosines stay in the order of names
        chosen = {group for group, _ in sorted(known, key=lambda one: one[1])[: rule.number]}
        yield from ((group, float(group in chosen)) for group in sums)
        return
    low = {group for group, cosine in known if (cosine < rule.limit if rule.strict else cosine <= rule.limit)}
    yield from ((group, float(group in low)) for group in sums)


def _by_rank(rule: Ranked, sums: Mapping[Group, TensorProducts]) -> Iterator[tuple[Group, float]]:
    """Rank 0 is the most similar layer; one that has no cosine is as similar as none."""
    last = len(sums) - 1
    alike = sorted(sums.items(), key=lambda one: -(one[1].cosine or 0.0))
    for rank, (group, _) in enumerate(alike):
        if rule.law == "linear":
            yield group, rank / last if last else 0.0
        else:
            yield group, math.log1p(rank) / math.log(len(sums)) if last else 0.0
