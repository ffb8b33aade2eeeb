"""Inputs that are missing, damaged, changing or not finite: one clear message, nothing left behind."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.cli.command import alignmend, assert_one_message
from tests.methods.tiny import UP, contents, near, random_tensors, read, resta_recipe, trio, write, write_shards

import alignmend as am
from alignmend.cli import main
from alignmend.errors import FileFormatError, NonFiniteError, OutputError
from alignmend.recipes.schema import load_recipe

NAME = UP.format(1)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return trio(tmp_path / "in")


def assert_nothing_left(folder: Path) -> None:
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Edit the tensors of a checkpoint on disk."""
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def refused(place: Path, capsys: pytest.CaptureFixture[str], *parts: str, options: tuple[str, ...] = ()) -> None:
    """`apply` ends with 2, says these parts, and leaves nothing."""
    recipe = resta_recipe(place)
    assert main(["apply", str(recipe), "--out", str(place.parent / "out"), *options]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert_one_message(shown.err, *parts)
    assert_nothing_left(place)


def test_a_missing_model(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "aligned").rename(place / "elsewhere")
    refused(place, capsys, f"{place / 'aligned'}: no such folder or file on this machine")


def test_a_folder_without_weights(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "aligned" / "model.safetensors").unlink()
    refused(place, capsys, "has no weights")


@pytest.mark.parametrize("size", [0, 5, 100, 2000])
def test_a_truncated_shard(place: Path, capsys: pytest.CaptureFixture[str], size: int) -> None:
    os.truncate(place / "unaligned" / "model.safetensors", size)
    refused(place, capsys, str(place / "unaligned" / "model.safetensors"))


def test_a_missing_shard(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = list(read(place / "aligned").items())
    write_shards(place / "cut", [dict(tensors[:3]), dict(tensors[3:])])
    (place / "cut" / "model-00002-of-00002.safetensors").unlink()
    (place / "aligned").rename(place / "kept")
    (place / "cut").rename(place / "aligned")
    refused(place, capsys, "model-00002-of-00002.safetensors")


def test_another_shape(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(place / "unaligned", lambda tensors: tensors.update({NAME: torch.zeros(3, 8)}))
    refused(place, capsys, NAME, "shape [3, 8], the target [16, 8]")


def test_a_missing_and_an_extra_tensor_are_both_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(place / "unaligned", lambda tensors: tensors.update(surprise=tensors.pop(NAME)))
    refused(place, capsys, f"{NAME} is in", "surprise is in", "but not in")


def test_a_quantized_base_is_refused_with_the_way_out(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = place / "aligned" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "quantization_config": {"quant_method": "gptq"}}))
    refused(place, capsys, "declares quantized weights", "gptq", "full-precision")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("role", ["finetuned", "aligned", "unaligned"])
def test_values_that_are_not_finite_are_refused_by_name(
    place: Path, capsys: pytest.CaptureFixture[str], role: str, value: float
) -> None:
    change(place / role, lambda tensors: tensors[NAME].view(-1).__setitem__(77, value))
    refused(place, capsys, f"{NAME} in {role}/model.safetensors holds NaN or infinity", "--allow-nonfinite")


def test_values_that_are_not_finite_pass_where_allowed(place: Path) -> None:
    change(place / "finetuned", lambda tensors: tensors[NAME].view(-1).__setitem__(77, float("nan")))
    out = place.parent / "out"
    assert main(["apply", str(resta_recipe(place)), "--out", str(out), "--allow-nonfinite"]) == 0
    found = read(out)[NAME].view(-1)
    assert bool(found[77].isnan()) and int(found.isnan().sum()) == 1


def test_not_finite_values_in_a_tensor_that_is_only_copied_are_refused_too(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(place / "finetuned", lambda tensors: tensors["model.norm.weight"].__setitem__(0, float("nan")))
    refused(place, capsys, "model.norm.weight in finetuned", options=("--set", "layers=[0]"))


def test_an_adapter_with_nan_is_refused_by_name(tmp_path: Path) -> None:
    from tests.recipes.test_operands import adapter

    adapter(trio(tmp_path) / "lora", 1)
    path = tmp_path / "lora" / "adapter_model.safetensors"
    tensors = load_file(path)
    first = sorted(tensors)[0]
    tensors[first][0, 0] = float("nan")
    save_file(tensors, path)
    base = am.open(tmp_path / "aligned")
    with pytest.raises(NonFiniteError, match="lora_A"):
        am.save(base + am.open_adapter(tmp_path / "lora"), tmp_path / "out")


def test_a_result_too_large_for_its_dtype_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(
        place,
        capsys,
        "too large for the output's F16",
        options=("--set", "output.dtype=float16", "--set", "coefficient=1e6"),
    )


def sharded(folder: Path, seed: int) -> Path:
    tensors = near(random_tensors(0, size=64, layers=8), seed)
    return write_shards(folder, [{name: tensor} for name, tensor in tensors.items()])


@pytest.mark.parametrize("when", ["rank", "write"])
@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (Path.unlink, r"can no longer be (opened|read): No such file"),
        (lambda path: os.truncate(path, 300), r"became shorter while .* was read"),
    ],
)
def test_an_input_that_vanishes_while_it_is_read(
    tmp_path: Path, harm: Callable[[Path], object], message: str, when: str
) -> None:
    """Shards are opened when they are needed: here the last one goes between the plan and its turn."""
    target, aligned, unaligned = (am.open(sharded(tmp_path / "in" / str(seed), seed)) for seed in range(3))
    victims = [tmp_path / "in" / "2" / "model-00019-of-00019.safetensors"]

    def progress(what: str, done: int, total: int) -> None:
        if what == when and victims:
            harm(victims.pop())

    step = 0.5 * (aligned - unaligned)
    if when == "rank":
        step = am.trim(step, density=0.5)
    with pytest.raises(FileFormatError, match=message):
        am.save(target + step, tmp_path / "out", progress=progress, threads=1)
    assert_nothing_left(tmp_path / "in")


