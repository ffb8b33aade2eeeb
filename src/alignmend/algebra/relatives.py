"""Operations that look at two deltas, at whole matrices or at what is stored beside the models; none reads a weight."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import get_args

from alignmend.algebra.nodes import (
    Ablated,
    Conflict,
    Fitted,
    Heads,
    Indicator,
    Law,
    Opposition,
    Positive,
    Projected,
    Projector,
    Ranked,
    Share,
    Similar,
    Source,
    StoredScores,
    Unit,
)
from alignmend.algebra.values import Checkpoint, Delta, Mask, Scores
from alignmend.errors import ParameterError


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


def ablate(
    checkpoint: Checkpoint, direction: Scores, *, layer: int, spared: Scores | None = None, strength: float = 1.0
) -> Delta:
    """-w w^T W for every W of the checkpoint that writes into the residual stream, so that nothing writes along w.

    w is the vector of `layer` in `direction`, a file that `SteeringVector.save` wrote (`open_scores` opens it), less
    `strength` times its part along that in `spared`, then of length 1. Writers are the output projections of attention
    and MLP, their biases, and the input embedding, from its own side: -(E w) w^T.
    """
    if not math.isfinite(strength):
        raise ParameterError(f"strength is a finite number, not {strength}")
    found = [_vector(one, layer) for one in (direction, spared) if one is not None]
    node = Ablated(checkpoint.root, checkpoint.change, found[0], found[1] if spared else None, layer, float(strength))
    return Delta(node)


def _vector(stored: Scores, layer: int) -> Source:
    if not isinstance(stored.node, StoredScores):
        raise ParameterError("a direction is a file of one vector per layer, from open_scores")
    folder = stored.node.source.folder
    if f"layer.{layer}" not in folder.tensors:
        known = ", ".join(name.removeprefix("layer.") for name in folder.tensors if name.startswith("layer."))
        raise ParameterError(
            f"{folder.location} has no vector of layer {layer}: "
            + (f"it has those of {known}" if known else "it is no file of a steering vector")
        )
    return stored.node.source


def _unit(unit: Unit) -> Unit:
    if unit not in get_args(Unit):
        raise ParameterError(f"unit is one of {', '.join(get_args(Unit))}, not {unit!r}")
    return unit
