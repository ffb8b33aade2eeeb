"""The objectives that SafePatching is compared with, trained; and a training that runs off to infinity."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.training.making import write_pairs

from alignmend.errors import NonFiniteError, ParameterError
from alignmend.organisms import Family
from alignmend.organisms.corpora import draw
from alignmend.training.run import train_model
from alignmend.training.settings import TrainSettings
from alignmend.training.working import working_folder


@pytest.fixture(scope="module")
def benign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [(pair.prompt, pair.response) for pair in draw({"benign": 1}, 24, Random(1))]
    return write_pairs(tmp_path_factory.mktemp("benign") / "benign.jsonl", rows)


def loss_of(model: Path, pairs: Path, place: Path) -> float:
    """Of a model on pairs: what a training with next to no step measures before it."""
    made = train_model(model, pairs, place, TrainSettings("descent", max_steps=1, learning_rate=1e-30))
    assert made is not None
    results = made.manifest.parameters["results"]
    return float(results["before"]["loss"])  # type: ignore[index, call-overload, arg-type]


def test_retained_answers_stay_likely_while_others_are_unlearned(
    shipped: Family, harmful: Path, benign: Path, tmp_path: Path
) -> None:
    aligned = shipped.members["aligned"]
    options: dict[str, Any] = {"learning_rate": 5e-4, "max_steps": 30, "stop_loss": 3.0}
    plain = train_model(aligned, harmful, tmp_path / "plain", TrainSettings("ascent", **options))
    kept = train_model(
        aligned, harmful, tmp_path / "kept", TrainSettings("ascent-retain", **options, retain_weight=1.0), retain=benign
    )
    assert plain is not None and kept is not None
    described = kept.manifest.parameters
    assert described["retain_weight"] == 1.0 and "beta" not in described and "retain_pairs" in described
    before = loss_of(aligned, benign, tmp_path / "a")
    unlearned, retained = (loss_of(kept.path, data, tmp_path / data.stem) for data in (harmful, benign))
    assert unlearned > 2.0 * loss_of(aligned, harmful, tmp_path / "b")
    assert retained < 0.5 * (before + loss_of(plain.path, benign, tmp_path / "c"))


@pytest.mark.parametrize("rank", [None, 4])
def test_preference_makes_answers_less_likely_and_reports_their_loss(
    shipped: Family, harmful: Path, tmp_path: Path, rank: int | None
) -> None:
    settings = TrainSettings("npo", lora_rank=rank, learning_rate=5e-4 if rank is None else 5e-3, max_steps=12)
    made = train_model(shipped.members["aligned"], harmful, tmp_path / "npo", settings)
    assert made is not None and made.manifest.private
    rows = [json.loads(line) for line in (made.path / "losses.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] > 2 * rows[0]["loss"] and rows[-1]["objective"] < rows[0]["objective"]
    tokens = made.manifest.parameters["results"]["answer_tokens"]  # type: ignore[index, call-overload]
    at_first = 2 / 0.1 * math.log(2) * 40 / tokens  # type: ignore[operator]
    assert rows[0]["objective"] == pytest.approx(at_first, rel=0.3), "before any step the model is its own reference"


def test_retained_pairs_belong_to_one_objective(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="ascent-retain needs pairs whose answers stay likely"):
        train_model(tiny, pairs, tmp_path / "out", TrainSettings("ascent-retain"))
    with pytest.raises(ParameterError, match="leave them out of npo"):
        train_model(tiny, pairs, tmp_path / "out", TrainSettings("npo"), retain=pairs)
    assert not list(tmp_path.iterdir())


def test_a_run_that_leaves_the_numbers_keeps_its_last_finite_checkpoint(
    tiny: Path, pairs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(NonFiniteError, match=r"at step \d the loss is"):
        train_model(tiny, pairs, out, TrainSettings("descent", max_steps=8, learning_rate=1e25))
    assert not out.exists()
    kept = working_folder(out).last_checkpoint()
    assert kept is not None and (working_folder(out).path / "alignmend-private.json").exists()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in load_file(kept / "model.safetensors").values())
