"""What a GGUF file says of itself: architecture, number formats, tokenizer, licence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from alignmend.errors import FileFormatError, UnsupportedFormatError, missing_extra

_WHOLE_FORMATS = frozenset({"F64", "F32", "F16", "BF16"})
_ONE_OF_SEVERAL = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_NO_MODELS = {"adapter": "a LoRA adapter", "mmproj": "a projector of images", "imatrix": "an importance matrix"}
_LONG_FIELDS = frozenset({"tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges"})
_SCORES = "tokenizer.ggml.scores"


@dataclass(frozen=True)
class GgufFile:
    """A model in one GGUF file, known from its header."""

    path: Path
    fields: Mapping[str, Any]
    """Metadata by key; the tokenizer's lists are left out."""
    formats: Mapping[str, int]
    """How many tensors are stored in which number format, the most frequent first."""
    weights: int
    """How many numbers all tensors hold."""
    header_bytes: int
    """Where the tensors begin."""

    @property
    def architecture(self) -> str:
        """What llama.cpp calls it."""
        return str(self.fields.get("general.architecture", ""))

    @property
    def is_quantized(self) -> bool:
        """Whether some weights are stored as blocks of small integers."""
        return any(name not in _WHOLE_FORMATS for name in self.formats)

    @property
    def stored_as(self) -> str:
        """The number formats in words."""
        return ", ".join(f"{name} ({count} tensors)" for name, count in self.formats.items())


def find_gguf(place: Path) -> Path:
    """The one model file that `place` is or holds; raises `FileFormatError` where there is none, or a choice."""
    if not place.exists():
        raise FileFormatError(
            f"{place}: no such file or folder", advice="give a GGUF file, or the folder that holds it"
        )
    if place.is_file():
        _refuse_shard(place)
        return place
    found = sorted(path for path in place.iterdir() if path.suffix.lower() == ".gguf")
    if not found:
        raise FileFormatError(f"{place} holds no .gguf file", advice="give a GGUF file, or the folder that holds it")
    if len(found) > 1 and not all(_ONE_OF_SEVERAL.search(path.name) for path in found):
        raise FileFormatError(
            f"{place} holds {len(found)} GGUF files",
            advice=f"give the path of one: {', '.join(path.name for path in found)}",
        )
    _refuse_shard(found[0])
    return found[0]


def read_gguf(path: Path) -> GgufFile:
    """The header of the GGUF file `path`.

    Raises `FileFormatError` for a damaged file, `UnsupportedFormatError` for one that holds no language model,
    `MissingExtraError` without the package gguf.
    """
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise missing_extra("gguf", "gguf") from error
    _check_beginning(path)
    try:
        reader = GGUFReader(str(path))
        fields = {name: field.contents() for name, field in reader.fields.items() if name not in _all_long()}
        formats = Counter(tensor.tensor_type.name for tensor in reader.tensors)
        weights = sum(int(tensor.n_elements) for tensor in reader.tensors)
    except (OSError, ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        said = " ".join(str(error).split())[:200]
        raise FileFormatError(f"{path} is damaged or cut off ({said})", advice="fetch it again") from error
    header = int(reader.data_offset)
    found = GgufFile(path, MappingProxyType(fields), MappingProxyType(dict(formats.most_common())), weights, header)
    _refuse_other_contents(found)
    return found


def _all_long() -> frozenset[str]:
    return _LONG_FIELDS | {_SCORES}


def _check_beginning(path: Path) -> None:
    try:
        with path.open("rb") as file:
            beginning = file.read(4)
    except OSError as error:
        raise FileFormatError(
            f"{path} cannot be read ({error.strerror})", advice="check the disk and its rights"
        ) from None
    if beginning != b"GGUF":
        raise FileFormatError(
            f"{path} is no GGUF file (it does not begin with GGUF)", advice="check the path, or fetch it again"
        )


def _refuse_shard(path: Path) -> None:
    match = _ONE_OF_SEVERAL.search(path.name)
    if match and int(match[2]) > 1:
        raise UnsupportedFormatError(
            f"{path} is part {int(match[1])} of {int(match[2])} of a model",
            advice="merge the parts first with llama.cpp:  llama-gguf-split --merge FIRST_PART MERGED.gguf",
        )


def _refuse_other_contents(file: GgufFile) -> None:
    kind = str(file.fields.get("general.type", "model"))
    what = _NO_MODELS.get(kind) or {"controlvector": "a control vector", "clip": "a projector of images"}.get(
        file.architecture
    )
    if what is not None:
        raise UnsupportedFormatError(
            f"{file.path} holds {what}, not a model", advice="give the GGUF file of the model itself"
        )
    if not file.architecture or not file.weights:
        raise FileFormatError(
            f"{file.path} names no architecture or has no tensors: it is no model;", advice="fetch it again"
        )
