"""SafePatching: two patches from one harmful set, thinned so that they do not conflict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict, get_args

from alignmend.algebra import operations
from alignmend.algebra.names import Kind
from alignmend.algebra.nodes import Scope
from alignmend.algebra.values import Checkpoint, Mask, Scores
from alignmend.errors import ParameterError

Sets = Literal["difference", "intersection", "none"]
Mode = Literal["strict", "conflict"]
Importance = Literal["scores", "random"]
Use = Literal["both", "safety", "over_safety"]
SAFETY, OVER_SAFETY = "safety", "over_safety"
"""The two patches: their roles, labels in the manifest, and streams of random numbers."""


class _Chosen(TypedDict):
    """Which tensors take part."""

    names: Sequence[str] | None
    layers: Sequence[int] | None
    kinds: Sequence[Kind] | None
    linear: bool


def safe_patching(
    *,
    target: Checkpoint,
    safety: Checkpoint,
    over_safety: Checkpoint,
    safety_scores: Scores | None = None,
    over_safety_scores: Scores | None = None,
    safety_coefficient: float = 1.0,
    over_safety_coefficient: float = 1.0,
    density: float = 0.3,
    safety_rate: float = 0.03,
    over_safety_rate: float = 0.02,
    sets: Sets = "difference",
    mode: Mode = "strict",
    importance: Importance = "scores",
    use: Use = "both",
    rescale: bool = False,
    scope: Scope = "tensor",
    seed: int = 0,
    names: Sequence[str] = (),
    layers: Sequence[int] = (),
    kinds: Sequence[Kind] = (),
    linear: bool = True,
) -> Checkpoint:
    """Add a safety patch and an over-safety patch where they do not conflict.

    Paper: Zhao et al., "Towards Comprehensive Post Safety Alignment of Large Language Models via Safety
    Patching", arXiv 2405.13820
    Equation: theta* = theta + alpha * M_SE o m_SE o P_SE + beta * M_OSM o m_OSM o P_OSM with P = theta_P - theta,
    m ~ Bernoulli(p), M_SE = S_SE - S_OSM, M_OSM = S_OSM - S_SE, S_SE the top a % and S_OSM the top b % by |W o dL/dW|

    | argument | symbol | meaning |
    | --- | --- | --- |
    | target | theta | the model to patch |
    | safety | theta_SE | that model after gradient ascent on harmful answers: a checkpoint or an adapter |
    | over_safety | theta_OSM | that model after gradient descent on the same answers: a checkpoint or an adapter |
    | safety_scores | I_SE | importance of the weights for the safety patch: a file that `alignmend scores` wrote |
    | over_safety_scores | I_OSM | the same for the over-safety patch, scored at its own patched weights |
    | safety_coefficient | alpha | length of the safety patch |
    | over_safety_coefficient | beta | length of the over-safety patch; `conflict` needs a smaller one |
    | density | p | fraction of each patch kept at random; 1 keeps all (the paper's "without random retention") |
    | safety_rate | a | fraction of weights that count as important for safety, rounded down |
    | over_safety_rate | b | fraction of weights that count as important for over-safety, rounded down |
    | sets | - | weights a patch keeps: `difference` of the top sets, their `intersection`, or `none`: no top sets |
    | mode | - | of a difference: `strict` keeps a patch's own top set only, `conflict` all but what both sets hold |
    | importance | - | `scores`, or as a control `random` top sets of the same density |
    | use | - | `both` patches, or of the sum only the `safety` or the `over_safety` term |
    | rescale | - | whether what the random retention keeps is divided by the density |
    | scope | - | what the rates are taken of: each `tensor`, each `row`, or the whole `model` |
    | seed | - | of the random masks; each patch has draws of its own |
    | names | - | shell-style patterns: only these tensors take part; all if left out |
    | layers | - | only these decoder layers take part, counted from 0 |
    | kinds | - | only these kinds take part: `attention`, `mlp`, `norm`, `embedding`, `other` |
    | linear | - | whether only weights of linear layers inside decoder layers take part |
    """
    _check_choices(sets=(sets, Sets), mode=(mode, Mode), importance=(importance, Importance), use=(use, Use))
    if not 0.0 <= density <= 1.0 or (density == 0.0 and rescale):
        raise ParameterError(f"density is the fraction kept, between 0 and 1 and not 0 to be rescaled, not {density}")
    chosen: _Chosen = {"names": names or None, "layers": layers or None, "kinds": kinds or None, "linear": linear}
    tops: Mapping[str, Mask] = {}
    if sets != "none":
        given = {SAFETY: (safety_scores, safety_rate), OVER_SAFETY: (over_safety_scores, over_safety_rate)}
        tops = {
            patch: _random_set(patch, rate, seed)
            if importance == "random"
            else _top_set(patch, scores, rate, scope, chosen)
            for patch, (scores, rate) in given.items()
        }
    patched = target
    models = {SAFETY: (safety, safety_coefficient), OVER_SAFETY: (over_safety, over_safety_coefficient)}
    for patch, (model, coefficient) in models.items():
        if use in ("both", patch):
            retained = operations.random_mask(density=density, seed=seed, stream=patch)
            mask = _kept_set(patch, tops, sets, mode) & retained if tops else retained
            kept = operations.where(mask, operations.select(model - target, **chosen), label=patch)
            patched = patched + coefficient * (kept / density if rescale else kept)
    return patched


def _top_set(patch: str, scores: Scores | None, rate: float, scope: Scope, chosen: _Chosen) -> Mask:
    """S_SE or S_OSM."""
    if scores is None:
        raise ParameterError(
            f"{patch}_scores is missing",
            advice="make it with  alignmend scores , or choose sets none or importance random",
        )
    return operations.top(operations.select_scores(scores, **chosen), density=rate, scope=scope, counting="down")


def _random_set(patch: str, rate: float, seed: int) -> Mask:
    """As many weights, on average, but any."""
    return operations.random_mask(density=rate, seed=seed, stream=f"{patch} top")


def _kept_set(patch: str, tops: Mapping[str, Mask], sets: Sets, mode: Mode) -> Mask:
    """What a patch keeps before the random retention."""
    own, other = tops[patch], tops[OVER_SAFETY if patch == SAFETY else SAFETY]
    if sets == "intersection":
        return own & other
    return own - other if mode == "strict" else ~(own & other)


def _check_choices(**given: tuple[str, object]) -> None:
    for name, (value, choices) in given.items():
        known = get_args(choices)
        if value not in known:
            raise ParameterError(f"{name} is one of {', '.join(known)}, not {value!r}")