def rewrite(path: Path) -> None:
    """The same size, other bytes, as a job that saves again."""
    with path.open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(bytes(8))


def replace(path: Path) -> None:
    """Another file under the same name, with the same size and time of change."""
    status, data = path.stat(), bytearray(path.read_bytes())
    data[-8:] = bytes(8)
    other = path.with_name("other")
    other.write_bytes(data)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize(("harm", "told"), [(rewrite, "was written to"), (replace, "was replaced")])
@pytest.mark.parametrize("role", [0, 2])
@pytest.mark.parametrize("file", ["model-00001-of-00019.safetensors", "model-00019-of-00019.safetensors"])
def test_an_input_that_is_rewritten_while_it_is_read(
    tmp_path: Path, harm: Callable[[Path], None], told: str, role: int, file: str
) -> None:
    target, aligned, unaligned = (am.open(sharded(tmp_path / "in" / str(seed), seed)) for seed in range(3))
    victims = [tmp_path / "in" / str(role) / file]

    def progress(what: str, done: int, total: int) -> None:
        if what == "write" and victims:
            harm(victims.pop())

    with pytest.raises(FileFormatError, match=rf"{file} {told} while it was read.*nothing was published"):
        am.save(target + 0.5 * (aligned - unaligned), tmp_path / "out", progress=progress, threads=1)
    assert_nothing_left(tmp_path / "in")


def test_an_input_that_is_rewritten_after_it_was_opened(tmp_path: Path) -> None:
    """Its headers may no longer be true, even if nothing had been read of its weights."""
    target, aligned = (am.open(sharded(tmp_path / "in" / str(seed), seed)) for seed in range(2))
    rewrite(tmp_path / "in" / "1" / "model-00001-of-00019.safetensors")
    with pytest.raises(FileFormatError, match="was written to while it was read"):
        am.save(aligned + 0.5 * (target - aligned), tmp_path / "out")
    with pytest.raises(FileFormatError, match="was written to while it was read"):
        am.save_delta(target - aligned, tmp_path / "delta", target=aligned)
    assert_nothing_left(tmp_path / "in")


def test_a_companion_that_is_rewritten_while_weights_are_read(tmp_path: Path) -> None:
    target = am.open(sharded(tmp_path / "in" / "0", 0))

    def progress(what: str, done: int, total: int) -> None:
        (tmp_path / "in" / "0" / "config.json").write_text('{"model_type": "llama"}')

    with pytest.raises(FileFormatError, match=r"config\.json was written to"):
        am.save(target, tmp_path / "out", progress=progress)
    assert_nothing_left(tmp_path / "in")


def test_an_input_that_vanishes_before_anything_is_read(tmp_path: Path) -> None:
    target, aligned = (am.open(sharded(tmp_path / "in" / str(seed), seed)) for seed in range(2))
    (tmp_path / "in" / "1" / "model-00001-of-00019.safetensors").unlink()
    with pytest.raises(FileFormatError, match=r"can no longer be (opened|read): No such file"):
        am.save(aligned + 0.5 * (target - aligned), tmp_path / "out")
    assert_nothing_left(tmp_path / "in")


def test_a_companion_that_vanishes_is_said_to_be_an_input(tmp_path: Path) -> None:
    target = am.open(sharded(tmp_path / "in" / "0", 0))
    (tmp_path / "in" / "0" / "config.json").unlink()
    with pytest.raises((FileFormatError, OutputError), match=r"config\.json"):
        am.save(target, tmp_path / "out")
    assert_nothing_left(tmp_path / "in")


@pytest.mark.parametrize("out", ["aligned", "finetuned", ".", "finetuned/../aligned"])
def test_an_output_never_replaces_an_input(place: Path, capsys: pytest.CaptureFixture[str], out: str) -> None:
    before = contents(place)
    recipe = resta_recipe(place)
    assert main(["apply", str(recipe), "--out", str(place / out), "--overwrite"]) == 2
    assert_one_message(capsys.readouterr().err, "input")
    recipe.unlink()
    assert contents(place) == before


def test_an_input_behind_a_link_is_not_replaced_either(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "link").symlink_to(place / "aligned")
    before = contents(place / "aligned")
    assert main(["apply", str(resta_recipe(place)), "--out", str(place / "link"), "--overwrite"]) == 2
    assert_one_message(capsys.readouterr().err, "is one of the inputs")
    assert contents(place / "aligned") == before


def test_no_traceback_in_a_process_of_its_own(place: Path) -> None:
    os.truncate(place / "aligned" / "model.safetensors", 200)
    recipe = resta_recipe(place)
    assert load_recipe(recipe)[0].method == "resta"
    ended = alignmend("apply", recipe, "--out", place.parent / "out")
    assert ended.returncode == 2
    assert_one_message(ended.stderr, "alignmend apply: ")
    assert len(ended.stderr.strip().splitlines()) == 1


def test_write_helper_makes_what_open_reads(tmp_path: Path) -> None:
    tensors = random_tensors(0)
    assert read(write(tmp_path / "m", tensors)).keys() == tensors.keys()
