"""A checkpoint seen as another stores the same model: under its names and in its layout, where both load alike.

The conversions are those of `transformers` (`architecture.py`); nothing is read but headers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from alignmend.io.architecture import UnknownArchitectureError, layout_of
from alignmend.io.arrays import Array
from alignmend.io.folder import CheckpointFolder
from alignmend.io.layout import Layout, stored_as
from alignmend.io.runs import entry_of
from alignmend.io.tensors import TensorEntry
from alignmend.io.wrappers import unwrapped

_LISTED = 3


@dataclass(frozen=True)
class Seen:
    """A checkpoint in another's layout."""

    folder: CheckpointFolder
    """Its tensors under the other's names; those that the other lacks under their own."""
    absent: frozenset[str] = frozenset()
    """Names of the other that it lacks and the model can do without: no trained weights."""
    notes: tuple[str, ...] = ()
    unknown: str = ""
    """Why `transformers` could not tell, where it could not."""


_REMEMBERED = 16
_cache: dict[tuple[str, ...], Seen] = {}


def seen_as(source: CheckpointFolder, target: CheckpointFolder) -> Seen:
    """`source` as `target` stores it; where `transformers` does not know the model, only without wrappers of names."""
    key = (*_identity(source), *_identity(target))
    if key not in _cache:
        if len(_cache) >= _REMEMBERED:
            _cache.clear()
        _cache[key] = _seen(source, target)
    return _cache[key]


def tensors_as(source: CheckpointFolder, target: CheckpointFolder) -> Mapping[str, TensorEntry]:
    """Tensors of `source` that the target has too, under its names; looked for only where few names agree."""
    shared = source.tensors.keys() & target.tensors.keys()
    enough = 2 * len(shared) > min(len(source.tensors), len(target.tensors))
    found = source if enough else seen_as(source, target).folder
    return {name: entry for name, entry in found.tensors.items() if name in target.tensors}


def _identity(folder: CheckpointFolder) -> tuple[str, ...]:
    files = (part for header in folder.headers for part in (str(header.path.resolve()), header.header_hash))
    prefixed = next(iter(folder.tensors), "")
    return (*files, prefixed, str(folder.tied), json.dumps(folder.config, sort_keys=True, default=str))


def _seen(source: CheckpointFolder, target: CheckpointFolder) -> Seen:
    renamed = _without_wrappers(source, target)
    if renamed.tensors.keys() == target.tensors.keys():
        return Seen(renamed)
    try:
        own, other = (layout_of(target.path, target.config, _shapes(one)) for one in (target, source))
    except UnknownArchitectureError as error:
        return Seen(renamed, unknown=str(error))
    if own.misfits or own.unfilled():  # then what it says of these tensors is worth nothing
        return Seen(renamed, unknown=f"{target.path / 'config.json'} describes another model than these tensors")
    arrays = stored_as(own, other)
    found = {name: entry for name, array in arrays.items() if (entry := _entry(target.tensors[name], array, source))}
    used = {box.source for name in found for box in arrays[name].boxes}
    for name, stored in _resized(own, other):
        found[name] = replace(source.tensors[stored], name=name)
        used.add(stored)
    spare = other.untrained()
    left = {name: entry for name, entry in source.tensors.items() if name not in used and name not in spare}
    extra = sorted(name for name in spare - used if name not in target.tensors)
    absent = frozenset(name for name in own.untrained() if name not in found)
    return Seen(
        replace(source, tensors=dict(sorted({**left, **found}.items()))),
        absent,
        tuple(_notes(source, target, found, extra, absent)),
    )


def _resized(own: Layout, other: Layout) -> Iterable[tuple[str, str]]:
    """The target's name and the source's of one tensor that has two shapes."""
    for name, stored in other.misfits.items():
        sources = {box.source for box in own.parameters[name].boxes} if name in own.parameters else set()
        if len(sources) == 1:
            yield sources.pop(), stored


def _without_wrappers(source: CheckpointFolder, target: CheckpointFolder) -> CheckpointFolder:
    """`source` under the target's names, as far as they differ in wrappers alone."""
    plain = {unwrapped(name): name for name in target.tensors}
    if len(plain) < len(target.tensors) or len({unwrapped(name) for name in source.tensors}) < len(source.tensors):
        return source
    names = {name: plain.get(unwrapped(name), name) for name in source.tensors}
    tensors = {new: replace(source.tensors[name], name=new) for name, new in names.items()}
    return replace(source, tensors=dict(sorted(tensors.items())))


def _shapes(folder: CheckpointFolder) -> Mapping[str, tuple[int, ...]]:
    return {name: entry.shape for name, entry in folder.tensors.items()}


def _entry(wanted: TensorEntry, array: Array, source: CheckpointFolder) -> TensorEntry | None:
    """The tensor `wanted`, with its elements in `source`; None where not all of them are, or in several dtypes."""
    if not array.is_whole() or array.shape[0] != wanted.size:
        return None
    return entry_of(wanted.name, wanted.shape, array, source.tensors)


def _notes(
    source: CheckpointFolder,
    target: CheckpointFolder,
    found: Mapping[str, TensorEntry],
    extra: list[str],
    absent: frozenset[str],
) -> Iterable[str]:
    if any(name not in source.tensors for name in found):
        yield f"{source.location} names or groups tensors otherwise than {target.location}: read as transformers does"
    if extra:
        yield f"{_listed(extra)} only in {source.location} and no trained weights of the model: left out"
    if absent:
        yield f"{_listed(sorted(absent))} not in {source.location} and no trained weights of the model: unchanged"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{more} {'is' if len(names) == 1 else 'are'}"
