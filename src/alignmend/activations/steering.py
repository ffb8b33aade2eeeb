"""Steering: the formula for one activation, and the hooks that apply it while a context lasts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from alignmend.anatomy.layers import Layers, Site, unwrapped
from alignmend.errors import MismatchError, ParameterError

if TYPE_CHECKING:
    import torch

Strength = Literal["relative", "raw"]
Tokens = Literal["all", "generated"]


@dataclass(frozen=True)
class Steering:
    """How a vector acts.

    `strength` `relative` scales it to `coefficient` times the norm of each activation, `raw` adds `coefficient` times
    the vector as it is. `preserve_norm` gives the sum the activation's norm back (arXiv 2406.11801, eq. 10).
    `gate` multiplies the step by 1 + max(0, -cos(activation, vector)): stronger where the activation points to unsafe.
    `tokens` `generated` leaves the prompt alone.
    """

    coefficient: float
    preserve_norm: bool = True
    gate: bool = False
    strength: Strength = "relative"
    tokens: Tokens = "all"

    def __post_init__(self) -> None:
        if self.coefficient != self.coefficient or abs(self.coefficient) == float("inf"):
            raise ParameterError(f"the steering coefficient must be a finite number, not {self.coefficient}")
        if self.strength not in ("relative", "raw") or self.tokens not in ("all", "generated"):
            raise ParameterError(
                f"strength must be 'relative' or 'raw' and tokens 'all' or 'generated', not {self.strength!r} and "
                f"{self.tokens!r}"
            )

    @property
    def additive(self) -> bool:
        """Whether the same vector is added to every activation: only that can be a bias in a checkpoint."""
        return self.strength == "raw" and not self.preserve_norm and not self.gate and self.tokens == "all"


def steered(hidden: torch.Tensor, direction: torch.Tensor, how: Steering) -> torch.Tensor:
    """`hidden` (..., hidden size) moved along `direction` (hidden size), in float32, returned in its own dtype.

    With x an activation, w the direction, u = w/|w|, c the coefficient, s the gate: y = x + c s |x| u (relative) or
    x + c s w (raw), then y |x|/|y| where the norm is preserved. The zero activation stays zero under both of these.
    """
    import torch

    x = hidden.float()
    length = direction.norm()
    if length == 0 or how.coefficient == 0:
        return hidden
    unit = direction / length
    if how.additive:
        return (x + how.coefficient * direction).to(hidden.dtype)
    norm = x.norm(dim=-1, keepdim=True)
    along = (x @ unit)[..., None] if how.gate or how.preserve_norm else None
    step = how.coefficient * (norm if how.strength == "relative" else length.expand_as(norm))
    if how.gate and along is not None:
        step = step * (1 + torch.relu(-along / norm.clamp_min(1e-30)))
    if not how.preserve_norm or along is None:
        return torch.addcmul(x, step, unit).to(hidden.dtype)
    after = (norm**2 + 2 * step * along + step**2).clamp_min(0).sqrt()
    scale = torch.where(after > 0, norm / after.clamp_min(1e-30), torch.ones_like(norm))
    return torch.addcmul(x * scale, step * scale, unit).to(hidden.dtype)


@contextmanager
def steering(
    model: Any, directions: Mapping[int, torch.Tensor], layers: Layers, site: Site, how: Steering
) -> Iterator[None]:
    """While it lasts, `site` of each layer in `directions` is steered; every hook is gone afterwards, whatever happens.

    Padding, which the attention mask tells, is left alone. Graphs that `torch.compile` made before, inside or with the
    context are thrown away at both ends, as they would ignore hooks that come and go.
    """
    with install(model, directions, layers, site, how):
        yield


def install(model: Any, directions: Mapping[int, torch.Tensor], layers: Layers, site: Site, how: Steering) -> ExitStack:
    """Steer `model` until the stack that is returned is closed; where nobody closes it, for as long as it lives."""
    _check(model, directions, layers)
    seen = _Seen()
    with ExitStack() as stack:
        stack.callback(_forget_graphs)
        if how.tokens == "generated":
            stack.callback(_listen_to_generate(unwrapped(model), seen))
        watch = _decoder(model).register_forward_pre_hook(seen.watch, with_kwargs=True)
        stack.callback(watch.remove)
        for layer, direction in directions.items():
            module = layers.module(layer, site)
            handle = module.register_forward_hook(_hook(_on_device(direction, module), how, seen))
            stack.callback(handle.remove)
        _forget_graphs()
        return stack.pop_all()


class _Seen:
    """What the decoder was called with: which positions are padding, and which of them are a prompt's.

    `prompt` is the length of the prompt that `generate` continues; outside of it, what is read into an empty cache, or
    without one, is a prompt.
    """

    def __init__(self) -> None:
        self.mask: torch.Tensor | None = None
        self.prompt: int | None = None
        self.past = 0
        self.length = 0

    def watch(self, module: Any, inputs: Any, options: Mapping[str, Any]) -> None:
        mask = options.get("attention_mask")
        self.mask = mask if mask is not None and getattr(mask, "ndim", 0) == 2 else None
        cache = options.get("past_key_values")
        self.past = 0 if cache is None else int(cache.get_seq_length())
        self.length = next((one.shape[1] for one in _read(inputs, options) if getattr(one, "ndim", 0) >= 2), 0)

    def first_generated(self) -> int:
        """The first of the positions that are read now which no prompt has."""
        if self.prompt is None:
            return 0 if self.past else self.length
        return min(max(self.prompt - self.past, 0), self.length)


def _read(inputs: Any, options: Mapping[str, Any]) -> Iterator[Any]:
    """Token ids or embeddings among what a decoder is called with."""
    yield from (options.get("input_ids"), options.get("inputs_embeds"), *inputs[:1])


class _Listening:
    """A model's `generate`, which tells how long the prompt is while it runs."""

    def __init__(self, model: Any, seen: _Seen, before: Any) -> None:
        self.model, self.seen, self.before = model, seen, before

    def __deepcopy__(self, memo: dict[int, Any]) -> _Listening:
        """A copy of the model generates with the copy."""
        from copy import deepcopy

        return _Listening(deepcopy(self.model, memo), self.seen, deepcopy(self.before, memo))

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        given = (*inputs[:1], options.get("inputs"), options.get("input_ids"), options.get("inputs_embeds"))
        self.seen.prompt = next((one.shape[1] for one in given if getattr(one, "ndim", 0) >= 2), None)
        try:
            if self.before is not None:
                return self.before(*inputs, **options)
            return type(self.model).generate(self.model, *inputs, **options)
        finally:
            self.seen.prompt = None


