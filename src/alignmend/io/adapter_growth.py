"""A base brought to the vocabulary of an adapter, as PEFT asks for it: resized, the new rows from what was saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from alignmend.io.adapter import AdapterFolder
from alignmend.io.adapter_parts import ReplacedPart, TokenRowsPart
from alignmend.io.adapter_tied import INPUT, OUTPUT
from alignmend.io.arrays import joined
from alignmend.io.folder import CheckpointFolder
from alignmend.io.runs import Run, Runs
from alignmend.io.tensors import TensorEntry

_VOCABULARY_KEY = "vocab_size"


def resized_for(base: CheckpointFolder, adapter: AdapterFolder) -> CheckpointFolder:
    """`base` with as many rows of the vocabulary as the adapter has saved; itself where that is as many as it has.

    Rows that the base lacks are those that the adapter has saved: whole copies of the embedding and of the output head,
    or every new row as a trained one. Where some are nowhere the base stays as it is, and does not fit the adapter.
    """
    weights = {name: entry for name, entry in base.tensors.items() if _of_vocabulary(name)}
    saved = _saved(adapter)
    rows = {part.saved.shape[0] for part in saved.values() if isinstance(part, ReplacedPart)}
    rows |= {max(part.rows) + 1 for part in saved.values() if isinstance(part, TokenRowsPart) and not part.on}
    before = {entry.shape[0] for entry in weights.values()}
    copies = any(isinstance(part, ReplacedPart) for part in saved.values())
    if len(before) != 1 or not rows or (not copies and max(rows) <= max(before)):
        return base
    (had,), wanted = before, max(rows)
    if wanted == had:
        return base
    found = {
        name: _rows(entry, wanted, _source(name, saved, tied=base.tied)) if len(entry.shape) == 2 else None
        for name, entry in weights.items()
    }
    grown = {name: entry for name, entry in found.items() if entry is not None}
    if len(grown) < len(found):
        return base
    note = f"the vocabulary of {base.location} is resized from {had:,} to {wanted:,} rows, as {adapter.location} has it"
    return replace(
        base,
        tensors={name: grown.get(name, entry) for name, entry in base.tensors.items()},
        config=_with_rows(base.config, had, wanted),
        notes=(*base.notes, note),
        resized=dict.fromkeys(grown, had),
    )


def _of_vocabulary(name: str) -> bool:
    is_bias = name.endswith(".bias") and OUTPUT.search(f"{name.removesuffix('.bias')}.weight") is not None
    return is_bias or INPUT.search(name) is not None or OUTPUT.search(name) is not None


def _saved(adapter: AdapterFolder) -> Mapping[str, ReplacedPart | TokenRowsPart]:
    """Of embedding and head, by their names in the adapter; whole copies before trained rows."""
    found: dict[str, ReplacedPart | TokenRowsPart] = {}
    for name, parts in adapter.module_parts.items():
        for part in parts:
            if isinstance(part, ReplacedPart | TokenRowsPart) and (INPUT.search(name) or OUTPUT.search(name)):
                found[name] = part if isinstance(part, ReplacedPart) else found.get(name, part)
    return found


def _source(
    name: str, saved: Mapping[str, ReplacedPart | TokenRowsPart], *, tied: bool
) -> ReplacedPart | TokenRowsPart | None:
    """What the adapter has of the weight `name` of the base; where that is tied, either will do."""
    kind = INPUT if INPUT.search(name) else OUTPUT
    own = next((part for known, part in saved.items() if kind.search(known)), None)
    return own or (next(iter(saved.values()), None) if tied else None)


def _rows(entry: TensorEntry, wanted: int, part: ReplacedPart | TokenRowsPart | None) -> TensorEntry | None:
    """The weight with `wanted` rows; None where some are nowhere."""
    had, columns = entry.shape[0], entry.shape[1]
    shape, size = (wanted, columns), wanted * columns * entry.item_size
    if part is None:
        return None
    if wanted <= had:
        return replace(entry, shape=shape, stop=entry.start + size) if entry.runs is None else None
    first = Run(0, entry, 0, joined(((had * columns, 1),)))
    if isinstance(part, ReplacedPart):
        if part.saved.shape != shape:
            return None
        new = [Run(had * columns, part.saved, had * columns, joined((((wanted - had) * columns, 1),)))]
    else:
        places = {row: index for index, row in enumerate(part.rows)}
        if not all(row in places for row in range(had, wanted)) or part.trained.shape[1] != columns:
            return None
        row = joined(((columns, 1),))
        new = [Run(at * columns, part.trained, places[at] * columns, row) for at in range(had, wanted)]
    source = new[0].source
    if source is None or source.dtype != entry.dtype:  # the change brings them whole to zeros
        new = [Run(had * columns, None, 0, joined((((wanted - had) * columns, 1),)))]
    return TensorEntry(entry.name, entry.dtype, shape, entry.path, 0, size, Runs((first, *new), entry.item_size))


def _with_rows(config: Mapping[str, object], had: int, wanted: int) -> dict[str, object]:
    """The config with the new size of the vocabulary, wherever it says the old one."""
    changed: dict[str, Any] = {}
    for key, value in config.items():
        if key == _VOCABULARY_KEY and value == had:
            changed[key] = wanted
        else:
            changed[key] = _with_rows(value, had, wanted) if isinstance(value, dict) else value
    return changed
