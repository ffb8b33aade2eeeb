"""Widened organisms compute what they did, and the benchmark of restore sees what happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.restore import EVENTS, Job, Measured, Seen, Told, bytes_on_disk, measure, parse_count, report, thinned
from benchmarks.shapes import LlamaShape
from benchmarks.widened import MEMBERS, NOISE, Widening, shape_of, widen, widen_family, widening_to
from tests.fixtures_organisms import shipped, small_family

from alignmend.organisms import Family

__all__ = ["shipped", "small_family"]

TINY = LlamaShape(hidden=128, intermediate=384, heads=4, key_value_heads=2, vocabulary=1024, layers=4)


def logits(folder: Path, dtype: torch.dtype) -> torch.Tensor:
    """Of the same tokens, whatever the model: [texts, tokens, vocabulary]."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    tokens = torch.randint(3, 1024, (4, 24), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found: torch.Tensor = model(tokens).logits.float()
        return found


@pytest.mark.parametrize("parameters", [2_500_000, 8_000_000])
def test_zeros_change_nothing(shipped: Family, tmp_path: Path, parameters: int) -> None:
    """A width that stays, and one four times as wide."""
    widening = widening_to(TINY, parameters)
    widen(shipped.members["finetuned"], tmp_path / "wide", widening, noise=0)
    before = logits(shipped.members["finetuned"], torch.float32)
    assert torch.allclose(logits(tmp_path / "wide", torch.float32), before, atol=1e-5, rtol=0)


def test_noise_moves_logits_by_a_hundredth_of_rounding(shipped: Family, tmp_path: Path) -> None:
    place = shipped.members["aligned"]
    widen(place, tmp_path / "wide", widening_to(TINY, 8_000_000))
    before = logits(place, torch.float32)
    rounded = (logits(place, torch.bfloat16) - before).abs()
    moved = (logits(tmp_path / "wide", torch.float32) - before).abs()
    assert 0 < moved.mean() < 0.01 * rounded.mean()
    assert moved.max() < 0.01 * rounded.max()


def test_in_bfloat16_it_differs_as_rounding_does(shipped: Family, tmp_path: Path) -> None:
    place = shipped.members["unaligned"]
    widen(place, tmp_path / "wide", widening_to(TINY, 8_000_000))
    before = logits(place, torch.float32)
    rounded = (logits(place, torch.bfloat16) - before).abs().mean()
    assert (logits(tmp_path / "wide", torch.bfloat16) - before).abs().mean() < 2 * rounded


def test_members_share_their_noise_but_for_a_twentieth(shipped: Family, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    widen_family(shipped.directory, tmp_path, 3_000_000)
    found = {name: load_file(tmp_path / name / "model.safetensors") for name in MEMBERS}
    name = "model.layers.0.mlp.gate_proj.weight"
    padding = {member: tensors[name][384:].float() for member, tensors in found.items()}
    assert padding["aligned"].std().item() == pytest.approx(NOISE, rel=0.05)
    own = (padding["finetuned"] - padding["aligned"]).std().item()
    assert own == pytest.approx(2**0.5 * 0.05 * NOISE, rel=0.1)
    assert found["aligned"]["lm_head.weight"].count_nonzero() <= 1024 * 128


@pytest.mark.parametrize("parameters", [2_500_000, 10_000_000, 200_000_000, 7_000_000_000])
def test_a_number_of_parameters_is_met_from_below(parameters: int) -> None:
    widening = widening_to(TINY, parameters)
    after = widening.after
    assert 0.9 * parameters < widening.parameters <= parameters
    assert widening.ratio in (1, 4, 16, 64, 256)
    assert after.hidden // after.heads == TINY.hidden // TINY.heads
    assert after.heads // after.key_value_heads == TINY.heads // TINY.key_value_heads


def test_too_few_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="too few: the organism has 1,049,728"):
        widening_to(TINY, 1_000_000)


def test_another_architecture_is_refused(shipped: Family) -> None:
    config: dict[str, Any] = json.loads((shipped.members["aligned"] / "config.json").read_text())
    assert shape_of(config) == TINY
    with pytest.raises(ValueError, match="not mistral"):
        shape_of({**config, "model_type": "mistral"})


def test_what_is_there_whole_is_found_again(shipped: Family, tmp_path: Path) -> None:
    widening = widening_to(TINY, 2_500_000)
    place = tmp_path / "wide"
    widen(shipped.members["aligned"], place, widening)
    written = (place / "model.safetensors").stat().st_mtime_ns
    widen(shipped.members["aligned"], place, widening)
    assert (place / "model.safetensors").stat().st_mtime_ns == written
    widen(shipped.members["aligned"], place, widening, noise=0)
    assert (place / "model.safetensors").stat().st_mtime_ns != written


