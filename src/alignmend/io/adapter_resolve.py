"""An adapter's parts brought to the base checkpoint's names, layouts and shapes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from alignmend.errors import MismatchError, UnsupportedFormatError
from alignmend.io.adapter_config import AdapterConfig
from alignmend.io.adapter_layout import LayoutParts
from alignmend.io.adapter_parts import (
    AdapterPart,
    BlockPart,
    DoraPart,
    FactoredPart,
    LowRankPart,
    ParameterPart,
    ReplacedPart,
)
from alignmend.io.adapter_tied import on_one_weight
from alignmend.io.architecture import Architecture, UnknownArchitectureError
from alignmend.io.tensors import ARITHMETIC_DTYPES, TensorEntry

_WRAPPERS = frozenset(["base_model", "model", "language_model", "text_model", "llm", "transformer", "module"])
"""Module names around a text decoder that come and go between checkpoints of the same model."""

Parts = Mapping[str, tuple[AdapterPart, ...]]
_EMBEDDING = re.compile(r"(^|\.)(wte|lm_head|word_embeddings|tok_embeddings|output)\.weight$|embed")


def resolve_part_names(
    location: str,
    module_parts: Mapping[str, tuple[AdapterPart, ...]],
    tensors: Mapping[str, TensorEntry],
    config: AdapterConfig,
    *,
    tied: bool,
    architecture: Architecture | None = None,
) -> dict[str, tuple[AdapterPart, ...]]:
    """Base weight name, sorted -> parts; see `alignmend.io.adapter.resolve_parts`."""
    wanted: Parts = module_parts
    if tied:
        wanted = on_one_weight(location, module_parts, tensors, ensured=config.ensure_weight_tying)
    names = _BaseNames(location, tensors)
    found, others = _by_names(location, wanted, names)
    if others:
        found |= _by_layout(location, others, names, config, architecture)
    settled = {
        name: tuple(_settled(location, part, tensors[name], names) for part in parts) for name, parts in found.items()
    }
    return dict(sorted(settled.items()))


def _by_names(location: str, wanted: Parts, names: _BaseNames) -> tuple[dict[str, tuple[AdapterPart, ...]], Parts]:
    """Parts under the base's names, and those whose names the base does not have."""
    origin: dict[str, str] = {}
    found: dict[str, tuple[AdapterPart, ...]] = {}
    others: dict[str, tuple[AdapterPart, ...]] = {}
    for parameter, parts in wanted.items():
        name = None if any(isinstance(part, ParameterPart) for part in parts) else names.find(parameter)
        if name is None:
            others[parameter] = parts
            continue
        if name in origin:
            raise MismatchError(
                f"{location}: {origin[name]} and {parameter} would both change {name} of the base: the "
                "adapter belongs to another model"
            )
        origin[name] = parameter
        found[name] = parts
    return found, others


def _by_layout(
    location: str, others: Parts, names: _BaseNames, config: AdapterConfig, architecture: Architecture | None
) -> dict[str, tuple[AdapterPart, ...]]:
    """Parts that the base takes elsewhere, as `transformers` says; raises `MismatchError` where it has none."""
    first = next(iter(others))
    if architecture is None:
        raise names.lacking(first)
    try:
        return LayoutParts(location, config, names.tensors, architecture).resolve(others)
    except UnknownArchitectureError as error:
        raise MismatchError(f"{names.lacking(first)}; {error}") from None


class _BaseNames:
    """The base's tensor names, also known without the wrappers around the text decoder."""

    def __init__(self, location: str, tensors: Mapping[str, TensorEntry]) -> None:
        self.location = location
        self.tensors = tensors
        self.by_core: dict[str, list[str]] = defaultdict(list)
        for name in tensors:
            self.by_core[_core(name)].append(name)
        self.layouts = _layouts(tensors)

    def find(self, parameter: str) -> str | None:
        """The base's name of `parameter`: the same, else the only one with the same core, else the only
        suffix; None where it has none.
        """
        if parameter in self.tensors:
            return parameter
        candidates = self.by_core.get(_core(parameter)) or [
            name for name in self.tensors if name.endswith(f".{parameter}")
        ]
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise MismatchError(
                f"{self.location}: {parameter} could be {', '.join(sorted(candidates)[:4])} of the base",
                advice="give the base that the adapter was trained on",
            )
        return None

    def lacking(self, parameter: str) -> MismatchError:
        """The error for a parameter that the base does not have."""
        return MismatchError(
            f"{self.location} changes {parameter}, which the base does not have",
            advice=(
                "give the base that the adapter was trained on (a new head, fused or renamed weights need "
                "PEFT's merge_and_unload)"
            ),
        )


