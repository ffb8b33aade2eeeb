"""Disks that are full, read-only or too small: one clear message, nothing left behind."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tests.cli.command import alignmend, assert_one_message
from tests.methods.tiny import contents, resta_recipe, trio, write

import alignmend as am
from alignmend.cli import main
from alignmend.errors import OutputError

MEGABYTE = 1 << 20
Disk = Callable[[int], Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Mounts small disks of a size in bytes; skipped where mounting is not permitted."""
    mounted: list[Path] = []

    def mount(size: int) -> Path:
        place = tmp_path / f"disk-{len(mounted)}"
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True, check=False
        )
        if done.returncode != 0:
            pytest.skip("mounting is not permitted here")
        mounted.append(place)
        return place

    try:
        yield mount
    finally:
        for place in mounted:
            subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Its result takes 6 MB."""
    return resta_recipe(trio(tmp_path / "in", size=512, layers=2))


def test_a_disk_that_is_too_small_is_told_before_any_work(disk: Disk, recipe: Path) -> None:
    place = disk(5 * MEGABYTE)
    ended = alignmend("apply", recipe, "--out", place / "out")
    assert ended.returncode == 2
    assert_one_message(
        ended.stderr, "the output needs 6.34 MB and the disk that holds", "MB too little: free space, or choose"
    )
    assert list(place.iterdir()) == []


def test_a_disk_that_fills_up_while_writing(disk: Disk, tmp_path: Path) -> None:
    place = disk(4 * MEGABYTE)
    weights = write(tmp_path / "in" / "model", {"model.layers.0.mlp.up_proj.weight": torch.zeros(MEGABYTE // 2)})
    with (weights / "tokenizer.json").open("wb") as tokenizer:
        tokenizer.write(b" " * 3 * MEGABYTE)  # weights fit, what lies beside them does not
    with pytest.raises(OutputError, match=r"the disk that holds .* is full; nothing was left behind"):
        am.save(am.open(weights), place / "out")
    assert list(place.iterdir()) == []


def test_somebody_else_fills_the_disk(disk: Disk, tmp_path: Path) -> None:
    place = disk(20 * MEGABYTE)
    names = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(4)]
    weights = write(tmp_path / "in" / "model", {name: torch.zeros(MEGABYTE // 2) for name in names})
    hog = place / "hog"

    def fill(what: str, done: int, total: int) -> None:
        if not hog.exists():
            free = os.statvfs(place)
            hog.write_bytes(b"\0" * (free.f_bavail * free.f_frsize))

    with pytest.raises(OutputError, match=r"is full; nothing was left behind: free space, or choose another disk"):
        am.save(am.open(weights), place / "out", progress=fill)
    assert [path.name for path in place.iterdir()] == ["hog"]


def test_a_read_only_disk(disk: Disk, recipe: Path) -> None:
    place = disk(100 * MEGABYTE)
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    ended = alignmend("apply", recipe, "--out", place / "deep" / "out")
    assert ended.returncode == 2
    assert_one_message(ended.stderr, f"cannot write {place / 'deep' / 'out'}: Read-only file system")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_the_right_to_write(tmp_path: Path, recipe: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    ended = alignmend("apply", recipe, "--out", tmp_path / "closed" / "out")
    assert ended.returncode == 2
    assert_one_message(ended.stderr, "cannot write", "Permission denied")


def test_a_limit_on_the_size_of_files(tmp_path: Path, recipe: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3 * MEGABYTE, 3 * MEGABYTE))

    ended = alignmend("apply", recipe, "--out", tmp_path / "place" / "out", preexec_fn=limit)
    assert ended.returncode == 2
    assert_one_message(ended.stderr, "cannot write", "File too large")
    assert list((tmp_path / "place").iterdir()) == []


def test_a_file_where_a_folder_is_meant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(resta_recipe(trio(tmp_path / "in")))
    (tmp_path / "file").write_text("mine")
    for out, problem in (("file", "exists and is not a folder"), ("file/below", "File exists")):
        assert main(["apply", recipe, "--out", str(tmp_path / out), "--overwrite"]) == 2
        assert_one_message(capsys.readouterr().err, problem)
    assert (tmp_path / "file").read_text() == "mine"


def test_an_output_behind_a_link_is_replaced_where_it_lies(tmp_path: Path) -> None:
    recipe = str(resta_recipe(trio(tmp_path / "in")))
    (tmp_path / "big-disk" / "out").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "big-disk" / "out")
    for _ in range(3):
        assert main(["apply", recipe, "--out", str(tmp_path / "out"), "--overwrite"]) == 0
        assert (tmp_path / "out").is_symlink()
        assert [path.name for path in (tmp_path / "big-disk").iterdir()] == ["out"]
    assert "model.safetensors" in contents(tmp_path / "big-disk" / "out")


@pytest.mark.parametrize("out", [".", "..", "../here"])
def test_the_current_folder_is_never_replaced(
    tmp_path: Path, out: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = resta_recipe(trio(tmp_path / "in"))
    here = tmp_path / "around" / "here"
    here.mkdir(parents=True)
    (here / "notes.txt").write_text("mine")
    monkeypatch.chdir(here)
    assert main(["apply", str(recipe), "--out", out, "--overwrite"]) == 2
    assert_one_message(capsys.readouterr().err, "holds the current or the home folder: choose another folder")
    assert contents(tmp_path / "around") == {"here/notes.txt": b"mine"}
