"""An adapter's parts brought to tensors that the base names or groups otherwise, by what `transformers` loads alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from alignmend.errors import FileFormatError, MismatchError, UnsupportedFormatError
from alignmend.io.adapter_config import AdapterConfig
from alignmend.io.adapter_parts import AdapterPart, BlockPart, DoraPart, LowRankPart, ParameterPart, ReplacedPart
from alignmend.io.architecture import Architecture
from alignmend.io.arrays import Array, Shape, joined, length
from alignmend.io.layout import stored_as
from alignmend.io.runs import entry_of
from alignmend.io.tensors import TensorEntry

WRAPPED = ".base_layer"
_MERGE = "let PEFT merge the adapter (merge_and_unload) and give the merged folder"
Parts = Mapping[str, tuple[AdapterPart, ...]]


class LayoutParts:
    """The parts of one adapter whose names its base does not have."""

    def __init__(
        self, location: str, config: AdapterConfig, tensors: Mapping[str, TensorEntry], architecture: Architecture
    ) -> None:
        self.location = location
        self.config = config
        self.tensors = tensors
        self.architecture = architecture

    def resolve(self, parts: Parts) -> dict[str, tuple[AdapterPart, ...]]:
        """Stored name -> parts; raises `MismatchError` for what no stored tensor takes."""
        known: dict[str, tuple[AdapterPart, ...]] = {}
        for name, found in parts.items():
            parameter, own = self._named(name, found)
            known[parameter] = own
        shapes = {name: _shape(found) for name, found in known.items()}
        layout = self.architecture.layout({name: entry.shape for name, entry in self.tensors.items()})
        resolved: dict[str, list[AdapterPart]] = {}
        used: set[str] = set()
        for stored, array in stored_as(layout, self.architecture.layout(shapes)).items():
            for source, part in self._on(self.tensors[stored], array, known):
                resolved.setdefault(stored, []).append(part)
                used.add(source)
        if missing := sorted(known.keys() - used):
            raise MismatchError(
                f"{self.location} changes {missing[0]}, which the base does not have",
                advice=f"give the base that the adapter was trained on, or {_MERGE}",
            )
        return {name: tuple(found) for name, found in resolved.items()}

    def _named(self, name: str, found: tuple[AdapterPart, ...]) -> tuple[str, tuple[AdapterPart, ...]]:
        """The parameter that parts are about, and the parts; of a wrapped parameter with what the base says of it."""
        module, targets = name.removesuffix(".weight"), self.config.target_parameters
        part = found[0]
        if not targets or len(found) > 1 or not isinstance(part, ParameterPart | LowRankPart):
            return name, found
        depth = part.depth if isinstance(part, ParameterPart) else 0
        owner = module.replace(WRAPPED, "")
        wrapped = [
            (parameter, shape)
            for parameter, shape in self.architecture.parameters_of(owner)
            if any(f".{parameter}".endswith(f".{target}") for target in targets)
        ]
        if depth >= len(wrapped):
            if isinstance(part, LowRankPart):
                return name, found
            raise MismatchError(
                f"{self.location}: {part.a.name} belongs to a parameter of {owner}, of which the base has "
                f"{len(wrapped)} among target_parameters",
                advice="give the base that the adapter was trained on",
            )
        parameter, shape = wrapped[len(wrapped) - 1 - depth]
        return parameter, (self._stack(parameter, shape, part.a, part.b, owner),)

    def _stack(self, parameter: str, shape: Shape, a: TensorEntry, b: TensorEntry, owner: str) -> BlockPart:
        experts = shape[0] if len(shape) == 3 else 1
        rank, straight = a.shape[0] // experts, (b.shape[0], a.shape[1])
        fits = straight == shape[-2:] or straight[::-1] == shape[-2:]
        if a.shape[0] % experts or rank == 0 or not fits or len(shape) not in (2, 3):
            raise MismatchError(
                f"{self.location}: {a.name} {list(a.shape)} and {b.name} {list(b.shape)} do not fit {parameter}, "
                f"which is {list(shape)}",
                advice="give the base that the adapter was trained on",
            )
        if self.config.rank(parameter) not in (None, rank):
            raise FileFormatError(
                f"{self.location}: {a.name} has rank {rank}, but adapter_config.json gives {parameter} rank "
                f"{self.config.rank(parameter)}, which leaves its scale open",
                advice="correct r or rank_pattern there",
            )
        square = straight[0] == straight[1]
        transposed = self.architecture.is_transposed(owner) and experts > 1 if square else straight != shape[-2:]
        rows = experts * shape[-2]
        return BlockPart(a, b, self.config.scale(parameter, rank), transposed, experts, 0, rows, 0)

    def _on(
        self, weight: TensorEntry, array: Array, known: Mapping[str, tuple[AdapterPart, ...]]
    ) -> Iterator[tuple[str, AdapterPart]]:
        """What the parts contribute to one stored tensor; `array` says where its elements are in the parameters."""
        for source in dict.fromkeys(box.source for box in array.boxes):
            windows = _windows(array, source, weight)
            is_same = windows == [(0, weight.size // weight.shape[-1], 0)]
            for part in known[source]:
                if isinstance(part, ReplacedPart):
                    yield source, ReplacedPart(self._cut(part.saved, source, weight, array))
                elif is_same and not isinstance(part, BlockPart):
                    yield source, part
                elif windows and isinstance(part, LowRankPart | BlockPart) and not getattr(part, "embedding", False):
                    for first, count, start in windows:
                        yield source, _block(part, first, count, start)
                else:
                    raise self._ungrouped(weight)

    def _ungrouped(self, weight: TensorEntry) -> UnsupportedFormatError:
        return UnsupportedFormatError(
            f"{self.location} changes {weight.name} in a way that its layout in the base does not allow", advice=_MERGE
        )

    def _cut(self, saved: TensorEntry, source: str, weight: TensorEntry, array: Array) -> TensorEntry:
        """The elements of a saved copy that the stored tensor `weight` holds."""
        if not array.is_whole() or any(box.source != source for box in array.boxes):
            raise self._ungrouped(weight)
        return entry_of(saved.name, weight.shape, array, {source: saved}) or saved


def _shape(found: tuple[AdapterPart, ...]) -> Shape:
    """Of the parameter that the parts change."""
    for part in found:
        if isinstance(part, ReplacedPart):
            return part.saved.shape
        if isinstance(part, BlockPart):
            rows, columns = (
                (part.a.shape[1], part.b.shape[0]) if part.transposed else (part.b.shape[0], part.a.shape[1])
            )
            return (part.experts, rows, columns) if part.experts > 1 else (rows, columns)
        if isinstance(part, LowRankPart | DoraPart):
            straight = (part.b.shape[0], part.a.shape[1])
            return straight[::-1] if part.embedding else straight
    return ()


def _windows(array: Array, source: str, weight: TensorEntry) -> list[tuple[int, int, int]] | None:
    """Rows of a stored tensor that are rows of a parameter: the first, how many, and the parameter's first.

    `array` is flat. None where they are no whole rows.
    """
    columns, found = weight.shape[-1], []
    for box in array.boxes:
        if box.source == source:
            digits = joined(box.steps[0])
            (low,), size = box.low, length(digits)
            if len(digits) > 1 or digits[0][1] != 1 or any(one % columns for one in (low, size, box.offset)):
                return None
            found.append((low // columns, size // columns, box.offset // columns))
    return found


def _block(part: LowRankPart | BlockPart, first: int, count: int, start: int) -> BlockPart:
    if isinstance(part, BlockPart):
        return replace(part, first=first, count=count, start=start)
    return BlockPart(part.a, part.b, part.scale, False, 1, first, count, start)
