"""Operations on deltas, scores and masks beyond the operators. All build expressions; none reads a weight."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar, get_args

from alignmend.algebra.names import KINDS, Kind
from alignmend.algebra.nodes import (
    CommonRows,
    Counting,
    Elected,
    Magnitude,
    Masked,
    PerLayer,
    Random,
    RankedDrop,
    Scope,
    Selected,
    SelectedScores,
    Selection,
    Shrinkage,
    Top,
    Weighted,
    Weighting,
    scaled,
)
from alignmend.algebra.values import Delta, Mask, Moments, Scores
from alignmend.errors import ParameterError

Item = TypeVar("Item")


def magnitude(delta: Delta) -> Scores:
    """|delta| as scores."""
    return Scores(Magnitude(delta.node))


def top(scores: Scores, *, density: float, scope: Scope = "model", counting: Counting = "nearest") -> Mask:
    """True on exactly `round(density * n)` weights, those with the highest scores.

    `scope` says over what n is counted: `"model"` ranks all weights together, `"tensor"` each tensor by itself, `"row"`
    each row of a tensor's last dimension (a vector is one row). Tied scores are granted in (tensor name, flat index)
    order. Weights that are tied to one another count once. `counting` `"down"` keeps `floor(density * n)`, the density
    taken as the decimal that it is written as: 0.29 of 100 is 29, although the nearest binary number lies below.
    """
    if counting not in get_args(Counting):
        raise ParameterError(f"counting is 'nearest' or 'down', not {counting!r}")
    return Mask(Top(scores.node, _density(density), _scope(scope), counting))


def random_mask(*, density: float, seed: int, stream: str = "") -> Mask:
    """True with probability `density`, independently per weight.

    Drawn from Philox keyed by (seed, tensor name, index of a 65,536-element block), so that neither threads, shards
    nor order change it. Masks of one seed and another `stream`, a name of your choice, are independent draws.
    """
    return Mask(Random(_density(density), _seed(seed), stream))


def where(mask: Mask, delta: Delta, *, label: str = "") -> Delta:
    """The delta where the mask is true, zero elsewhere.

    With a `label`, the manifest of what is saved tells under that name how many weights were kept, and their norm.
    """
    return Delta(Masked(mask.node, delta.node, label))


def elect(deltas: Sequence[Delta]) -> Delta:
    """Element by element, the mean of those deltas that have the elected sign: the one with more mass in total.

    TIES-Merging (Yadav et al., arXiv 2306.01708), without its trim. Zeros count for neither side, and where both signs
    have the same mass the result is zero.
    """
    if not deltas:
        raise ParameterError("there is nothing to elect from", advice="give at least one delta")
    return Delta(Elected(tuple(delta.node for delta in deltas)))


def trim(
    delta: Delta,
    *,
    density: float,
    scope: Scope = "model",
    counting: Counting = "nearest",
    outliers: float = 0.0,
) -> Delta:
    """Keep the `density` share of weights with the largest magnitude, zero the rest; the count is exact.

    With `outliers`, the so large share of the very largest is zeroed too, and the next ones are kept: both tails of
    Model Breadcrumbs (Davari and Belilovsky, arXiv 2312.06795).
    """
    if _density(outliers) + _density(density) > 1.0:
        raise ParameterError(f"density {density} and outliers {outliers} are more than all weights together")
    if outliers == 0.0 and density == 1.0 and _scope(scope):
        return delta
    reached = top(magnitude(delta), density=min(1.0, density + outliers), scope=scope, counting=counting)
    if outliers == 0.0:
        return where(reached, delta)
    return where(reached - top(magnitude(delta), density=outliers, scope=scope, counting=counting), delta)


def drop(delta: Delta, *, density: float, seed: int = 0, rescale: bool = True, window: float = 0.0) -> Delta:
    """Keep each weight with probability `density`, zero the rest; DARE when rescaled.

    DARE (Yu et al., arXiv 2311.03099): `m ~ Bernoulli(1 - density)`, `d' = (1 - m) * d / density`, so that the
    expectation is unchanged. `density` 1 is the identity. With a `window`, as in DELLA (Deep, Bhardwaj, Poria, arXiv
    2406.11617), the chance to be kept grows with the rank of the magnitude in its row, from density - window for the
    smallest to density + window for the largest, and each survivor is divided by its own.
    """
    if not 0.0 <= window < 1.0 or (window and not 0.0 < density - window < density + window <= 1.0):
        raise ParameterError(f"window {window} around density {density} leaves the range of a chance, above 0 to 1")
    if window:
        return Delta(RankedDrop(_density(density), float(window), _seed(seed), rescale, delta.node))
    if _density(density) == 1.0:
        return delta
    if density == 0.0 and rescale:
        raise ParameterError("density 0 keeps nothing to rescale", advice="give a density above 0, or rescale=False")
    kept = where(random_mask(density=density, seed=seed), delta)
    return Delta(scaled(1.0 / density, kept.node)) if rescale else kept


def select(
    delta: Delta,
    *,
    names: str | Iterable[str] | None = None,
    layers: Iterable[int] | None = None,
    kinds: Kind | Iterable[Kind] | None = None,
    linear: bool = False,
) -> Delta:
    """The delta on tensors that fit every condition given, zero elsewhere.

    `names` are shell-style patterns, `layers` zero-based decoder layers (a `range` will do; those of a tower for
    images or sound only where a pattern speaks of it, such as `vision_tower.*`), `kinds` any of `attention`, `mlp`,
    `norm`, `embedding` (input and output), `other`; left out, each means all, and given it must name something.
    `linear` takes only weights of linear layers: two dimensions or more, inside a decoder layer. Rankings taken
    afterwards see only the selected tensors.
    """
    return Delta(Selected(_selection(names, layers, kinds, linear), delta.node))


def select_scores(
    scores: Scores,
    *,
    names: str | Iterable[str] | None = None,
    layers: Iterable[int] | None = None,
    kinds: Kind | Iterable[Kind] | None = None,
    linear: bool = False,
) -> Scores:
    """The scores of tensors that fit every condition given, as in `select`; rankings do not see the others."""
    return Scores(SelectedScores(_selection(names, layers, kinds, linear), scores.node))


def _selection(
    names: str | Iterable[str] | None,
    layers: Iterable[int] | None,
    kinds: Kind | Iterable[Kind] | None,
    linear: bool,
) -> Selection:
    patterns = (names,) if isinstance(names, str) else _given("names", names)
    wanted: tuple[Kind, ...] = (kinds,) if isinstance(kinds, str) else _given("kinds", kinds)
    chosen = _given("layers", layers)
    unknown = [kind for kind in wanted if kind not in KINDS]
    if unknown:
        raise ParameterError(f"unknown kind {unknown[0]!r}", advice=f"choose from {', '.join(KINDS)}")
    return Selection(patterns, chosen, wanted, linear)


def _given(what: str, values: Iterable[Item] | None) -> tuple[Item, ...]:
    """A condition's values; an empty one, such as `range(0)`, would select all where nothing was meant."""
    found = () if values is None else tuple(values)
    if values is not None and not found:
        raise ParameterError(f"{what} is given but empty", advice="name some, or leave it out to select all")
    return found


