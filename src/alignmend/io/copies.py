"""Carry what lies beside a target's weights to an output: the same files, with the dtype told truly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from alignmend.io.adapter import AdapterFolder
from alignmend.io.companions import by_name, find_tokenizer_files, superseded
from alignmend.io.folder import CheckpointFolder

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
        text = json.dumps(config, indent=2, ensure_ascii=False)
        (folder / "config.json").write_text(f"{text}\n", encoding="utf-8")


def copy_files(files: Mapping[str, Path], folder: Path) -> None:
    """Copy `files` into `folder` under their names there."""
    for name, path in files.items():
        copy = folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


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
