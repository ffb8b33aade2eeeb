"""What trackers are told: numbers alone, and what may be published anyhow. Each client that is installed is asked."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from alignmend.cli import main
from alignmend.errors import MissingExtraError
from alignmend.restore.trackers import TRACKERS, Name, check_tracker, log_of, log_restore


def rate(value: float) -> dict[str, float]:
    return {"value": value, "low": 0.0, "high": 1.0, "n": 9}


RESULTS: dict[str, Any] = {
    "models": {"restored": {"harmful": {"refusal_rate": rate(0.9)}, "/data/mine.jsonl": {"accuracy": rate(0.5)}}},
    "search": {
        "limits": {"over_refusal": 0.05, "utility": 0.95},
        "chosen": 1,
        "candidates": [
            {
                "number": number,
                "family": "resta",
                "label": "resta",
                "parameters": {"coefficient": 0.5 + number, "kind": "SECRET"},
                "predicted": None,
                "worth": {"attack_success": rate(0.25 * number), "utility": 0.97, "parts": {"task": 1.0}},
                "within_limits": True,
                "on_front": False,
                "seconds": 1.5,
                "why": "SECRET",
            }
            for number in (1, 0)
        ],
    },
    "provenance": {"models": "SECRET"},
}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "README.md").write_text("# the card")
    (folder / "results.json").write_text("{}")
    (folder / "model.safetensors").write_text("SECRET")
    return folder


def test_what_is_told(out: Path) -> None:
    log = log_of(RESULTS, out)
    assert [step for step, _ in log.steps] == [0, 1]
    assert log.steps[1][1] == {
        "parameter/resta/coefficient": 1.5,
        "worth/attack_success": 0.25,
        "worth/utility": 0.97,
        "within_limits": 1.0,
        "on_front": 0.0,
        "seconds": 1.5,
    }
    assert log.final == {"restored/harmful/refusal_rate": 0.9, "restored/suite-2/accuracy": 0.5}
    assert log.config["limit_over_refusal"] == 0.05 and "version_torch" in log.config
    assert [path.name for path in log.artefacts] == ["README.md", "results.json"]
    assert "SECRET" not in str(log) and "mine" not in str(log)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_client_that_is_missing_is_told_before_any_work(
    name: Name, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_spec(name) is not None:
        pytest.skip("installed")
    with pytest.raises(MissingExtraError, match=rf"pip install 'alignmend\[{name}\]'"):
        check_tracker(name)
    assert main(["restore", "nowhere", "--out", str(tmp_path / "o"), "--log-to", name]) == 2
    assert f"alignmend[{name}]" in capsys.readouterr().err


@pytest.mark.parametrize("name", TRACKERS)
def test_a_client_that_is_there_takes_it(
    name: Name, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "kept"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    log_restore(name, RESULTS, out, project="watch", folder=tmp_path / "kept")
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.parent != out]
    assert written
    assert not any(b"SECRET" in path.read_bytes() for path in written)
    if name == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(tmp_path / "kept" / "tensorboard" / "watch"))
        events.Reload()
        told = [(one.step, one.value) for one in events.Scalars("worth/attack_success")]
        assert told == [(0, 0.0), (1, 0.25)]


def test_log_to_is_for_a_restore_that_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restore", "x", "--out", str(tmp_path / "o"), "--log-to", "wandb", "--dry-run"]) == 2
    assert "leave --join and --dry-run out" in capsys.readouterr().err
