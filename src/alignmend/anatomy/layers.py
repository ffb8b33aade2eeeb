"""The decoder layers of a model, found by structure, and the module in each whose output is a site."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from alignmend.errors import MismatchError

if TYPE_CHECKING:
    from torch.nn import Module

Site = Literal["block_output", "mlp_output"]
"""Where activations are read and steered: the residual stream after a layer, or what its MLP adds to it."""

SITES: tuple[Site, ...] = ("block_output", "mlp_output")
_MLP_NAMES = ("mlp", "feed_forward", "ffn", "block_sparse_moe", "moe", "fc2")
_ADVICE = "name them: layers='path.to.the.module.list', as in model.named_modules()"


@dataclass(frozen=True)
class Layers:
    """The decoder layers of one model, in order; `path` is where they are, as in `model.named_modules()`."""

    path: str
    blocks: tuple[Module, ...]

    def __len__(self) -> int:
        return len(self.blocks)

    def module(self, layer: int, site: Site) -> Module:
        """The module whose output is `site` of layer `layer`; `MismatchError` where no MLP is found in it."""
        block = self.blocks[layer]
        return block if site == "block_output" else _mlp(block, f"{self.path}.{layer}")


def decoder_layers(model: Any, layers: str | None = None) -> Layers:
    """The decoder layers of `model`, also inside PEFT and `torch.compile` wrappers and vision-language models.

    They are the one list of `config.num_hidden_layers` like modules in the text decoder. `layers` is their path where
    that rule does not find them. `MismatchError` says how to name them.
    """
    if layers is not None:
        return Layers(layers, tuple(_named(model, layers)))
    decoder = _decoder(model)
    count = _layer_count(model)
    found = [(name, module) for name, module in _lists(decoder) if len(module) == count and _alike(module)]
    if len(found) != 1:
        seen = (
            ", ".join(f"{name or 'the decoder itself'} ({len(module)})" for name, module in _lists(decoder)) or "none"
        )
        raise MismatchError(
            f"the decoder layers of a {type(unwrapped(model)).__name__} were not found: {len(found)} lists of "
            f"{count} like modules, lists seen: {seen};",
            advice=_ADVICE,
        )
    return Layers(_path_of(model, found[0][1]), tuple(found[0][1]))


def unwrapped(model: Any) -> Any:
    """`model` without the wrappers of `torch.compile` and PEFT, which share its modules."""
    inner = getattr(model, "_orig_mod", model)
    base = getattr(inner, "get_base_model", None)
    return unwrapped(base()) if base is not None else inner


def hidden_size(model: Any) -> int:
    """Width of the residual stream."""
    return int(text_config(model).hidden_size)


def text_config(model: Any) -> Any:
    """The configuration of the text decoder."""
    config = unwrapped(model).config
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def _decoder(model: Any) -> Any:
    inner = unwrapped(model)
    find = getattr(inner, "get_decoder", None)
    return (find() if find is not None else None) or inner


def _layer_count(model: Any) -> int:
    count = getattr(text_config(model), "num_hidden_layers", None)
    if not isinstance(count, int):
        raise MismatchError(f"the config of a {type(model).__name__} has no num_hidden_layers;", advice=_ADVICE)
    return count


def _lists(module: Any) -> Iterator[tuple[str, Any]]:
    from torch.nn import ModuleList

    return ((name, each) for name, each in module.named_modules() if isinstance(each, ModuleList))


def _alike(modules: Sequence[Any]) -> bool:
    """Layers are whole blocks of few classes; experts and projections, which also come in lists, have no attention."""
    return all(any("att" in name for name, _ in module.named_modules()) or _mixes(module) for module in modules)


def _mixes(module: Any) -> bool:
    """State-space and recurrent blocks."""
    return any(name in ("mixer", "mamba", "temporal_block", "conv") for name, _ in module.named_children())


def _named(model: Any, path: str) -> Sequence[Module]:
    inner = unwrapped(model)
    try:
        found = inner.get_submodule(path)
        return list(found)
    except (AttributeError, TypeError):
        raise MismatchError(f"{path!r} is not a list of modules of a {type(inner).__name__};", advice=_ADVICE) from None


def _path_of(model: Any, module: Any) -> str:
    names: dict[int, str] = {id(each): name for name, each in unwrapped(model).named_modules()}
    return names[id(module)]


def _mlp(block: Any, where: str) -> Any:
    children = dict(block.named_children())
    for name in _MLP_NAMES:
        if name in children:
            return children[name]
    raise MismatchError(
        f"{where} has no MLP that is found (children: {', '.join(children)})", advice="use site block_output"
    )
