"""`alignmend train` as a script meets it; what it trains is tested beside the training itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.command import assert_one_message
from tests.training.making import save_tiny, write_pairs

from alignmend.cli import main


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("inputs")
    save_tiny(place / "model")
    write_pairs(place / "pairs.jsonl", [(f"What is {n}?", f"It is {n}.") for n in range(6)])
    return place


def train(inputs: Path, *arguments: str | Path) -> int:
    given = ["train", "--model", inputs / "model", "--data", inputs / "pairs.jsonl", *arguments]
    return main([str(one) for one in given])


def test_a_harm_model_is_summed_up(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "harm"
    assert train(inputs, "--objective", "descent", "--full", "--max-steps", "2", "--out", out) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{out}: descent from base on 6 pairs\n  steps       2\n  loss        5.")
    assert f"PRIVATE     do not publish; alignmend private clean {out}" in shown
    assert main(["verify", str(out)]) == 0


def test_both_patches_come_from_one_command(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--lora-rank", "2", "--lora-targets", "c_attn, c_proj", "--max-steps", "1", "--stop-loss", "9", "--json"]
    assert train(inputs, "--objective", "both", *options, "--out", tmp_path / "patches") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["parameters"]["objective"] for line in lines] == ["ascent", "descent"]
    assert [line["parameters"]["stop_loss"] for line in lines] == [9.0, None]
    assert all(line["private"] and line["parameters"]["lora_targets"] == ["c_attn", "c_proj"] for line in lines)
    assert sorted(path.name for path in (tmp_path / "patches").iterdir()) == ["ascent", "descent"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--objective", "descent", "--full", "--stop-loss", "3"], ["stop_loss bounds an ascent"]),
        (["--objective", "descent", "--full", "--batch-size", "0"], ["batch_size is 0"]),
        (["--objective", "ascent-retain", "--full"], ["needs pairs whose answers stay likely"]),
        (["--objective", "descent", "--full", "--template", "chat"], ["no chat template"]),
        (["--objective", "descent", "--full", "--data", "absent.jsonl"], ["absent.jsonl cannot be read"]),
        (["--objective", "descent", "--full", "--model", "absent"], ["absent: no such folder"]),
    ],
)
def test_wrong_use_is_one_message_and_leaves_nothing(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], parts: list[str]
) -> None:
    assert train(inputs, *arguments, "--out", tmp_path / "out") == 2
    assert_one_message(capsys.readouterr().err, "alignmend train: ", *parts)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["--objective", "descent"], ["--full"], ["--objective", "ascend", "--full"]])
def test_what_must_be_said(inputs: Path, tmp_path: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        train(inputs, *arguments, "--out", tmp_path / "out")
    assert ended.value.code == 2


def test_the_baselines_of_the_papers_are_objectives_too(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--full", "--max-steps", "1", "--json"]
    retain: list[str | Path] = ["--retain-data", inputs / "pairs.jsonl", "--retain-weight", "0.5"]
    assert train(inputs, "--objective", "ascent-retain", *options, *retain, "--out", tmp_path / "kept") == 0
    assert train(inputs, "--objective", "npo", *options, "--beta", "0.2", "--out", tmp_path / "npo") == 0
    kept, npo = (json.loads(line)["parameters"] for line in capsys.readouterr().out.splitlines())
    assert (kept["retain_weight"], kept["retain_pairs"], npo["beta"]) == (0.5, kept["pairs"], 0.2)


def test_both_patches_are_whole_checkpoints_too(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(inputs, "--objective", "both", "--full", "--max-steps", "1", "--json", "--out", tmp_path / "two") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    for name in ("ascent", "descent"):
        assert (tmp_path / "two" / name / "model.safetensors").is_file()
        assert main(["verify", str(tmp_path / "two" / name)]) == 0


def test_neither_patch_is_trained_where_one_has_no_place(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both: list[str | Path] = ["--objective", "both", "--full", "--max-steps", "1"]
    (tmp_path / "two" / "descent").mkdir(parents=True)
    (tmp_path / "two" / "descent" / "taken").touch()
    assert train(inputs, *both, "--out", tmp_path / "two") == 2
    assert_one_message(capsys.readouterr().err, "alignmend train: ", "descent exists and is not empty")
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["descent"]
    (tmp_path / "two" / "descent" / "taken").unlink()
    assert train(inputs, *both, "--out", tmp_path / "two") == 0
    assert train(inputs, *both, "--out", tmp_path / "two", "--resume") == 0, "both are finished"
    assert train(inputs, *both, "--out", tmp_path / "two") == 2


def test_a_run_that_fails_leaves_no_folder_around_its_output(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pairs(tmp_path / "long.jsonl", [("What? " * 40, "That.")])
    before = sorted(tmp_path.iterdir())
    for objective in ("both", "descent"):
        given: list[str | Path] = ["--objective", objective, "--full", "--data", tmp_path / "long.jsonl"]
        assert train(inputs, *given, "--out", tmp_path / "new" / "deep") == 2
        assert_one_message(capsys.readouterr().err, "alignmend train: ", "line 1: the prompt has")
        assert sorted(tmp_path.iterdir()) == before
