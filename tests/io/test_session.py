"""Within a session each file's header is parsed once; a file that has changed is read again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from tests.checkpoints import write

import alignmend as am
from alignmend.cli import main
from alignmend.errors import FileFormatError
from alignmend.io.header import Header
from alignmend.io.session import header_of, one_session


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "model", {"w": torch.zeros(4)}) / "model.safetensors"


def test_a_header_is_read_once_in_a_session_and_anew_without(file: Path) -> None:
    assert header_of(file) is not header_of(file)
    with one_session():
        first = header_of(file)
        with one_session():
            assert header_of(file) is first
        assert am.open(file.parent).root.folder.headers[0] is first
    with one_session():
        assert header_of(file) is not first


@pytest.mark.parametrize("how", ["written to", "replaced"])
def test_a_file_that_changed_is_read_again(file: Path, tmp_path: Path, how: str) -> None:
    other = write(tmp_path / "other", {"w": torch.zeros(9)}) / "model.safetensors"
    with one_session():
        assert header_of(file).entries["w"].shape == (4,)
        if how == "replaced":
            other.replace(file)
        else:
            file.write_bytes(other.read_bytes())
            os.utime(file, ns=(1, 1))
        assert header_of(file).entries["w"].shape == (9,)


def test_a_file_that_is_gone_is_told(file: Path) -> None:
    with one_session():
        header_of(file)
        file.unlink()
        with pytest.raises(FileFormatError, match=r"model\.safetensors"):
            header_of(file)


@pytest.mark.parametrize("command", ["apply", "explain"])
def test_a_command_parses_each_header_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    from alignmend.io import header, session

    for place, role in enumerate(("finetuned", "aligned", "unaligned")):
        write(tmp_path / role, {f"layers.{n}.w": torch.full((4, 4), 1.0 + place / 10) for n in (0, 1)}, shards=2)
    read: list[Path] = []

    def counted(path: Path) -> Header:
        read.append(path)
        return header.read_header(path)

    monkeypatch.setattr(session, "read_header", counted)
    recipe = tmp_path / "recipe.yaml"
    models = ", ".join(f"{role}: {tmp_path / role}" for role in ("finetuned", "aligned", "unaligned"))
    recipe.write_text(f"method: resta\nmodels: {{{models}}}\nparameters: {{coefficient: 0.5}}\n")
    out = ["--out", str(tmp_path / "out")] if command == "apply" else []
    assert main([command, str(recipe), *out]) == 0
    assert read and len(read) == len(set(read))
