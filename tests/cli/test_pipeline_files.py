"""What pipelines read: JUnit, step summaries, the action, the hook, the image."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from tests.methods.tiny import resta_recipe, trio
from tests.report.run_folders import AFTER, write_run

from alignmend.cli import main, parser

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("after") / "run", "restored | <b>", AFTER)


def test_a_gate_writes_junit_and_a_summary(run: Path, tmp_path: Path) -> None:
    files = ["--junit", str(tmp_path / "gate.xml"), "--summary", str(tmp_path / "summary.md")]
    assert main(["gate", str(run), "--max-asr", "0.02", "--max-over-refusal", "0.3", *files]) == 1
    root = ElementTree.parse(tmp_path / "gate.xml").getroot()
    assert (root.get("tests"), root.get("errors")) == (str(len(root.findall(".//testcase"))), "0")
    assert root.get("failures") == "1"
    (failed,) = root.findall(".//failure")
    assert failed.get("message") == "0.025; at most 0.02; n 40"
    case = next(one for one in root.iter("testcase") if one.find("failure") is not None)
    assert (case.get("classname"), case.get("name")) == ("restored | <b>.catqa", "attack_success_rate")
    told = (tmp_path / "summary.md").read_text()
    assert told.startswith("### alignmend gate: failed 1 of ")
    assert "| **FAIL** | restored \\| &lt;b> | catqa | attack_success_rate |" in told
    assert main(["gate", str(run), "--max-asr", "0.9", *files]) == 0
    assert ElementTree.parse(tmp_path / "gate.xml").getroot().get("failures") == "0"
    assert (tmp_path / "summary.md").read_text().startswith(told)  # appended


def test_a_gate_that_cannot_be_checked_is_an_error_in_junit_too(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "gate.xml"
    file.write_text("of an earlier run, which passed")
    assert main(["gate", str(run), "--suite", "nothing", "--max-asr", "0.1", "--junit", str(file)]) == 2
    root = ElementTree.parse(file).getroot()
    (error,) = root.findall(".//error")
    assert "has no suite 'nothing'" in str(error.get("message")) and root.get("errors") == "1"
    assert main(["gate", str(run), "--max-asr", "0.9", "--summary", str(tmp_path / "no" / "s.md")]) == 2


def test_verify_finds_the_outputs_that_hold_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = trio(tmp_path / "models")
    outs = []
    for name in ("one", "two"):
        assert main(["apply", str(resta_recipe(place)), "--out", str(tmp_path / name)]) == 0
        outs.append(tmp_path / name)
    (tmp_path / "other.txt").write_text("")
    capsys.readouterr()
    files = [str(outs[0] / "alignmend.json"), str(outs[0] / "model.safetensors"), str(tmp_path / "other.txt")]
    assert main(["verify", "--of-files", "--json", *files]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["folder"] == str(outs[0])
    assert main(["verify", "--of-files", str(tmp_path / "other.txt")]) == 0
    assert "nothing to verify" in capsys.readouterr().out
    (outs[0] / "config.json").write_text("{}")
    assert main(["verify", *map(str, outs)]) == 2
    shown = capsys.readouterr()
    assert "config.json" in shown.err and str(outs[1]) in shown.out


def test_the_hook_and_the_image_call_what_there_is() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    parser().parse_args([*hook["entry"].split()[1:], "a/alignmend.json"])
    image = (ROOT / "Dockerfile").read_text()
    for line in image.splitlines():
        if line.startswith("COPY"):
            assert all((ROOT / name).exists() for name in line.split()[1:-1])


def test_the_action_runs_its_steps(run: Path, tmp_path: Path) -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    steps = {step.get("name"): step for step in action["runs"]["steps"]}
    named = set(action["inputs"])
    text = (ROOT / "action.yml").read_text()
    assert {part.split("}}")[0].strip() for part in text.split("${{ inputs.")[1:]} <= named
    program = tmp_path / "bin" / "alignmend"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m alignmend "$@"\n')
    program.chmod(0o755)
    (program.parent / "python").symlink_to(sys.executable)
    places = {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"), "GITHUB_OUTPUT": str(tmp_path / "output")}
    given = {"GATE": f"'{run}' --max-asr 0.02", "JUNIT": str(tmp_path / "gate.xml")}
    environment = {**os.environ, **places, **given, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    done = shell(steps["Gate"]["run"], environment)
    assert done.returncode == 1, done.stderr
    assert (tmp_path / "output").read_text() == "passed=false\n"
    assert "FAIL" in (tmp_path / "summary.md").read_text() and (tmp_path / "gate.xml").exists()
    unknown = {**environment, "COMMAND": "private", "ARGUMENTS": ""}
    done = shell(steps["Run"]["run"], unknown)
    assert done.returncode == 2 and "is not evaluate, restore or audit" in done.stderr


def shell(script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-e", "-c", script]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
