"""The conversions of `transformers`, run on tensors without memory while the places of elements are followed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

from alignmend.errors import LayoutError
from alignmend.io.arrays import (
    Array,
    Shape,
    concatenated,
    permuted,
    reshaped,
    source_array,
    stacked,
    taken,
)
from alignmend.io.layout import Layout


@dataclass
class _Loading:
    """One conversion, or none, on its way to one or more parameters."""

    transform: Any
    sources: dict[str, list[str]] = field(default_factory=dict)
    """The conversion's pattern -> stored names, in the library's order."""


def convert(model: Any, tensors: Mapping[str, tuple[str, Shape]]) -> Layout:
    """The layout of stored tensors (name -> name without wrappers, shape) in `model`, as `from_pretrained` has it."""
    state: dict[str, torch.Tensor] = model.state_dict()
    loadings, unused = _assigned(model, state, tensors)
    parameters: dict[str, Array] = {}
    misfits: dict[str, str] = {}
    for first, loading in loadings.items():
        made = _converted(model, first, loading, tensors)
        parameters |= {name: array for name, array in made.items() if _fits(state, name, array)}
        if loading.transform is None and first not in parameters:
            (misfits[first],) = loading.sources[""]
    tied = dict(getattr(model, "all_tied_weights_keys", None) or {})
    buffers = frozenset(name for name, _ in model.named_buffers())
    return Layout(parameters, frozenset(state), buffers & state.keys(), frozenset(unused), misfits, tied)


def _fits(state: Mapping[str, torch.Tensor], name: str, array: Array) -> bool:
    return name in state and tuple(state[name].shape) == array.shape


def _assigned(
    model: Any, state: Mapping[str, torch.Tensor], tensors: Mapping[str, tuple[str, Shape]]
) -> tuple[dict[str, _Loading], set[str]]:
    """First parameter -> the conversion that makes it; and stored names that nothing is made of."""
    transforms = get_model_conversion_mapping(model)
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters = [one for one in transforms if isinstance(one, WeightConverter)]
    by_pattern = {pattern: one for one in converters for pattern in one.source_patterns}
    prefix = model.base_model_prefix
    loadings: dict[str, _Loading] = {}
    unused: set[str] = set()
    for stored, (name, _) in sorted(tensors.items(), key=lambda item: dot_natural_key(item[1][0])):
        renamed, pattern = rename_source_key(name, renamings, converters, prefix, state)
        if renamed not in state and name in state:  # it has the model's own name already
            renamed, pattern = rename_source_key(name, [], [], prefix, state)
        if renamed not in state:
            unused.add(stored)
        elif pattern is not None:
            loading = loadings.setdefault(renamed, _Loading(deepcopy(by_pattern[pattern])))
            loading.sources.setdefault(pattern, []).append(stored)
        elif renamed in loadings:  # the library takes the first of two
            unused.add(stored)
        else:
            loadings[renamed] = _Loading(None, {"": [stored]})
    return loadings, unused


def _converted(
    model: Any, first: str, loading: _Loading, tensors: Mapping[str, tuple[str, Shape]]
) -> Mapping[str, Array]:
    """Parameters that a conversion makes; none where it fails, as where an expert is missing."""
    if loading.transform is None:
        (stored,) = loading.sources[""]
        return {first: source_array(stored, tensors[stored][1])}
    with torch.device("meta"), torch.no_grad(), _Following() as following:
        for pattern, names in loading.sources.items():
            for stored in names:
                name, shape = tensors[stored]
                loading.transform.add_tensor(first, name, pattern, following.begin(stored, shape))
        try:
            made = loading.transform.convert(first, model=model, config=model.config)
            return {name: following.end(found[0] if isinstance(found, list) else found) for name, found in made.items()}
        except (RuntimeError, ValueError, IndexError, KeyError, AttributeError):  # what the library's operations raise
            return {}


class _Following(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down where the elements of every tensor come from."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known: dict[int, tuple[torch.Tensor, Array]] = {}

    def begin(self, stored: str, shape: Shape) -> torch.Tensor:
        """A tensor that stands for a stored one."""
        tensor = torch.empty(shape)
        self._known[id(tensor)] = tensor, source_array(stored, shape)
        return tensor

    def end(self, tensor: torch.Tensor) -> Array:
        """Where the elements of a result come from; raises `LayoutError` where that is unknown."""
        return self._array(tensor)

    def _array(self, tensor: torch.Tensor) -> Array:
        if id(tensor) not in self._known:
            raise LayoutError("a conversion makes numbers of its own")
        return self._known[id(tensor)][1]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation, and follow it where it is one on what is followed."""
        out = func(*args, **(kwargs or {}))
        inputs = args[0] if args and isinstance(args[0], list | tuple) else args[:1]
        if not any(isinstance(one, torch.Tensor) and id(one) in self._known for one in inputs):
            return out
        name = func._schema.name.removeprefix("aten::")
        if name not in _OPERATIONS:
            raise LayoutError(f"a conversion does {name}, whose result cannot be followed")
        arrays = [self._array(one) for one in inputs]
        results = out if isinstance(out, list | tuple) else [out]
        for tensor, array in zip(results, _OPERATIONS[name](arrays, args[1:], results), strict=True):
            self._known[id(tensor)] = tensor, array
        return out


