"""Kills and interruptions: nothing half-written at the final name, and the same bytes in the end."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from tests.methods.tiny import contents, resta_recipe, trio
from tests.reliability import kill

from alignmend.cli import main


@pytest.mark.slow
def test_killed_runs_resume_to_the_same_bytes(tmp_path: Path) -> None:
    """`python -m tests.reliability.kill --kills 100` does more of the same."""
    left = kill.run(tmp_path, kills=10, megabytes=96, seed=1)
    assert sum(left.values()) == 10
    assert any("partial" in state for state in left), "no kill met a run while it was writing"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 96 MB for each model: writing takes long enough to be interrupted."""
    return trio(tmp_path_factory.mktemp("inputs"), size=1024, layers=8)


@pytest.mark.slow
def test_control_c_tells_how_to_go_on(inputs: Path, tmp_path: Path) -> None:
    recipe = resta_recipe(inputs, parameters=kill.PARAMETERS)
    kill.complete(recipe, tmp_path / "undisturbed" / "out")
    code = 0
    for attempt in range(10):  # on a busy machine a signal may come when all is done
        out = tmp_path / f"interrupted-{attempt}" / "out"
        process = kill.start(recipe, out)
        kill.wait_for(out.parent / ".out.alignmend-partial" / "model.safetensors", process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        code = process.returncode
        if code != 0:
            break
    assert code == 130
    assert errors.strip() == "alignmend apply: interrupted; run the same command with --resume to go on"
    assert not out.exists()
    assert (out.parent / ".out.alignmend-partial").is_dir()
    kill.complete(recipe, out, "--resume")
    assert contents(out) == contents(tmp_path / "undisturbed" / "out")
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.slow
def test_two_runs_do_not_write_the_same_output(inputs: Path, tmp_path: Path) -> None:
    recipe, out = resta_recipe(inputs, name="two.yaml", parameters=kill.PARAMETERS), tmp_path / "out"
    first = kill.start(recipe, out, "--threads", "1")
    kill.wait_for(tmp_path / ".out.alignmend-partial", first)
    first.send_signal(signal.SIGSTOP)
    try:
        second = kill.start(recipe, out, "--resume")
        _, errors = second.communicate(timeout=60)
        assert second.returncode == 2
        assert f"another run is writing {out}" in errors
    finally:
        first.send_signal(signal.SIGCONT)
    assert first.wait(60) == 0
    kill.complete(recipe, out, "--resume")  # a finished run has nothing left to resume


@pytest.mark.slow
def test_many_runs_at_once_leave_one_whole_output(tmp_path: Path) -> None:
    recipe, out = resta_recipe(trio(tmp_path / "in")), tmp_path / "out"
    processes = [kill.start(recipe, out) for _ in range(4)]
    endings = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    assert sorted(code for _, code in endings)[0] == 0
    for errors, code in endings:
        assert code == 0 or "another run is writing" in errors or "exists and is not empty" in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    out.rename(tmp_path / "kept")
    kill.complete(recipe, out)
    assert contents(tmp_path / "kept") == contents(out)


def test_a_replacement_killed_between_its_two_renames_is_undone_first(tmp_path: Path) -> None:
    recipe, out = str(resta_recipe(trio(tmp_path / "in"))), tmp_path / "out"
    assert main(["apply", recipe, "--out", str(out)]) == 0
    old = contents(out)
    out.rename(tmp_path / ".out.alignmend-previous")  # as a kill at that moment leaves it
    changed = ["--set", "coefficient=0.25"]
    assert main(["apply", recipe, "--out", str(out), *changed]) == 2
    assert contents(out) == old
    out.rename(tmp_path / ".out.alignmend-previous")
    assert main(["apply", recipe, "--out", str(out), *changed, "--overwrite"]) == 0
    assert contents(out) != old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_a_run_killed_before_its_key_was_there_begins_anew(tmp_path: Path) -> None:
    recipe, out = str(resta_recipe(trio(tmp_path / "in"))), tmp_path / "out"
    (tmp_path / ".out.alignmend-partial").mkdir()  # as a kill between folder and key leaves it
    (tmp_path / ".out.alignmend-partial" / "model.safetensors").write_bytes(b"half")
    (tmp_path / ".out.alignmend-work").mkdir()
    assert main(["apply", recipe, "--out", str(out), "--resume"]) == 0
    assert main(["apply", recipe, "--out", str(tmp_path / "alone" / "out")]) == 0
    assert contents(out)["model.safetensors"] == contents(tmp_path / "alone" / "out")["model.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "in", "out"]


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_stopped(inputs: Path, tmp_path: Path) -> None:
    recipe, out = resta_recipe(inputs, name="sweep.yaml", parameters="coefficient: [0.25, 0.5]"), tmp_path / "out"
    process = kill.start(recipe, out)
    kill.wait_for(tmp_path / ".out.coefficient-0.5.alignmend-partial", process)
    process.kill()
    process.wait()
    first = out / "coefficient-0.25"
    before = (first / "model.safetensors").stat().st_mtime_ns
    assert [path.name for path in out.iterdir() if not path.name.startswith(".")] == ["coefficient-0.25"]
    kill.complete(recipe, out, "--resume")
    assert (first / "model.safetensors").stat().st_mtime_ns == before
    assert sorted(path.name for path in out.iterdir()) == ["coefficient-0.25", "coefficient-0.5"]


@pytest.mark.slow
def test_a_run_with_other_inputs_or_options_is_not_resumed(inputs: Path, tmp_path: Path) -> None:
    recipe, out = resta_recipe(inputs, name="other.yaml"), tmp_path / "out"
    process = kill.start(recipe, out)
    kill.wait_for(tmp_path / ".out.alignmend-partial" / "model.safetensors", process)
    process.kill()
    process.wait()
    again = kill.start(recipe, out, "--resume", "--set", "coefficient=0.75")
    _, errors = again.communicate(timeout=60)
    assert again.returncode == 2
    assert "has other inputs or options: run again without --resume to begin anew" in errors
    time.sleep(0.01)
    kill.complete(recipe, out, "--set", "coefficient=0.75")  # begins anew, with nothing of the first
    out.rename(tmp_path / "kept")
    kill.complete(recipe, out, "--set", "coefficient=0.75")
    assert contents(tmp_path / "kept") == contents(out)
