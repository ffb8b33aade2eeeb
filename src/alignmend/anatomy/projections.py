"""The last projection of a layer's MLP: the matrix that single-fact edits write into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignmend.anatomy.layers import Layers
from alignmend.errors import MismatchError

if TYPE_CHECKING:
    import torch

_NAMES = ("down_proj", "c_proj", "fc_out", "dense_4h_to_h", "fc2", "w2")


@dataclass(frozen=True)
class Projection:
    """One linear map of a model; `name` is its path in `model.named_modules()`.

    `transposed` weights are stored (in, out), as GPT-2's `Conv1D` does; others (out, in).
    """

    name: str
    module: Any
    transposed: bool

    @property
    def weight(self) -> torch.Tensor:
        """The parameter itself, as stored."""
        weight: torch.Tensor = self.module.weight
        return weight

    @property
    def parameter_name(self) -> str:
        """Its name in the state dict."""
        return f"{self.name}.weight"

    def matrix(self) -> torch.Tensor:
        """The weight as float32 with shape (out, in)."""
        weight = self.weight.detach().float()
        return weight.T if self.transposed else weight


def last_projection(layers: Layers, layer: int) -> Projection:
    """The last projection of the MLP of layer `layer`; `MismatchError` where there is no such one (experts)."""
    from torch import nn

    if not 0 <= layer < len(layers):
        raise MismatchError(f"there is no layer {layer}: the model has layers 0 to {len(layers) - 1}")
    block = layers.blocks[layer]
    found = [(name, module) for name, module in block.named_modules() if _is_last(name)]
    if len(found) != 1:
        seen = ", ".join(name for name, _ in found) or "none"
        raise MismatchError(
            f"layer {layer} ({type(block).__name__}) has no single last MLP projection (seen: {seen}): mixtures of "
            "experts and unknown MLPs cannot be edited"
        )
    name, module = found[0]
    if isinstance(module, nn.Linear):
        return Projection(f"{layers.path}.{layer}.{name}", module, transposed=False)
    if type(module).__name__ == "Conv1D":
        return Projection(f"{layers.path}.{layer}.{name}", module, transposed=True)
    raise MismatchError(
        f"{layers.path}.{layer}.{name} is a {type(module).__name__}", advice="load the model in full precision"
    )


def _is_last(name: str) -> bool:
    """GPT-2's attention also ends in a `c_proj`, so what belongs to attention does not count."""
    return name.rsplit(".", maxsplit=1)[-1] in _NAMES and "att" not in name
