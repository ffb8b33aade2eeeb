"""What is private is for its owner alone, and what is made from it is not marked as it is."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.methods.tiny import resta_recipe, trio

import alignmend as am
from alignmend.cli import main
from alignmend.io.atomic import close_to_others, open_as_usual, private_files
from alignmend.io.manifest import MANIFEST_NAME, Manifest, Versions, write_manifest
from alignmend.io.private import MARKER_NAME, is_private, mark_private


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def modes(folder: Path) -> set[tuple[str, int]]:
    """Kind and mode of the folder and of all that is in it."""
    return {("folder" if path.is_dir() else "file", mode(path)) for path in (folder, *folder.rglob("*"))}


CLOSED = {("folder", 0o700), ("file", 0o600)}
USUAL = {("folder", 0o755), ("file", 0o644)}


@pytest.fixture(autouse=True)
def usual_mask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_a_private_manifest_closes_its_folder_and_another_does_not(tmp_path: Path) -> None:
    for private, expected in ((True, CLOSED), (False, USUAL)):
        folder = tmp_path / str(private)
        (folder / "inner").mkdir(parents=True)
        (folder / "inner" / "model.safetensors").write_bytes(b"x")
        manifest = Manifest(versions=Versions(alignmend="0"), expression="x", private=private)
        write_manifest(folder / MANIFEST_NAME, manifest)
        assert modes(folder) == expected


def test_a_marked_folder_is_closed_before_anything_else_is_in_it(tmp_path: Path) -> None:
    mark_private(tmp_path, "work")
    assert mode(tmp_path) == 0o700 and mode(tmp_path / MARKER_NAME) == 0o600


def test_private_files_are_private_from_their_first_byte_and_links_are_left(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    with private_files():
        (tmp_path / "work").mkdir()
        (tmp_path / "work" / "a").write_text("a")
    assert modes(tmp_path / "work") == CLOSED
    (tmp_path / "work" / "link").symlink_to(outside)
    open_as_usual(tmp_path / "work")
    assert mode(tmp_path / "work") == 0o755 and mode(tmp_path / "work" / "a") == 0o644
    close_to_others(tmp_path / "work")
    assert mode(tmp_path / "work" / "a") == 0o600
    assert mode(outside) == 0o644


def test_the_marker_of_an_input_is_not_copied_to_the_output(tmp_path: Path) -> None:
    place = trio(tmp_path / "in")
    mark_private(place / "finetuned", "a working file")
    assert main(["apply", str(resta_recipe(place)), "--out", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out" / MARKER_NAME).exists()
    assert not is_private(tmp_path / "out")
    assert modes(tmp_path / "out") == USUAL
    assert main(["private", "clean", str(tmp_path / "out"), "--yes"]) == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_delta_of_a_private_model_is_closed(tmp_path: Path) -> None:
    place = trio(tmp_path / "in")
    mark_private(place / "unaligned", "a working file")
    aligned = am.open(place / "aligned")
    am.save_delta(am.open(place / "unaligned") - aligned, tmp_path / "runs" / "private", target=aligned)
    am.save_delta(am.open(place / "finetuned") - aligned, tmp_path / "runs" / "public", target=aligned)
    assert modes(tmp_path / "runs" / "private") == CLOSED
    assert modes(tmp_path / "runs" / "public") == USUAL