def per_layer(delta: Delta, coefficients: Mapping[int, float], *, default: float = 1.0) -> Delta:
    """The delta with each decoder layer's own coefficient; `default` for other layers and outside the layers."""
    for layer, coefficient in [*coefficients.items(), ("default", default)]:
        if not math.isfinite(coefficient):
            raise ParameterError(f"the coefficient of layer {layer} must be finite, not {coefficient}")
    return Delta(PerLayer(tuple(sorted(coefficients.items())), float(default), delta.node))


def common_rows(delta: Delta) -> Delta:
    """The delta on the rows that all operands share, where a vocabulary was resized; the target's other rows stay."""
    return Delta(CommonRows(delta.node))


def weigh(
    delta: Delta, moments: Moments, *, beta: float = 1.0, ridge: float = 1e-3, shrinkage: Shrinkage = "none"
) -> Delta:
    """The delta where harmful texts lead, little of it where harmless ones do: D M for each linear layer.

    `M = C_h (C_h + beta C_b + lambda I)^-1`, C_h and C_b [in, in] the moments of the layer's inputs on harmful texts
    and on the others (kinds weigh alike), `lambda = ridge * tr(C_h) / in`. D M minimises `E|(X - D) x_h|^2 +
    beta E|X x_b|^2 + lambda |X|^2` over X. `shrinkage` `"oas"` first shrinks each moment towards a multiple of the
    identity by the oracle approximating rule (Chen et al., IEEE Trans. Signal Processing 58(10), 2010), for few texts.
    Weights without moments (experts, embeddings, norms) keep D; a plan's notes name the matrices among them.
    """
    for name, value, least in (("beta", beta, 0.0), ("ridge", ridge, 0.0)):
        if not math.isfinite(value) or value < least:
            raise ParameterError(f"{name} is a finite number from 0, not {value}")
    if shrinkage not in get_args(Shrinkage):
        raise ParameterError(f"shrinkage is one of {', '.join(get_args(Shrinkage))}, not {shrinkage!r}")
    kinds = moments.source.file.record.kinds
    if "harmful" not in kinds or len(kinds) < 2:
        raise ParameterError(
            f"{moments.source.file.location} has moments of {' and '.join(kinds)} texts alone: weighing needs harmful "
            "ones, and harmless or borderline ones; alignmend moments --merge puts files together"
        )
    return Delta(Weighted(Weighting(moments.source, float(beta), float(ridge), shrinkage), delta.node))


def _density(density: float) -> float:
    if not 0.0 <= density <= 1.0:
        raise ParameterError(f"density is the fraction kept, between 0 and 1, not {density}")
    return float(density)


def _seed(seed: int) -> int:
    if not 0 <= seed < 2**64:
        raise ParameterError(f"a seed is between 0 and 2^64 - 1, not {seed}")
    return int(seed)


def _scope(scope: Scope) -> Scope:
    if scope not in get_args(Scope):
        raise ParameterError(f"scope is 'tensor', 'row' or 'model', not {scope!r}")
    return scope
