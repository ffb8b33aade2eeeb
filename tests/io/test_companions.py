"""An adapter's own tokenizer and templates stand in for its base's, and never mix with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from tests.checkpoints import write
from tests.io.adapter_files import write as write_adapter

from alignmend.io.adapter import open_adapter_folder
from alignmend.io.copies import companions_of
from alignmend.io.folder import open_checkpoint_folder

BASE = {
    "tokenizer.json": "base",
    "tokenizer_config.json": "{}",
    "tokenizer.model": "base",
    "added_tokens.json": "{}",
    "chat_template.jinja": "base",
    "additional_chat_templates/tool.jinja": "base",
    "generation_config.json": "{}",
}
WHOLE = {"tokenizer.json": "own", "tokenizer_config.json": '{"chat_template": "own"}'}
"""A tokenizer that holds its template: the base's file would go before it."""


def put(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("own", "gone"),
    [
        ({}, set()),
        ({"chat_template.jinja": "own"}, {"additional_chat_templates/tool.jinja"}),
        ({"additional_chat_templates/other.jinja": "own"}, set()),
        ({"special_tokens_map.json": "{}"}, set()),
        (
            {"tokenizer_config.json": '{"chat_template": "own"}'},
            {"chat_template.jinja", "additional_chat_templates/tool.jinja"},
        ),
        (
            WHOLE,
            {"tokenizer.model", "added_tokens.json", "chat_template.jinja", "additional_chat_templates/tool.jinja"},
        ),
        (
            {"tokenizer_config.json": "{}", "spiece.model": "own"},
            {name for name in BASE if name not in ("tokenizer_config.json", "generation_config.json")},
        ),
    ],
    ids=["nothing", "template", "further template", "map", "config", "whole", "sentencepiece"],
)
def test_what_an_adapter_has_of_its_own_goes_first(own: Mapping[str, str], gone: set[str], tmp_path: Path) -> None:
    base = open_checkpoint_folder(put(write(tmp_path / "base", {"w": torch.ones(2)}), BASE))
    (tmp_path / "adapter").mkdir()
    others = {"README.md": "", "config.json": "{}", "trainer_state.json": "{}", "LICENSE": "its own"}
    adapter = open_adapter_folder(write_adapter(put(tmp_path / "adapter", {**own, **others})))
    found = companions_of(base, adapter)
    assert set(found) == ({*BASE, *own, "config.json"} - gone)
    for name, path in found.items():
        assert path == (adapter.path if name in own else base.path) / name
    assert list(found) == list(companions_of(base, adapter))