@pytest.mark.parametrize(("text", "count"), [("300M", 300_000_000), ("1.5 B", 1_500_000_000), ("20k", 20_000)])
def test_counts(text: str, count: int) -> None:
    assert parse_count(text) == count


def test_a_count_without_a_unit_is_refused() -> None:
    with pytest.raises(SystemExit, match="got '300'"):
        parse_count("300")


def test_suites_are_thinned_evenly(shipped: Family, tmp_path: Path) -> None:
    for path in thinned(shipped.directory / "suites", tmp_path, 16):
        whole = (shipped.directory / "suites" / path.name).read_text(encoding="utf-8").splitlines()
        assert path.read_text(encoding="utf-8").splitlines() == whole[::12]


def test_events_are_seen_in_the_order_in_which_they_happen(tmp_path: Path) -> None:
    out, log = tmp_path / "restored", ""

    def seen() -> list[str]:
        return [name for name, happened in EVENTS.items() if happened(log, out)]

    names = list(EVENTS)
    assert seen() == names[:1]
    log = "to try: resta\n"
    assert seen() == names[:2]
    (tmp_path / "restored-search").mkdir()
    (tmp_path / "restored-search" / "journal.log").touch()
    assert seen() == names[:3]
    log += "chosen: resta\n"
    assert seen() == names[:4]
    (tmp_path / "restored-search" / "restored").mkdir()
    assert seen() == names[:5]
    (tmp_path / "restored-search" / "records" / "restored").mkdir(parents=True)
    assert seen() == names


def test_a_step_lasts_until_the_next_begins() -> None:
    measured = Measured({"exit_seconds": 9.0}, Seen({"first": 0.0, "second": 2.0, "third": 3.5}), {})
    assert measured.steps == {"first": 2.0, "second": 1.5, "third": 5.5}


def test_bytes_on_disk_are_blocks(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(10**7)
    (tmp_path / "full").write_bytes(b"1" * 10_000)
    assert 10_000 <= bytes_on_disk(tmp_path) < 10**5
    assert bytes_on_disk(tmp_path / "nowhere") == 0


@pytest.mark.slow
def test_a_whole_restore_is_measured_from_outside(shipped: Family, tmp_path: Path) -> None:
    widen_family(shipped.directory, tmp_path, 2_500_000)
    suites = thinned(shipped.directory / "suites", tmp_path / "suites", 16)
    job = Job(tmp_path, suites, tmp_path / "restored", 6, 4, 0, tmp_path / "pairs", "resta")
    (tmp_path / "restored-search" / "records" / "restored").mkdir(parents=True)  # of a run that failed
    found = measure(job, 300)
    seen = [name for name in EVENTS if name in found.seen.events]
    assert list(found.steps) == seen
    assert {"start, preflight", "search"} <= set(seen)
    assert sum(found.steps.values()) == pytest.approx(found.costs["exit_seconds"], abs=0.5)
    weights = (tmp_path / "restored" / "model.safetensors").stat().st_size
    assert weights < found.seen.most_bytes < weights + 50_000_000
    assert found.results["search"]["switch"]["pass_seconds"] > 0


@pytest.mark.parametrize(("ratio", "verdict"), [(3.0, "met"), (3.01, "**missed**")])
def test_the_report_says_met_or_missed(tmp_path: Path, ratio: float, verdict: str) -> None:
    job = Job(tmp_path, (), tmp_path / "out", 6, 8, 0, tmp_path / "pairs", "resta")
    results = {
        "search": {
            "switch": {"median_seconds": ratio, "pass_seconds": 1.0, "ratio": ratio},
            "candidates": [{}] * 6,
            "prompts": {"refuse": 8, "comply": 8},
        },
        "suites": {"harmful": {"n": 12}},
    }
    measured = Measured(
        {"exit_seconds": 5.0, "wall_seconds": 6.0, "peak_bytes": 3_000_000}, Seen({"only": 0.0}, 2_000_000), results
    )
    text = report(job, Widening(TINY, TINY), Told(1_000_000, 4_000_000, 1.0), measured)
    assert f"{ratio:.2f} x, {verdict}." in text
    assert "| disk at most, MB | 1 | 2 |" in text
    assert "6 candidates on 16 search prompts, 12 report prompts" in text
