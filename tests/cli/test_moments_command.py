"""`alignmend moments` as a script meets it; what the moments are is tested beside the code that takes them."""

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
    for kind in ("harmful", "harmless", "borderline"):
        write_pairs(place / f"{kind}.jsonl", [(f"What is {n}?", f"It is {n}.") for n in range(6)])
    return place


def moments(inputs: Path, *arguments: str | Path, kinds: tuple[str, ...] = ("harmful", "harmless")) -> int:
    texts = [part for kind in kinds for part in (f"--{kind}", inputs / f"{kind}.jsonl")]
    return main(["moments", *(str(one) for one in (inputs / "model", *texts, *arguments))])


def test_moments_are_summed_up_and_merged(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, other, both = (tmp_path / f"{name}.safetensors" for name in ("one", "other", "both"))
    assert moments(inputs, "--out", out) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{out}: moments of 8 inputs, which 8 weights meet\n  texts       6 harmful (30 tokens)")
    assert "note        moments over 6 harmful texts are noisy" in shown
    assert moments(inputs, "--layers-at-once", "1", "--batch-size", "2", "--out", other, kinds=("borderline",)) == 0
    capsys.readouterr()
    assert main(["moments", "--merge", str(out), str(other), "--out", str(both), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {kind: one["texts"] for kind, one in document["kinds"].items()} == dict.fromkeys(
        ("harmful", "harmless", "borderline"), 6
    )
    assert document["bytes"] == both.stat().st_size


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--batch-size", "0"], ["batch_size is 0"]),
        (["--merge", "a.safetensors"], ["--merge puts files together: leave out MODEL and texts"]),
        (["--harmful", "absent.jsonl"], ["absent.jsonl cannot be read"]),
        (["--aligned", "absent"], ["absent"]),
    ],
)
def test_wrong_use_is_one_message_and_leaves_nothing(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], parts: list[str]
) -> None:
    assert moments(inputs, *arguments, "--out", tmp_path / "out.safetensors") == 2
    assert_one_message(capsys.readouterr().err, "alignmend moments: ", *parts)
    assert not list(tmp_path.iterdir())


def test_without_model_or_texts_it_says_what_to_give(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["moments", "--out", str(tmp_path / "m.safetensors")]) == 2
    assert_one_message(capsys.readouterr().err, "alignmend moments: ", "--harmful PAIRS --harmless PAIRS")
