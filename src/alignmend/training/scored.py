"""Which parameters of a loaded model are scored, and what the checkpoint on disk calls them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from alignmend.algebra.names import kind_of, layer_of, natural_key
from alignmend.anatomy.layers import decoder_layers
from alignmend.errors import MismatchError
from alignmend.io.folder import CheckpointFolder
from alignmend.training.score_settings import ScoreSettings


@dataclass(frozen=True, eq=False)
class Target:
    """One parameter that is scored."""

    name: str
    """On disk."""
    parameter: torch.nn.Parameter
    module: Any
    """Whose weight it is."""

    @property
    def transposed(self) -> bool:
        """Whether the matrix is stored (in, out), as GPT-2's `Conv1D` does."""
        return type(self.module).__name__ == "Conv1D"


def targets_of(network: Any, folder: CheckpointFolder, settings: ScoreSettings) -> tuple[Target, ...]:
    """The parameters that `settings` ask for, in the natural order of their names; tied ones once.

    Raises `MismatchError` where a parameter has no tensor of its shape in `folder`, or nothing is left to score.
    """
    chosen = _of_kinds(network, settings) if settings.kinds else matrices(network)
    targets = [Target(name_on_disk(name, parameter, folder), parameter, module) for name, parameter, module in chosen]
    if not targets:
        raise MismatchError(f"{folder.location} has no parameters of the kinds asked for: there is nothing to score")
    return tuple(sorted(targets, key=lambda target: natural_key(target.name)))


def groups_of(targets: Sequence[Target], layers_at_once: int | None) -> tuple[tuple[Target, ...], ...]:
    """The targets that one pass scores: so many layers together, what is outside of layers by itself."""
    if layers_at_once is None:
        return (tuple(targets),)
    found: dict[int, list[Target]] = {}
    for target in targets:
        layer = layer_of(target.name)
        found.setdefault(-1 if layer is None else layer // layers_at_once, []).append(target)
    return tuple(tuple(found[number]) for number in sorted(found))


def unscored_matrices(targets: Sequence[Target], folder: CheckpointFolder) -> list[str]:
    """Matrices inside layers on disk that no target stands for: experts that the library fuses, for one."""
    scored = {target.name for target in targets}
    inside = (name for name, entry in folder.tensors.items() if layer_of(name) is not None and len(entry.shape) >= 2)
    return [name for name in inside if name not in scored and kind_of(name) in ("attention", "mlp")]


def matrices(network: Any) -> Iterator[tuple[str, torch.nn.Parameter, Any]]:
    """Name, weight and module of every linear layer inside decoder layers."""
    layers = decoder_layers(network)
    for name, module in network.named_modules():
        is_linear = isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"
        if is_linear and name.startswith(f"{layers.path}."):
            yield f"{name}.weight", module.weight, module


def _of_kinds(network: Any, settings: ScoreSettings) -> Iterator[tuple[str, torch.nn.Parameter, Any]]:
    for name, parameter in network.named_parameters():  # each once, also where the output head is tied
        if parameter.is_floating_point() and kind_of(name) in settings.kinds:
            yield name, parameter, network.get_submodule(name.rpartition(".")[0])


def name_on_disk(name: str, parameter: torch.nn.Parameter, folder: CheckpointFolder) -> str:
    """What the checkpoint calls a parameter: it may lack the prefix of the class that loads it, or have one more.

    Raises `MismatchError` where it has no single such tensor of this shape.
    """
    alike = [
        known for known in folder.tensors if known == name or name.endswith(f".{known}") or known.endswith(f".{name}")
    ]
    found = [name] if name in alike else alike
    if len(found) != 1 or folder.tensors[found[0]].shape != tuple(parameter.shape):
        raise MismatchError(
            f"{folder.location} has no single tensor {name} of shape {list(parameter.shape)}: its weights are renamed "
            "or fused when they are loaded, so what is measured could not be matched"
        )
    return found[0]
