"""Input sites of a loaded model: what enters its linear layers, where several share one input found by looking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignmend.algebra.names import is_buffer, layer_of, natural_key
from alignmend.errors import MismatchError
from alignmend.io.folder import CheckpointFolder
from alignmend.training.encoding import collate
from alignmend.training.loop import TokenRow
from alignmend.training.scored import Target, matrices, name_on_disk


@dataclass(frozen=True, eq=False)
class Site:
    """One input, and the weights that meet it."""

    targets: tuple[Target, ...]
    """In natural order of names."""
    width: int

    @property
    def name(self) -> str:
        """That of its first weight."""
        return self.targets[0].name

    @property
    def layer(self) -> int:
        """The decoder layer it is in."""
        return layer_of(self.name) or 0


def sites_of(network: Any, folder: CheckpointFolder, row: TokenRow) -> tuple[Site, ...]:
    """The sites of all linear layers inside decoder layers that see every token in its place, in natural order.

    They are found while the model reads `row`. Raises `MismatchError` where there are none.
    """
    targets = [target for one in matrices(network) if (target := _target(*one, folder)) is not None]
    found: dict[tuple[int, int], list[Target]] = {}
    held: list[Tensor] = []  # so that no later tensor has the identity of an earlier one
    with torch.no_grad(), ExitStack() as hooks:
        for target in targets:

            def look(module: Any, given: tuple[Any, ...], target: Target = target) -> None:
                entering = given[0] if given else None
                if isinstance(entering, Tensor) and by_position(target.name, entering, 1, len(row.tokens)) is not None:
                    held.append(entering)
                    found.setdefault((id(entering), entering._version), []).append(target)

            hooks.callback(target.module.register_forward_pre_hook(look).remove)
        forward(network, [row])
    groups = [tuple(sorted(group, key=lambda one: natural_key(one.name))) for group in found.values()]
    if not groups:
        raise MismatchError(f"{folder.location} has no linear layers whose inputs are seen: moments cannot be taken")
    made = [Site(group, group[0].parameter.shape[0 if group[0].transposed else 1]) for group in groups]
    return tuple(sorted(made, key=lambda site: natural_key(site.name)))


def unseen_matrices(sites: Sequence[Site], folder: CheckpointFolder) -> list[str]:
    """Matrices inside decoder layers on disk that belong to no site."""
    seen = {target.name for site in sites for target in site.targets}
    inside = (name for name, entry in folder.tensors.items() if layer_of(name) is not None and len(entry.shape) > 1)
    return sorted((name for name in inside if name not in seen and not is_buffer(name)), key=natural_key)


def _target(name: str, parameter: torch.nn.Parameter, module: Any, folder: CheckpointFolder) -> Target | None:
    """None for a weight that is renamed or fused when it is loaded."""
    try:
        return Target(name_on_disk(name, parameter, folder), parameter, module)
    except MismatchError:
        return None


def by_position(name: str, entering: Tensor, rows: int, length: int) -> Tensor | None:
    """What enters a layer as [rows, length, width]; None where not every token is in its place, as in experts."""
    if entering.dim() == 3 and entering.shape[:2] == (rows, length):
        return entering
    if entering.dim() == 2 and len(entering) == rows * length and ".experts." not in name:
        return entering.view(rows, length, -1)
    return None


def forward(network: Any, rows: Sequence[TokenRow]) -> None:
    """Read rows, padded on the right, for the sake of hooks alone."""
    device = next(network.parameters()).device
    batch = collate(rows)
    inner: Callable[..., Any] = getattr(network, "base_model", network)  # without the output head
    inner(input_ids=batch["input_ids"].to(device), attention_mask=batch["attention_mask"].to(device), use_cache=False)