def _core(name: str) -> str:
    segments = name.split(".")
    first = next((index for index, segment in enumerate(segments) if segment not in _WRAPPERS), 0)
    return ".".join(segments[first:])


def _settled(location: str, part: AdapterPart, weight: TensorEntry, names: _BaseNames) -> AdapterPart:
    """The part with its layout decided by the shape of `weight`; raises where the shapes do not fit."""
    if weight.dtype not in ARITHMETIC_DTYPES:
        raise UnsupportedFormatError(
            f"{location} changes {weight.name}, which is {weight.dtype} in {weight.path}",
            advice="give the full-precision base",
        )
    if isinstance(part, BlockPart | ParameterPart):
        return part
    if isinstance(part, LowRankPart | DoraPart):
        return _settled_factors(location, part, weight, names)
    if isinstance(part, ReplacedPart):
        _check(location, part.saved, weight, part.saved.shape == weight.shape)
        return part
    fits = len(weight.shape) == 2 and weight.shape[1] == part.trained.shape[1] and max(part.rows) < weight.shape[0]
    _check(location, part.trained, weight, fits)
    return part


def _settled_factors(location: str, part: FactoredPart, weight: TensorEntry, names: _BaseNames) -> FactoredPart:
    if len(weight.shape) != 2:
        raise UnsupportedFormatError(
            f"{location} changes {weight.name}, whose shape {list(weight.shape)} is no matrix (a convolution or "
            "fused experts)",
            advice="let PEFT merge the adapter (merge_and_unload) and give the merged folder",
        )
    stored, straight = weight.shape, (part.b.shape[0], part.a.shape[1])
    _check(
        location,
        part.a,
        weight,
        stored == straight[::-1] or (stored == straight and not part.embedding),
        straight,
    )
    if part.embedding or stored[0] != stored[1]:
        return replace(part, transposed=part.embedding or stored != straight)
    # A square weight: PEFT goes by the module's class, whatever fan_in_fan_out says, and `Conv1D` has a bias.
    if _bias(weight.name) not in names.tensors:
        return replace(part, transposed=False)
    return replace(part, transposed=names.layouts.get(_layer(weight.name), part.transposed))


def _layouts(tensors: Mapping[str, TensorEntry]) -> dict[str, bool]:
    """Layer -> whether its matrices are stored as [in, out], where the lengths of their biases tell."""
    seen: dict[str, set[bool]] = defaultdict(set)
    for name, entry in tensors.items():
        bias = tensors.get(_bias(name))
        if bias is not None and len(entry.shape) == 2 and entry.shape[0] != entry.shape[1]:
            seen[_layer(name)].add(bias.shape == entry.shape[1:])
    return {layer: found.pop() for layer, found in seen.items() if len(found) == 1}


def _bias(name: str) -> str:
    return f"{name.removesuffix('.weight')}.bias"


def _layer(name: str) -> str:
    found = re.match(r"(.*?\.\d+\.)", name)
    return found[1] if found else ""


def _check(
    location: str, entry: TensorEntry, weight: TensorEntry, fits: bool, needed: tuple[int, ...] | None = None
) -> None:
    if fits:
        return
    shape = f"{list(needed)} (out, in)" if needed else f"{list(entry.shape)}"
    advice = "; give the base that the adapter was trained on"
    if _EMBEDDING.search(weight.name):
        advice = (
            ": the vocabulary was resized; resize the base first (model.resize_token_embeddings, save_pretrained) and "
            "give that as the base"
        )
    raise MismatchError(
        f"{location}: {entry.name} is for a weight of shape {shape}, but {weight.name} of the base has "
        f"{list(weight.shape)}{advice}"
    )