_Arguments = tuple[Any, ...]
_Results = Any
_Operation = Callable[[list[Array], _Arguments, _Results], Iterator[Array]]


def _dimension(arguments: _Arguments, place: int, array: Array) -> int:
    given = int(arguments[place]) if len(arguments) > place else 0
    return given % len(array.shape)


def _join(arrays: list[Array], arguments: _Arguments, results: _Results) -> Iterator[Array]:
    yield concatenated(arrays, _dimension(arguments, 0, arrays[0]))


def _stack(arrays: list[Array], arguments: _Arguments, results: _Results) -> Iterator[Array]:
    given = int(arguments[0]) if arguments else 0
    yield stacked(arrays, given % (len(arrays[0].shape) + 1))


def _divide(arrays: list[Array], arguments: _Arguments, results: _Results) -> Iterator[Array]:
    dimension, start = _dimension(arguments, 1, arrays[0]), 0
    for part in results:
        stop = start + part.shape[dimension]
        yield taken(arrays[0], dimension, start, stop)
        start = stop


def _unbind(arrays: list[Array], arguments: _Arguments, results: _Results) -> Iterator[Array]:
    dimension = _dimension(arguments, 0, arrays[0])
    for index, part in enumerate(results):
        yield reshaped(taken(arrays[0], dimension, index, index + 1), tuple(part.shape))


def _select(arrays: list[Array], arguments: _Arguments, results: _Results) -> Iterator[Array]:
    dimension, index = _dimension(arguments, 0, arrays[0]), int(arguments[1])
    index %= arrays[0].shape[dimension]
    yield reshaped(taken(arrays[0], dimension, index, index + 1), tuple(results[0].shape))


def _slice(arrays: list[Array], arguments: _Arguments, results: _Results) -> Iterator[Array]:
    if len(arguments) > 3 and arguments[3] != 1:
        raise LayoutError("a conversion takes every n-th row")
    dimension = _dimension(arguments, 0, arrays[0])
    start = int(arguments[1] or 0) if len(arguments) > 1 else 0
    start = start + arrays[0].shape[dimension] if start < 0 else start
    yield taken(arrays[0], dimension, start, start + results[0].shape[dimension])


def _transpose(arrays: list[Array], arguments: _Arguments, results: _Results) -> Iterator[Array]:
    order = list(range(len(arrays[0].shape)))
    one, other = (int(given) % len(order) for given in (arguments or (0, 1)))
    order[one], order[other] = order[other], order[one]
    yield permuted(arrays[0], order)


def _permute(arrays: list[Array], arguments: _Arguments, results: _Results) -> Iterator[Array]:
    yield permuted(arrays[0], [int(one) % len(arrays[0].shape) for one in arguments[0]])


def _reshape(arrays: list[Array], arguments: _Arguments, results: _Results) -> Iterator[Array]:
    yield reshaped(arrays[0], tuple(results[0].shape))


_OPERATIONS: Mapping[str, _Operation] = {
    "cat": _join,
    "stack": _stack,
    "split": _divide,
    "split_with_sizes": _divide,
    "unbind": _unbind,
    "select": _select,
    "slice": _slice,
    "transpose": _transpose,
    "t": _transpose,
    "permute": _permute,
    **dict.fromkeys(
        (
            "view",
            "_unsafe_view",
            "reshape",
            "_reshape_alias",
            "squeeze",
            "unsqueeze",
            "clone",
            "detach",
            "alias",
            "_to_copy",
        ),
        _reshape,
    ),
}
"""Operations of torch that move elements and compute nothing."""
