"""Open a PEFT adapter folder as a delta: headers only, the bytes come later."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from alignmend.errors import FileFormatError, UnsupportedFormatError
from alignmend.io.adapter_collect import collect_parts
from alignmend.io.adapter_config import AdapterConfig, read_adapter_config
from alignmend.io.adapter_parts import (
    AdapterPart,
    BlockPart,
    DoraPart,
    LowRankPart,
    ParameterPart,
    ReplacedPart,
    TokenRowsPart,
)
from alignmend.io.adapter_resolve import resolve_part_names
from alignmend.io.architecture import Architecture
from alignmend.io.header import Header
from alignmend.io.hub import find
from alignmend.io.index import INDEX_NAME, SINGLE_NAME
from alignmend.io.links import own_file
from alignmend.io.published import noted_base
from alignmend.io.session import header_of
from alignmend.io.tensors import TensorEntry

__all__ = [
    "AdapterFolder",
    "AdapterPart",
    "BlockPart",
    "DoraPart",
    "LowRankPart",
    "ParameterPart",
    "ReplacedPart",
    "TokenRowsPart",
    "low_rank_parts",
    "open_adapter_folder",
    "resolve_parts",
]

WEIGHTS_NAME = "adapter_model.safetensors"
PICKLED_NAME = "adapter_model.bin"


_TO_SAFETENSORS = (
    'python -c "import sys, torch, safetensors.torch as s; i, o = sys.argv[1:]; s.save_file({k: v.clone().contiguous() '
    "for k, v in torch.load(i, map_location='cpu', weights_only=True).items()}, o)\""
)


@dataclass(frozen=True)
class AdapterFolder:
    """A LoRA adapter on this machine, known from its headers; no tensor byte has been read."""

    location: str
    """What the user wrote."""
    path: Path
    """The folder that holds it."""
    revision: str | None
    """The hub commit, for a snapshot of a hub repository."""
    base: str | None
    """`base_model_name_or_path`: a path where it exists relative to the folder, else what the adapter
    says."""
    base_revision: str | None
    module_parts: Mapping[str, tuple[AdapterPart, ...]]
    """Parameter name in the adapted model, sorted -> what the adapter contributes to it. `transposed` is
    what the options claim; `resolve_parts` settles it by the base's shapes."""
    config: Mapping[str, object]
    """`adapter_config.json` as it is."""
    headers: tuple[Header, ...]
    """The header of its one weight file: its size and hash identify the adapter."""


def open_adapter_folder(location: str | Path, *, revision: str | None = None) -> AdapterFolder:
    """Open the adapter in a folder or of a hub id; `revision` is a branch, tag or commit of a hub id.

    Raises `FileFormatError` where files are missing, damaged or contradict each other,
    `UnsupportedFormatError` where the adapter is pickled or of a kind whose delta the parts do not express.
    """
    found = find(location, revision=revision)
    config, raw = read_adapter_config(found.path)
    header = header_of(_weights_file(found.path))
    return AdapterFolder(
        location=str(location),
        path=found.path,
        revision=found.revision,
        base=_base(found.path, config.base_model_name_or_path),
        base_revision=config.revision,
        module_parts=MappingProxyType(collect_parts(header, config)),
        config=MappingProxyType(raw),
        headers=(header,),
    )


def resolve_parts(
    adapter: AdapterFolder,
    tensors: Mapping[str, TensorEntry],
    *,
    tied: bool,
    architecture: Architecture | None = None,
) -> Mapping[str, tuple[AdapterPart, ...]]:
    """Weight name in the base checkpoint -> what the adapter contributes to it, `transposed` settled.

    `tensors` are the base's entries by name, `tied` says that its output head shares the input embedding.
    Names that differ only in wrappers around the text decoder (`model.`, `language_model.`, ...) find each
    other; what else `transformers` loads alike is found by the base's `architecture`.
    Raises `MismatchError` where a name or shape does not fit, `UnsupportedFormatError` for quantized or fused
    weights.
    """
    config = AdapterConfig.model_validate(dict(adapter.config))
    return resolve_part_names(
        adapter.location, adapter.module_parts, tensors, config, tied=tied, architecture=architecture
    )


_WORDS: Mapping[type, str] = {
    ReplacedPart: "a whole copy of the weight",
    DoraPart: "factors with a magnitude (DoRA)",
    TokenRowsPart: "trained rows of an embedding",
    ParameterPart: "factors of stacked experts",
}


def low_rank_parts(adapter: AdapterFolder) -> dict[str, LowRankPart]:
    """Module name (as PEFT knows it, without `.weight`) -> its factors, for a result that is an adapter
    again.

    Raises `UnsupportedFormatError` where the adapter also holds parts that are not low-rank.
    """
    found: dict[str, LowRankPart] = {}
    for parameter, parts in adapter.module_parts.items():
        if len(parts) != 1 or not isinstance(parts[0], LowRankPart):
            kinds = " and ".join(dict.fromkeys(_WORDS.get(type(part), "factors") for part in parts))
            raise UnsupportedFormatError(
                f"{adapter.location} holds {kinds} for {parameter}, so the result cannot be an adapter",
                advice=(
                    "write a full checkpoint instead, or where PEFT copied an embedding that was not trained, "
                    "save the adapter again with save_embedding_layers=False"
                ),
            )
        found[parameter.removesuffix(".weight")] = parts[0]
    return found


def _weights_file(path: Path) -> Path:
    weights, pickled = path / WEIGHTS_NAME, path / PICKLED_NAME
    if whole := next((name for name in (SINGLE_NAME, INDEX_NAME) if (path / name).exists()), None):
        raise UnsupportedFormatError(
            f"{path} holds both an adapter and a whole checkpoint ({whole}), and the adapter may be merged already",
            advice="move the one that is not meant to another folder",
        )
    if weights.is_file():
        return own_file(path, weights)
    if pickled.is_file():
        raise UnsupportedFormatError(
            f"{pickled} is pickled, which could run any code when opened",
            advice=(
                f"if you trust its origin, convert it once:  {_TO_SAFETENSORS} {shlex.quote(str(pickled))} "
                f"{shlex.quote(str(weights))}"
            ),
        )
    raise FileFormatError(f"{path} has no {WEIGHTS_NAME}", advice="fetch the adapter again, or save it anew with PEFT")


def _base(path: Path, named: str | None) -> str | None:
    if not named:
        return noted_base(path)
    beside = path / named
    try:
        return str(beside) if beside.is_dir() else named
    except (OSError, ValueError):  # a name too long for a file, or with NUL in it
        return named
