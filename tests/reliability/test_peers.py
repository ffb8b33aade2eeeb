"""Five things that tools of this kind have been seen to do, and that this one does not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.methods.tiny import QUERY, contents, read, resta_recipe, trio
from tests.reliability import kill

from alignmend.cli import main


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return trio(tmp_path / "in")


def test_nan_does_not_pass(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = place / "unaligned" / "model.safetensors"
    tensors = load_file(path)
    tensors[QUERY.format(0)][0, 0] = float("nan")
    save_file(tensors, path)
    assert main(["apply", str(resta_recipe(place)), "--out", str(tmp_path / "out")]) == 2
    assert QUERY.format(0) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_unknown_tensors_are_not_dropped(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for role in ("finetuned", "aligned", "unaligned"):
        path = place / role / "model.safetensors"
        save_file(load_file(path) | {"vision.strange_gadget": torch.ones(3)}, path)
    assert main(["apply", str(resta_recipe(place)), "--out", str(tmp_path / "out")]) == 0
    assert read(tmp_path / "out").keys() == read(place / "finetuned").keys()  # carried where all have it
    path = place / "unaligned" / "model.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if name != "vision.strange_gadget"}, path)
    assert main(["apply", str(resta_recipe(place)), "--out", str(tmp_path / "other")]) == 2
    assert "vision.strange_gadget is in" in capsys.readouterr().err  # told where one lacks it


def test_misspelled_parameters_are_not_ignored(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = resta_recipe(place, parameters="coefficient: 0.5, densty: 0.7")
    assert main(["apply", str(recipe), "--out", str(tmp_path / "out")]) == 2
    assert "line 3: unknown key 'parameters.densty': did you mean 'density'?" in capsys.readouterr().err


def test_new_shards_are_not_mixed_with_old_ones(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = str(resta_recipe(place)), tmp_path / "out"
    assert main(["apply", recipe, "--out", str(out), "--set", "output.max_shard_size=1KB"]) == 0
    before = contents(out)
    assert sum(name.endswith(".safetensors") for name in before) > 2
    assert main(["apply", recipe, "--out", str(out)]) == 2
    assert "exists and is not empty: choose another folder, or pass --overwrite" in capsys.readouterr().err
    assert contents(out) == before
    assert main(["apply", recipe, "--out", str(out), "--overwrite"]) == 0
    out.rename(tmp_path / "kept")
    assert main(["apply", recipe, "--out", str(out)]) == 0
    assert contents(tmp_path / "kept") == contents(out)  # one file, and nothing of the old shards and index


def test_a_stray_file_is_a_non_empty_folder(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "pytorch_model.bin").write_bytes(b"old")
    assert main(["apply", str(resta_recipe(place)), "--out", str(tmp_path / "out")]) == 2
    assert "not empty" in capsys.readouterr().err


@pytest.mark.slow
def test_a_kill_does_not_leave_shards_without_an_index(tmp_path: Path) -> None:
    recipe = resta_recipe(trio(tmp_path / "in", size=1024, layers=8), output="max_shard_size: 20MB")
    process = kill.start(recipe, tmp_path / "out")
    while process.poll() is None and not list((tmp_path / ".out.alignmend-partial").glob("model-00002-of-*")):
        time.sleep(kill.POLL_SECONDS)
    process.kill()
    process.wait()
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == ["in"]