def _listen_to_generate(model: Any, seen: _Seen) -> Callable[[], None]:
    """Until what is returned is called, `seen` knows the length of the prompt that `model` continues."""
    if not hasattr(type(model), "generate"):
        return lambda: None
    before = model.__dict__.get("generate")
    model.generate = _Listening(model, seen, before)

    def end() -> None:
        del model.generate
        if before is not None:
            model.generate = before

    return end


def _hook(direction: torch.Tensor, how: Steering, seen: _Seen) -> Any:
    def hook(module: Any, inputs: Any, output: Any) -> Any:
        first = seen.first_generated() if how.tokens == "generated" else 0
        if first and first >= seen.length:
            return None
        hidden = output[0] if isinstance(output, tuple) else output
        moved = _where_real(steered(hidden, direction, how), hidden, seen.mask)
        if first:
            moved = _from(first, moved, hidden, seen.length)
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    return hook


def _where_real(moved: torch.Tensor, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """`moved` at real tokens, `hidden` at padding. The mask also covers what the cache holds, so its end counts."""
    import torch

    if mask is None:
        return moved
    tokens = hidden[..., 0].numel() // mask.shape[0]
    if tokens * mask.shape[0] != hidden[..., 0].numel() or tokens > mask.shape[1]:
        return moved
    ends = mask[:, mask.shape[1] - tokens :].reshape(*hidden.shape[:-1], 1)
    return torch.where(ends.to(device=hidden.device, dtype=torch.bool), moved, hidden)


def _from(first: int, moved: torch.Tensor, hidden: torch.Tensor, length: int) -> torch.Tensor:
    """`moved` from the position `first` of each row on, `hidden` before it."""
    import torch

    behind = torch.arange(length, device=hidden.device) >= first
    chosen = behind.expand(hidden[..., 0].numel() // length, length).reshape(*hidden.shape[:-1], 1)
    return torch.where(chosen, moved, hidden)


def _on_device(direction: torch.Tensor, module: Any) -> torch.Tensor:
    parameter = next(module.parameters(), None)
    return direction.float() if parameter is None else direction.float().to(parameter.device)


def _decoder(model: Any) -> Any:
    inner = unwrapped(model)
    find = getattr(inner, "get_decoder", None)
    return (find() if find is not None else None) or inner


def _check(model: Any, directions: Mapping[int, torch.Tensor], layers: Layers) -> None:
    from alignmend.anatomy.layers import hidden_size

    width = hidden_size(model)
    for layer, direction in directions.items():
        if not 0 <= layer < len(layers):
            raise MismatchError(f"the vector steers layer {layer}; the model has layers 0 to {len(layers) - 1}")
        if tuple(direction.shape) != (width,):
            raise MismatchError(
                f"the vector has shape {tuple(direction.shape)} at layer {layer}; the model's activations have {width}"
            )


def _forget_graphs() -> None:
    """Compiled graphs do not look for hooks that were added or removed after they were made."""
    if "torch._dynamo" in sys.modules:
        import torch

        torch.compiler.reset()
