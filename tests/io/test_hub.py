"""A location is a path if it exists, else a hub id; a failure says that both readings were tried."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from alignmend.errors import FileFormatError, MissingExtraError, RecipeError
from alignmend.io.hub import find, is_hub_id, optional_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize("text", ["org/name", "org/Name-7b_chat.v2", "0org/n"])
def test_hub_ids(text: str) -> None:
    assert is_hub_id(text)


@pytest.mark.parametrize("text", ["name", "./name", "/org/name", "a/b/c", "../x", "a/..", "~/x", "a b/c", "a/b\n", ""])
def test_not_hub_ids(text: str) -> None:
    assert not is_hub_id(text)


def test_an_existing_path_wins_over_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    found = find("org/name")
    assert (found.path, found.revision) == (Path("org/name"), None)
    with pytest.raises(RecipeError, match="revision 'main' was given for org/name, which is a local path"):
        find("org/name", revision="main")


@pytest.mark.parametrize("text", ["nowhere", "./org/name", "a/b/c", "/nowhere/at/all"])
def test_a_path_that_is_nowhere(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileFormatError, match="no such folder or file on this machine, and not a hub id either"):
        find(text)


@pytest.mark.parametrize("text", ["", "a\0b"])
def test_no_place_at_all(text: str) -> None:
    with pytest.raises(RecipeError, match="is no place for a model"):
        find(text)


def test_a_name_too_long_for_the_system() -> None:
    with pytest.raises(FileFormatError, match=r"cannot be looked up|no such folder"):
        find("x" * 5000)


def test_without_the_hub_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"needs huggingface_hub: .*alignmend\[hub\]"):
        find("org/name")


def offline(cache: Path, program: str) -> str:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=cache,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_offline_finds_the_cached_snapshot(tmp_path: Path) -> None:
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    save_file({"a": np.ones(2, np.float32)}, snapshot / "model.safetensors")
    program = (
        "from alignmend.io.folder import open_checkpoint_folder\n"
        "opened = open_checkpoint_folder('org/name')\n"
        "print(opened.location, opened.revision, *opened.tensors)"
    )
    assert offline(tmp_path, program).split() == ["org/name", COMMIT, "a"]


def test_offline_without_a_snapshot_says_that_both_readings_failed(tmp_path: Path) -> None:
    program = (
        "from alignmend.errors import FileFormatError\n"
        "from alignmend.io.hub import find\n"
        "try: find('org/name', revision='main')\n"
        "except FileFormatError as error: print(error)"
    )
    message = offline(tmp_path, program)
    assert "org/name@main: no such path on this machine; read as a hub id," in message
    assert "HF_HUB_OFFLINE" in message


def test_a_file_that_may_be_there_is_found_in_a_folder_or_the_cache(tmp_path: Path) -> None:
    (tmp_path / "steering.safetensors").write_bytes(b"x")
    assert optional_file(tmp_path, "steering.safetensors") == tmp_path / "steering.safetensors"
    assert optional_file(tmp_path, "other.safetensors") is None
    assert optional_file(tmp_path / "nowhere", "other.safetensors") is None
    cache = tmp_path / "cache"
    snapshot = cache / "models--org--name" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text(COMMIT)
    (snapshot / "steering.safetensors").write_bytes(b"x")
    program = (
        "from alignmend.io.hub import optional_file\n"
        "for name in ('steering.safetensors', 'other.safetensors'): print(optional_file('org/name', name))"
    )
    assert offline(cache, program).split() == [str(snapshot / "steering.safetensors"), "None"]
