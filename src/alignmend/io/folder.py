"""Opening a checkpoint: a folder, a single file or a hub id becomes a table of tensors; headers only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from alignmend.errors import FileFormatError, UnsupportedFormatError
from alignmend.io.companions import find_companions, unrelated_links
from alignmend.io.header import Header
from alignmend.io.hub import find
from alignmend.io.index import read_headers
from alignmend.io.links import own_file
from alignmend.io.quantized import refuse_quantized_config, refuse_quantized_tensors
from alignmend.io.refusals import refuse_file, refuse_folder
from alignmend.io.same_values import same_values
from alignmend.io.session import header_of
from alignmend.io.strict_json import JsonObject, read_object, shown
from alignmend.io.tensors import TensorEntry

MAX_CONFIG_BYTES = 50_000_000
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
_OUTPUT_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output)\.weight$")
_INPUT_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|word_embeddings|embed_in|tok_embeddings)\.weight$")
_ONE_OF_SEVERAL = re.compile(r".*-\d{5}-of-(?!00001)\d{5}\.safetensors")


@dataclass(frozen=True)
class CheckpointFolder:
    """A checkpoint on this machine, known from its headers; no weights have been read but the copies of a tied one."""

    location: str
    """What the user wrote."""
    path: Path
    """The folder that holds the weights and everything beside them."""
    revision: str | None
    """The hub commit, for a snapshot of a hub repository."""
    tensors: Mapping[str, TensorEntry]
    """By name (after the prefix), sorted by name."""
    config: Mapping[str, object]
    """`config.json`, empty if there is none."""
    tied: bool
    """Whether the output head shares the input embedding: stored once, or as two copies with the same values."""
    headers: tuple[Header, ...]
    """One per weight file, sorted by file name; names there have no prefix."""
    companions: tuple[Path, ...]
    """Files under `path` that an output made from this checkpoint must carry too."""
    notes: tuple[str, ...] = ()
    """What to know of it."""
    resized: Mapping[str, int] = field(default_factory=dict)
    """Tensors that have an adapter's number of rows instead of their own -> how many they have on disk."""


def open_checkpoint_folder(location: str | Path, *, revision: str | None = None, prefix: str = "") -> CheckpointFolder:
    """Open a folder with `model.safetensors` or an index of shards, one `.safetensors` file, or a hub id.

    `revision` is a branch, tag or commit of a hub id. `prefix` goes before every tensor's name: so a text
    model can meet the decoder nested in a vision-language model.
    Raises `FileFormatError` for what is missing, damaged or hostile, `UnsupportedFormatError` for formats
    that the arithmetic would get wrong.
    """
    written = str(location)
    found = find(location, revision=revision)
    folder, headers = _weights(found.path, written)
    config = _read_config(folder)
    refuse_quantized_config(config, folder / "config.json")
    entries = _merged(headers)
    refuse_quantized_tensors(entries.values(), headers[0].metadata)
    tied, notes = _tying(config, entries, folder)
    return CheckpointFolder(
        location=written,
        path=folder,
        revision=found.revision,
        tensors={prefix + name: replace(entries[name], name=prefix + name) for name in sorted(entries)},
        config=config,
        tied=tied,
        headers=headers,
        companions=find_companions(folder),
        notes=(*notes, *_link_notes(folder)),
    )


def is_adapter_folder(path: Path) -> bool:
    """Whether the folder `path` holds a PEFT adapter, judged by its files."""
    return any((path / name).is_file() for name in _ADAPTER_FILES)


def _weights(path: Path, written: str) -> tuple[Path, tuple[Header, ...]]:
    """The folder and the headers of its weight files."""
    if not path.is_dir():
        refuse_file(path, written)
        if _ONE_OF_SEVERAL.fullmatch(path.name):
            raise FileFormatError(f"{written} is one shard of several", advice="give the folder that holds them all")
        if is_adapter_folder(path.parent) and path.name == "adapter_model.safetensors":
            refuse_folder(path.parent, written)
        return path.parent, (header_of(path),)
    headers = read_headers(path)
    if headers is None:
        refuse_folder(path, written)
    if is_adapter_folder(path):
        raise UnsupportedFormatError(
            f"{written} holds both an adapter and a whole checkpoint, and the adapter may be merged already",
            advice="move the one that is not meant to another folder",
        )
    return path, headers


def _read_config(folder: Path) -> JsonObject:
    path = folder / "config.json"
    if not path.exists():
        return {}
    return read_object(own_file(folder, path), limit=MAX_CONFIG_BYTES, advice="repair config.json or fetch it again")


def _merged(headers: Iterable[Header]) -> dict[str, TensorEntry]:
    return {name: entry for header in headers for name, entry in header.entries.items()}


def _link_notes(folder: Path) -> tuple[str, ...]:
    links = unrelated_links(folder)
    told = f"{', '.join(links)} in {folder}: links to unrelated files, which are not copied"
    return (told,) if links else ()


def _tying(
    config: Mapping[str, object], entries: Mapping[str, TensorEntry], folder: Path
) -> tuple[bool, tuple[str, ...]]:
    """Whether head and embedding are one weight, and what to say where config and files disagree.

    `transformers` takes two stored copies that differ for two weights, whatever the config says.
    """
    tied = _is_tied(config, entries, folder)
    heads = [name for name in entries if _OUTPUT_HEAD.search(name)]
    embeddings = [name for name in entries if _INPUT_EMBEDDING.search(name)]
    if not tied or len(heads) != 1 or len(embeddings) != 1 or same_values(entries[heads[0]], entries[embeddings[0]]):
        return tied, ()
    return False, (
        f"{folder / 'config.json'} ties the output head to the input embedding, but {heads[0]} and {embeddings[0]} "
        "differ: taken as two weights, as transformers does since version 5; other programs ignore such a head",
    )


def _is_tied(config: Mapping[str, object], names: Iterable[str], folder: Path) -> bool:
    """What the config says, at its top or for the text model; if nothing, what the tensors' names suggest."""
    for part in (config, config.get("text_config")):
        said = part.get("tie_word_embeddings") if isinstance(part, Mapping) else None
        if isinstance(said, bool):
            return said
        if said is not None:
            raise FileFormatError(
                f"{folder / 'config.json'}: tie_word_embeddings is {shown(said)}", advice="make it true or false"
            )
    names = tuple(names)
    has_head = any(_OUTPUT_HEAD.search(name) for name in names)
    return not has_head and any(_INPUT_EMBEDDING.search(name) for name in names)
