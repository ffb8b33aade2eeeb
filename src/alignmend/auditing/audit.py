"""`audit`: what was done to a model of a stranger, and whether a vector of a stranger is what it claims to be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from alignmend.auditing.findings import Audit, Finding
from alignmend.auditing.subject import kind_at
from alignmend.auditing.weights import AGAINST, UNLIKE, audit_weights, concentrated
from alignmend.errors import MismatchError, ParameterError

if TYPE_CHECKING:
    from alignmend.activations.effect import Divergence
    from alignmend.activations.vector import SteeringVector

BENIGN = 0.5
"""Mean first-token divergence on benign prompts, in nats, that a safety vector should not reach."""


def audit(
    model: str | Path,
    *,
    parent: str | Path | None = None,
    vector: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """What was done to `model`, from headers and weights alone; nothing of it is run.

    `model` is a checkpoint, or a vector from a stranger: an adapter, a delta that `save_delta` wrote, a steering
    vector. `parent` is the model that it stems from or is added to. `vector` is a safety vector that is trusted, of
    either kind. Raises `MismatchError` where they do not fit, `ParameterError` where one of them is needed.
    """
    if kind_at(model) == "steering vector":
        return _steering(Path(model), parent, vector)
    return audit_weights(model, parent, vector, progress)


def _steering(path: Path, parent: str | Path | None, own: str | Path | None) -> Audit:
    from alignmend.activations.attached import check_fits
    from alignmend.activations.vector import SteeringVector
    from alignmend.io.hub import find

    stranger = SteeringVector.load(path)
    if parent is not None:
        check_fits(stranger, find(parent).path)
    numbers: dict[str, float] = {}
    findings = concentrated({layer: norm**2 for layer, norm in stranger.norms.items()})
    norms = ", ".join(f"{layer}: {norm:.3g}" for layer, norm in stranger.norms.items())
    facts = [f"{len(stranger.layers)} directions at {stranger.site}; norms by layer {norms}"]
    facts.append(_rank(stranger, numbers))
    if own is not None:
        if kind_at(own) != "steering vector":
            raise ParameterError(f"{own} is no steering vector, {path} is one: give one that vector fit wrote")
        findings += _beside(stranger, SteeringVector.load(own), facts, numbers)
    return Audit(
        subject=str(path),
        what="steering vector",
        parent=None if parent is None else str(parent),
        facts=tuple(facts),
        findings=tuple(findings),
        numbers=numbers,
    )


def _rank(vector: SteeringVector, numbers: dict[str, float]) -> str:
    """How many directions its layers share."""
    import torch

    rows = torch.stack([vector.directions[layer].double() for layer in vector.layers])
    values = torch.linalg.svdvals(rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-30)).square()
    numbers["effective_rank"] = float(values.sum() ** 2 / values.square().sum()) if float(values.sum()) else 0.0
    return f"effective rank over {len(vector.layers)} layers {numbers['effective_rank']:.1f}"


def _beside(
    stranger: SteeringVector, own: SteeringVector, facts: list[str], numbers: dict[str, float]
) -> list[Finding]:
    widths = [len(next(iter(one.directions.values()))) for one in (stranger, own)]
    shared = sorted(set(stranger.layers) & set(own.layers))
    if widths[0] != widths[1] or not shared or stranger.site != own.site:
        raise MismatchError(
            f"the vectors cannot be compared: width {widths[0]} at {stranger.site}, layers {list(stranger.layers)}, "
            f"against width {widths[1]} at {own.site}, layers {list(own.layers)}"
        )
    cosines = {}
    for layer in shared:
        left, right = stranger.directions[layer].double(), own.directions[layer].double()
        cosines[layer] = float(left @ right / (left.norm() * right.norm()).clamp_min(1e-30))
    facts.append("cosine with one's own by layer " + ", ".join(f"{layer}: {one:.2f}" for layer, one in cosines.items()))
    numbers["cosine"] = median(cosines.values())
    opposed = tuple(layer for layer, one in cosines.items() if one <= AGAINST)
    if opposed:
        told = f"points against one's own vector in {len(opposed)} of {len(shared)} layers"
        return [Finding("against-safety", told, opposed)]
    unlike = tuple(layer for layer, one in cosines.items() if one < UNLIKE)
    if unlike:
        return [Finding("unlike-own", f"hardly like one's own vector in {len(unlike)} of {len(shared)} layers", unlike)]
    return []


def with_behaviour(found: Audit, measured: Divergence) -> Audit:
    """`found`, and what the change does to the answers to benign prompts."""
    numbers = dict(found.numbers or {}) | {"benign_kl": measured.first_token}
    facts = (*found.facts, f"on benign prompts: {measured.words()}")
    findings: Sequence[Finding] = found.findings
    if measured.first_token > BENIGN:
        told = f"changes answers to benign prompts: first-token KL {measured.first_token:.2f} nats, above {BENIGN:g}"
        findings = (*findings, Finding("benign-change", told))
    return replace(found, facts=facts, findings=tuple(findings), numbers=numbers)
