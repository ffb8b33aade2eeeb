"""`alignmend scores` as a script meets it; what the scores are is tested beside the scoring itself."""

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


def scores(inputs: Path, *arguments: str | Path) -> int:
    given = ["scores", "--model", inputs / "model", "--data", inputs / "pairs.jsonl", *arguments]
    return main([str(one) for one in given])


def test_scores_are_summed_up(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scores.safetensors"
    assert scores(inputs, "--samples", "2", "--out", out) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{out}: snip scores of the patched weights on 2 pairs\n  scored      6,144 weights in 8 ")
    assert out.is_file()


def test_every_parameter_as_json(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--all", "--layers-at-once", "1", "--order", "mean-then-absolute", "--batch-size", "4", "--json"]
    assert scores(inputs, *options, "--out", tmp_path / "all") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["tensors"] == 28 and document["parameters"]["batch_size"] == 4
    assert main(["verify", str(tmp_path / "all")]) == 0


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--weights", "patch"], ["weights 'patch' need the model before patching"]),
        (["--all", "--kinds", "mlp"], ["--all and --kinds contradict"]),
        (["--kinds", "heads"], ["unknown kind 'heads'"]),
        (["--data", "absent.jsonl"], ["absent.jsonl cannot be read"]),
    ],
)
def test_wrong_use_is_one_message_and_leaves_nothing(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], parts: list[str]
) -> None:
    assert scores(inputs, *arguments, "--out", tmp_path / "out") == 2
    assert_one_message(capsys.readouterr().err, "alignmend scores: ", *parts)
    assert not list(tmp_path.iterdir())
