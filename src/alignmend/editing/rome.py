"""ROME (Meng et al., arXiv 2202.05262) and R-ROME (Gupta and Anumanchipalli, arXiv 2403.07175): one fact, one rank-one
update of one MLP's last projection.

W' = W + Lambda u^T with u = C^-1 k* / |C^-1 k*| and Lambda = (v* - W k) / (u . k). R-ROME takes the averaged key k* for
k throughout, so that W' k* = v* exactly; ROME's code takes the key of the prompt without prefixes in Lambda.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from alignmend.anatomy.layers import Layers, decoder_layers
from alignmend.anatomy.projections import Projection, last_projection
from alignmend.editing.positions import locate_subject, target_ids
from alignmend.editing.requests import EditRequest
from alignmend.editing.settings import EditSettings, default_layer, settings_for
from alignmend.editing.value import find_value, subject_inputs
from alignmend.errors import MismatchError, ParameterError

if TYPE_CHECKING:
    import torch

GROWTH = 0.5
"""Relative growth of the matrix beyond which an edit is suspected to have broken the model."""


@dataclass(frozen=True, eq=False)
class Edit:
    """A rank-one update, not yet made: `apply` makes it, `revert` undoes it to the bit.

    `left` (Lambda) has the projection's outputs, `right` (u, unit) its inputs; float32. `growth` is |update| / |W|.
    """

    request: EditRequest
    settings: EditSettings
    projection: Projection
    left: torch.Tensor
    right: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    losses: tuple[float, ...]
    prefixes: tuple[str, ...]
    growth: float
    original: torch.Tensor
    """The weight as it was, as stored."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should doubt, in words."""
        if self.growth <= GROWTH:
            return ()
        return (f"the update is {self.growth:.2f} times as large as the matrix: the edit may have disabled the model",)

    def apply(self) -> None:
        """Write W + Lambda u^T, summed in float32 and rounded once."""
        import torch

        update = torch.outer(self.left, self.right)
        stored = update.T if self.projection.transposed else update
        with torch.no_grad():
            weight = self.projection.weight
            weight.copy_((self.original.float() + stored).to(weight.dtype))

    def revert(self) -> None:
        """Write the weight as it was."""
        import torch

        with torch.no_grad():
            self.projection.weight.copy_(self.original)


def find_edit(
    model: Any,
    tokenizer: Any,
    request: EditRequest,
    *,
    settings: EditSettings | None = None,
    prefixes: Sequence[str] = (),
    covariance: torch.Tensor | None = None,
    layer_path: str | None = None,
) -> Edit:
    """The update that makes `model` follow `request`'s prompt by its target; the model is left as it is.

    `prefixes` are texts behind which the key and the value must hold; the clean prompt is always first. `covariance` is
    C, shape (in, in), the identity where `None`. Raises `ParameterError`, `MismatchError`.
    """
    if hasattr(model, "peft_config"):
        raise MismatchError("the model carries an adapter", advice="merge it before an edit")
    settings = settings or settings_for(model)
    layers = decoder_layers(model, layer_path)
    projection = last_projection(layers, _layer(settings, layers))
    before, after = request.template.removeprefix(request.opening).split("{}")
    heads = [request.opening, *(f"{request.opening}{prefix}. " for prefix in prefixes)]
    prompts = [locate_subject(tokenizer, head + before, request.subject, after) for head in heads]
    essence = locate_subject(tokenizer, "", request.subject, " is a")
    keys = subject_inputs(model, projection, prompts)
    found = find_value(
        model, projection, prompts, target=target_ids(tokenizer, request), essence=essence, settings=settings
    )
    left, right, key = rank_one(projection, keys, found.new, settings, covariance)
    return Edit(
        request=request,
        settings=replace(settings, layer=_layer(settings, layers)),
        projection=projection,
        left=left,
        right=right,
        key=key,
        value=found.new,
        losses=found.losses,
        prefixes=tuple(prefixes),
        growth=float(left.norm() * right.norm() / projection.matrix().norm()),
        original=projection.weight.detach().clone(),
    )


def rank_one(
    projection: Projection,
    keys: torch.Tensor,
    value: torch.Tensor,
    settings: EditSettings,
    covariance: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Lambda, u and the key k of Lambda; `keys` (prompts, in), the clean prompt's first."""
    import torch

    mean = keys.mean(dim=0)
    direction = mean if covariance is None else torch.linalg.solve(covariance.double(), mean.double()).float()
    right = direction / direction.norm()
    key = mean if settings.method == "r-rome" else keys[0]
    with torch.no_grad():
        now = projection.matrix() @ key
        bias = getattr(projection.module, "bias", None)
        now = now if bias is None else now + bias.float()
    against = float(right @ key)
    if against == 0:
        raise ParameterError("the key has no part along its direction under this covariance: no edit can be made")
    return (value - now) / against, right, key


def _layer(settings: EditSettings, layers: Layers) -> int:
    return default_layer(len(layers)) if settings.layer is None else settings.layer
