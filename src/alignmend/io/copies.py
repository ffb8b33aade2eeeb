"""Carry what lies beside a target's weights to an output: the same files, with the dtype told truly."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from alignmend.io.adapter import AdapterFolder
from alignmend.io.companions import by_name, find_tokenizer_files, superseded
from alignmend.io.folder import CheckpointFolder
from alignmend.io.hub import is_hub_id

_CONFIGS = frozenset({"config.json", "generation_config.json", "tokenizer_config.json", "processor_config.json"})
_PLACES = frozenset({"_name_or_path", "name_or_path", "tokenizer_file", "special_tokens_map_file", "vocab_file"})
"""Keys that say where something was loaded from; loaders pass over them."""
_MAX_CONFIG_BYTES = 50_000_000
_DTYPE_KEYS = ("dtype", "torch_dtype")


def companions_of(source: CheckpointFolder, adapter: AdapterFolder | None) -> dict[str, Path]:
    """What the model that `adapter` makes of `source` has beside its weights, by name: its own tokenizer goes first."""
    own = tokenizer_of(adapter)
    return {
        name: path for name, path in by_name(source.path, source.companions).items() if not superseded(name, own)
    } | own


def tokenizer_of(adapter: AdapterFolder | None) -> dict[str, Path]:
    """The tokenizer files in an adapter's folder, by name; none without an adapter."""
    return {} if adapter is None else by_name(adapter.path, find_tokenizer_files(adapter.path))


def copy_companions(
    source: CheckpointFolder, folder: Path, *, dtype: str | None, adapter: AdapterFolder | None = None
) -> None:
    """Copy the companions of `source` as `adapter` changes them.

    `config.json` says the `dtype`, where one is given, and the size of a resized vocabulary.
    """
    files = companions_of(source, adapter)
    copy_files(files, folder)
    if (dtype is not None or source.resized) and "config.json" in files:
        config = dict(source.config) if dtype is None else _with_dtype(dict(source.config), dtype)
        config = {key: value for key, value in config.items() if not (key in _PLACES and _is_place(value))}
        text = json.dumps(config, indent=2, ensure_ascii=False)
        (folder / "config.json").write_text(f"{text}\n", encoding="utf-8")


def copy_files(files: Mapping[str, Path], folder: Path) -> None:
    """Copy `files` into `folder` under their names there."""
    for name, path in files.items():
        copy = folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if (cleaned := without_places(path)) is None:
            shutil.copyfile(path, copy)
        else:
            copy.write_bytes(cleaned)


def without_places(path: Path) -> bytes | None:
    """A config that tells where its model lay on somebody's machine, without that; `None` for any other file."""
    if path.name not in _CONFIGS or path.stat().st_size > _MAX_CONFIG_BYTES:
        return None
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
    kept = _without_places(value)
    return None if kept == value else f"{json.dumps(kept, indent=2, ensure_ascii=False)}\n".encode()


def _without_places(value: object) -> object:
    if not isinstance(value, dict):
        return value
    return {key: _without_places(one) for key, one in value.items() if not (key in _PLACES and _is_place(one))}


def _is_place(value: object) -> bool:
    """Whether a config's word for its origin is a path, not the id of a hub."""
    return isinstance(value, str) and value != "" and not (is_hub_id(value) or re.fullmatch(r"[\w.-]+", value))


def _with_dtype(config: dict[str, object], dtype: str) -> dict[str, object]:
    changed: dict[str, object] = {}
    for key, value in config.items():
        if key in _DTYPE_KEYS:
            changed[key] = dtype
        else:
            changed[key] = _with_dtype(value, dtype) if isinstance(value, dict) else value
    return (
        changed
        if any(key in config for key in _DTYPE_KEYS) or "model_type" not in config
        else {**changed, "dtype": dtype}
    )
