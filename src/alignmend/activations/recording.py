"""Activations of texts, pooled over their last tokens, in one batched pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from alignmend.anatomy.layers import Layers, Site
from alignmend.errors import NonFiniteError, ParameterError

if TYPE_CHECKING:
    import torch


def record(
    model: Any,
    texts: Sequence[Sequence[int]],
    *,
    layers: Layers,
    chosen: Sequence[int],
    site: Site,
    last: int,
    batch_size: int = 16,
) -> torch.Tensor:
    """The mean activation over the last `last` tokens (fewer where a text is shorter) of each text at each layer.

    `texts` are token ids. Returns float32 on the CPU, shape (texts, layers, hidden size). Neither the padding nor the
    batch changes what is meant; `NonFiniteError` names the layer where an activation is not finite.
    """
    import torch

    if last < 1 or not texts or not all(texts):
        raise ParameterError(
            f"pooling needs at least one token of at least one text, not the last {last} of {len(texts)}"
        )
    longest_first = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
    found: dict[int, torch.Tensor] = {}
    with torch.inference_mode():
        for start in range(0, len(texts), batch_size):
            rows = longest_first[start : start + batch_size]
            pooled = _pooled(model, [texts[row] for row in rows], layers, chosen, site=site, last=last)
            found.update(zip(rows, pooled, strict=True))
    return _finite(torch.stack([found[index] for index in range(len(texts))]), chosen, site)


def _pooled(
    model: Any, texts: Sequence[Sequence[int]], layers: Layers, chosen: Sequence[int], *, site: Site, last: int
) -> torch.Tensor:
    """Shape (texts, layers, hidden size). Right-padded: a causal model's real tokens never see what follows them."""
    import torch

    device = next(model.parameters()).device
    lengths = torch.tensor([len(text) for text in texts], device=device)
    width = int(lengths.max())
    ids = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], device=device)
    position = torch.arange(width, device=device)
    mask = position < lengths[:, None]
    pooling = (mask & (position >= lengths[:, None] - last)).to(torch.float32)
    pooling /= pooling.sum(dim=1, keepdim=True)
    with _captured(layers, chosen, site, pooling) as captured:
        model(input_ids=ids, attention_mask=mask.long(), use_cache=False)
    return torch.stack([captured[layer] for layer in chosen], dim=1)


@contextmanager
def _captured(
    layers: Layers, chosen: Sequence[int], site: Site, pooling: torch.Tensor
) -> Iterator[dict[int, torch.Tensor]]:
    """Layer -> pooled output of the pass that runs inside; only (texts, hidden size) is kept of each layer."""
    captured: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            by_text = hidden.float().reshape(*pooling.shape, -1)  # some MLPs see all tokens of a batch in one row
            captured[layer] = (by_text * pooling[..., None].to(hidden.device)).sum(dim=1).cpu()

        return hook

    with ExitStack() as stack:
        for layer in chosen:
            handle = layers.module(layer, site).register_forward_hook(keep(layer))
            stack.callback(handle.remove)
        yield captured


def _finite(activations: torch.Tensor, chosen: Sequence[int], site: Site) -> torch.Tensor:
    finite = activations.isfinite().all(dim=2).all(dim=0)
    if not finite.all():
        layer = chosen[int((~finite).nonzero()[0])]
        raise NonFiniteError(
            f"the {site} of layer {layer} is NaN or infinite for some text;", advice="load the model in float32"
        )
    return activations
