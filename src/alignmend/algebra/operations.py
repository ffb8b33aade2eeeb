"""Operations on deltas, scores and masks beyond the operators. All build expressions; none reads a weight."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar, get_args

from alignmend.algebra.names import KINDS, Kind
from alignmend.algebra.nodes import (
    CommonRows,
    Conflict,
    Counting,
    Elected,
    Fitted,
    Heads,
    Indicator,
    Law,
    Magnitude,
    Masked,
    Opposition,
    PerLayer,
    Positive,
    Projected,
    Projector,
    Random,
    Ranked,
    RankedDrop,
    Scope,
    Selected,
    SelectedScores,
    Selection,
    Share,
    Shrinkage,
    Similar,
    StoredScores,
    Top,
    Unit,
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
        raise ParameterError("there is nothing to elect from: give at least one delta")
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
        raise ParameterError("density 0 keeps nothing to rescale: give a density above 0, or rescale=False")
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
        raise ParameterError(f"unknown kind {unknown[0]!r}: choose from {', '.join(KINDS)}")
    return Selection(patterns, chosen, wanted, linear)


def _given(what: str, values: Iterable[Item] | None) -> tuple[Item, ...]:
    """A condition's values; an empty one, such as `range(0)`, would select all where nothing was meant."""
    found = () if values is None else tuple(values)
    if values is not None and not found:
        raise ParameterError(f"{what} is given but empty: name some, or leave it out to select all")
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


def conflict(left: Delta, right: Delta, *, zeros: bool = True) -> Mask:
    """True where the signs of two deltas differ.

    With `zeros` a zero has a sign of its own: it differs from plus and minus, and agrees with zero. Without, only plus
    and minus differ.
    """
    return Mask(Conflict(left.node, right.node, zeros))


def positive(stored: Scores) -> Mask:
    """True where a stored number, such as a mask's logit, is above zero; false on tensors that the file does not have.

    `stored` is what `open_scores` gives.
    """
    if not isinstance(stored.node, StoredScores):
        raise ParameterError("positive takes numbers as they were stored, from open_scores")
    return Mask(Positive(stored.node.source))


def indicator(mask: Mask) -> Delta:
    """1 where the mask is true, 0 elsewhere."""
    return Delta(Indicator(mask.node))


def over_share(delta: Delta, mask: Mask) -> Delta:
    """The delta over the mask's mean, tensor by tensor; zero where the mask is false everywhere."""
    shown = indicator(mask).node
    return Delta(Fitted(Share(shown, shown), delta.node))


def heads_mask(heads: Mapping[int, Sequence[int]]) -> Mask:
    """True on the columns of attention's output projections that belong to these heads, by decoder layer.

    Heads are query heads, counted from 0; a head's width is the projection's inputs over the number of heads.
    """
    for layer, chosen in heads.items():
        if layer < 0 or len(set(chosen)) != len(chosen):
            raise ParameterError(
                f"heads of layer {layer}: {list(chosen)}: layers count from 0, and name each head once"
            )
    return Mask(Heads(tuple((layer, tuple(sorted(chosen))) for layer, chosen in sorted(heads.items()))))


def project(delta: Delta, basis: Delta, *, projector: Projector = "frob", rank: int = 0) -> Delta:
    """C delta for matrices [out, in], C [out, out] made of `basis`; zero for tensors of another number of dimensions.

    `frob`: basis basis^T / |basis|, as in SafeLoRA, which is no projector; `frob_sq`: over |basis|^2; `spectral`: over
    its largest eigenvalue; `orthogonal`: U U^T, U the `rank` leading left singular vectors of basis. Where basis is
    zero, so is the result.
    """
    if projector not in get_args(Projector):
        raise ParameterError(f"projector is one of {', '.join(get_args(Projector))}, not {projector!r}")
    if (projector == "orthogonal") != (rank > 0):
        raise ParameterError("rank is for the orthogonal projector, which needs one of 1 or more")
    return Delta(Projected(projector, int(rank), basis.node, delta.node))


def leading(delta: Delta, *, rank: int) -> Delta:
    """The best approximation of each matrix by one of this rank: its leading singular directions; zero elsewhere."""
    if rank < 1:
        raise ParameterError(f"rank is 1 or more, not {rank}")
    return project(delta, delta, projector="orthogonal", rank=rank)


def oppose(delta: Delta, *, left: Delta, right: Delta, unit: Unit = "tensor") -> Delta:
    """max(0, -<left, right> / <right, right>) * delta, each `tensor`, decoder `layer` or the whole `model` by itself.

    With delta = right, left + the result has no part against right. By layer, what lies outside of the layers is zero.
    """
    return Delta(Fitted(Opposition(left.node, right.node, _unit(unit)), delta.node))


def where_similar(
    delta: Delta,
    *,
    left: Delta,
    right: Delta,
    limit: float = 0.0,
    strict: bool = False,
    number: int | None = None,
    unit: Unit = "tensor",
    outside: float = 0.0,
) -> Delta:
    """The delta on tensors where the cosine of left and right is at most `limit` (below it if `strict`), else zero.

    With a `number`, on so many tensors, those with the lowest cosines, ties in order of names. Where one of the two is
    zero, there is no cosine, and the result is zero. By layer, what lies outside is multiplied with `outside`.
    """
    if not math.isfinite(limit):
        raise ParameterError(f"limit is a finite number, not {limit}")
    if number is not None and number < 0:
        raise ParameterError(f"number is 0 or more, not {number}")
    rule = Similar(left.node, right.node, float(limit), strict, number, _unit(unit), float(outside))
    return Delta(Fitted(rule, delta.node))


def by_similarity(
    delta: Delta, *, left: Delta, right: Delta, law: Law = "linear", unit: Unit = "layer", outside: float = 0.0
) -> Delta:
    """The delta with the less weight, the more alike left and right are: rank r of L, 0 the most alike.

    `linear`: r / (L - 1); `log`: log(1 + r) / log(L). By layer, what lies outside is multiplied with `outside`.
    """
    if law not in get_args(Law):
        raise ParameterError(f"law is one of {', '.join(get_args(Law))}, not {law!r}")
    return Delta(Fitted(Ranked(left.node, right.node, law, float(outside), _unit(unit)), delta.node))


def _unit(unit: Unit) -> Unit:
    if unit not in get_args(Unit):
        raise ParameterError(f"unit is one of {', '.join(get_args(Unit))}, not {unit!r}")
    return unit


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
