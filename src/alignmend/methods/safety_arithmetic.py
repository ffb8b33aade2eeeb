"""Safety Arithmetic: harm direction removal in the weights, then an in-context safety vector in the activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from alignmend.activations.estimators import Estimator
from alignmend.activations.pairs import TextForm
from alignmend.activations.safe_align import SafeAlign
from alignmend.activations.steering import Steering, Strength, Tokens
from alignmend.algebra.names import Kind
from alignmend.algebra.nodes import Counting, Scope
from alignmend.algebra.values import Checkpoint
from alignmend.anatomy.layers import Site
from alignmend.errors import ParameterError
from alignmend.methods.harm_direction_removal import Area, harm_direction_removal
from alignmend.methods.steered import Steered

Preset = Literal["recommended", "paper", "released-code"]
PRESETS: Mapping[Preset, Mapping[str, Any]] = MappingProxyType(
    {
        "recommended": {
            "coefficient": 2.5, "steering_coefficient": 0.1, "strength": "relative", "estimator": "mean_difference",
            "last": 4, "site": "block_output", "measured_at": "block_output", "gate": False, "preserve_norm": True,
            "unit": False, "text": "chat",
        },
        "paper": {
            "coefficient": 2.5, "steering_coefficient": 0.12, "strength": "raw", "estimator": "principal",
            "last": 1, "site": "block_output", "measured_at": "block_output", "gate": False, "preserve_norm": True,
            "unit": False, "text": "raw",
        },
        "released-code": {
            "coefficient": 3.0, "steering_coefficient": 0.012, "strength": "relative",
            "estimator": "mean_plus_principal", "last": 4, "site": "mlp_output", "measured_at": "block_output",
            "gate": True, "preserve_norm": True, "unit": True, "text": "released-code",
        },
    }
)  # fmt: skip
"""What a parameter is where it is left out. Paper and code differ in all of them but two.

Of the vectors only the recommended one acts: equation 8's optimum is one unit vector over all layers together, so 0.12
times it moves each layer by next to nothing, and the code's 0.012 is a tenth of what its origin uses.
"""


def safety_arithmetic(
    *,
    target: Checkpoint,
    aligned: Checkpoint,
    harmful: Checkpoint,
    preset: Preset = "recommended",
    coefficient: float | None = None,
    density: float = 0.1,
    scope: Scope = "model",
    counting: Counting = "nearest",
    names: Sequence[str] = (),
    layers: Area | None = None,
    kinds: Sequence[Kind] = (),
    steering: bool = True,
    steering_coefficient: float | None = None,
    strength: Strength | None = None,
    preserve_norm: bool | None = None,
    gate: bool | None = None,
    tokens: Tokens = "all",
    estimator: Estimator | None = None,
    last: int | None = None,
    site: Site | None = None,
    measured_at: Site | None = None,
    unit: bool | None = None,
    text: TextForm | None = None,
) -> Steered:
    """Remove the harm direction from the weights, then steer activations towards safe answers.

    Paper: Hazra, Layek, Banerjee, Poria, "Safety Arithmetic: A Framework for Test-time Safety Alignment of Language
    Models by Steering Parameters and Activations", arXiv 2406.11801
    Equation: theta_hat_t = theta_t - lambda * tau_H' with tau_H' the top k % of theta_H - theta_b; then at every layer
    h' = (h + alpha * ICV) * |h| / |h + alpha * ICV|, ICV fitted in theta_hat_t on pairs of unsafe and safe answers

    | argument | symbol | meaning |
    | --- | --- | --- |
    | target | theta_t | the model to make safe: base, fine-tuned or edited |
    | aligned | theta_b | the aligned base that the harmful model was trained from |
    | harmful | theta_H | that base after fine-tuning on harmful answers: a checkpoint or an adapter |
    | preset | - | what is left out: `recommended`; or as in the `paper` or its `released-code`, with inert vectors |
    | coefficient | lambda | how often the harm direction is subtracted; 2.5, in the released code 3 |
    | density | k | fraction of the harm vector kept by magnitude |
    | scope | - | what the fraction is taken of: the `model` as a whole, or each `tensor` |
    | counting | - | the number kept is the fraction's `nearest` whole number, or rounded `down` |
    | names | - | shell-style patterns: only these tensors take part, and are counted; all if left out |
    | layers | E | only these decoder layers take part in both stages, counted from 0; `edited` finds an edit's area |
    | kinds | - | only these kinds take part in the weights' stage: `attention`, `mlp`, `norm`, `embedding`, `other` |
    | steering | - | whether there is a second stage |
    | steering_coefficient | alpha | strength of the vector: 0.1, in the paper 0.12 raw, in its code 0.012 |
    | strength | - | `relative` to the norm of each activation, or `raw`: times the vector as it is (paper) |
    | preserve_norm | - | whether an activation keeps its norm (equation 10) |
    | gate | - | whether activations that point to unsafe are moved further (released code) |
    | tokens | - | steer `all` positions, or only `generated` ones |
    | estimator | - | `mean_difference`, `principal` (paper) or `mean_plus_principal` (released code) |
    | last | - | tokens at the end of an answer that are averaged: 4, in the paper 1 |
    | site | - | what is steered: `block_output` or `mlp_output` (released code; the paper's A.2, not its 3.3) |
    | measured_at | - | what the vector is fitted on: `block_output` or `mlp_output` |
    | unit | - | whether each layer's direction has length 1 (released code) |
    | text | - | how a pair is read: `chat` template, `raw` (paper) or `released-code` |
    """
    if preset not in PRESETS:
        raise ParameterError(f"preset is one of {', '.join(PRESETS)}, not {preset!r}")
    asked = {
        "coefficient": coefficient, "steering_coefficient": steering_coefficient, "strength": strength,
        "preserve_norm": preserve_norm, "gate": gate, "estimator": estimator, "last": last, "site": site,
        "measured_at": measured_at, "unit": unit, "text": text,
    }  # fmt: skip
    chosen = {**PRESETS[preset], **{name: value for name, value in asked.items() if value is not None}}
    checkpoint = harm_direction_removal(
        target=target,
        aligned=aligned,
        harmful=harmful,
        coefficient=chosen["coefficient"],
        density=density,
        scope=scope,
        counting=counting,
        names=names,
        layers=layers,
        kinds=kinds,
    )
    area = () if layers is None or isinstance(layers, str) else tuple(layers)
    return Steered(checkpoint, _stage(chosen, tokens, area) if steering else None)


def _stage(chosen: Mapping[str, Any], tokens: Tokens, layers: tuple[int, ...]) -> SafeAlign:
    how = Steering(chosen["steering_coefficient"], chosen["preserve_norm"], chosen["gate"], chosen["strength"], tokens)
    fitted = {name: chosen[name] for name in ("estimator", "last", "measured_at", "site", "unit", "text")}
    return SafeAlign(how, layers=layers, **fitted)
