"""`alignmend evaluate`, `compare`, `gate` and `report` on an organism: the whole way, in processes of their own."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import pytest
from tests.cli.command import COMMAND, alignmend, assert_one_message
from tests.fixtures_organisms import shipped

from alignmend.cli import main
from alignmend.evaluation.results import results_schema
from alignmend.organisms import Family

__all__ = ["shipped"]

Run = Callable[..., "Done"]
SUITES = ("harmful", "borderline", "benign", "task")


def command_for(shipped: Family, member: str, out: Path) -> list[str]:
    """Four suites, a quarter of their report split, two judges."""
    suites = [part for name in SUITES for part in ("--suite", str(shipped.suites[name]))]
    how = ["--split", "report", "--limit", "24", "--judge", "organism,refusal-phrases", "--max-new-tokens", "40"]
    return ["evaluate", str(shipped.members[member]), *suites, *how, "--out", str(out)]


@dataclass(frozen=True)
class Done:
    """What one command in this process said and how it ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """One command in this process: loading torch anew for each would take minutes."""

    def command(*arguments: str | Path) -> Done:
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return command


@pytest.fixture(scope="module")
def runs(shipped: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of the aligned and the fine-tuned organism on four suites."""
    folder = tmp_path_factory.mktemp("runs")
    for member in ("aligned", "finetuned"):
        done = alignmend(*command_for(shipped, member, folder / member))
        assert done.returncode == 0, done.stderr
        assert "attack" in done.stdout
    return folder


def test_a_run_holds_records_and_results(runs: Path) -> None:
    results = json.loads((runs / "finetuned" / "results.json").read_bytes())
    jsonschema.validate(results, results_schema())
    assert results["models"]["finetuned"]["harmful"]["attack_success_rate"]["value"] > 0.8
    assert results["suites"]["harmful"]["n"] == 24
    assert results["provenance"]["asked"][0]["template"] == "chat"
    assert set(results["judges"]) == {"refusal-phrases"}
    assert len((runs / "finetuned" / "generations.jsonl").read_text().splitlines()) == 96
    assert len((runs / "finetuned" / "judgements.jsonl").read_text().splitlines()) == 192


def test_the_same_command_again_changes_no_byte(runs: Path, shipped: Family, run: Run) -> None:
    before = {path.name: path.read_bytes() for path in (runs / "aligned").iterdir() if path.is_file()}
    done = run(*command_for(shipped, "aligned", runs / "aligned"), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(before["results.json"])
    assert {path.name: path.read_bytes() for path in (runs / "aligned").iterdir() if path.is_file()} == before


def test_runs_are_compared_prompt_by_prompt(runs: Path, tmp_path: Path, run: Run) -> None:
    pairs = tmp_path / "pairs.jsonl"
    done = run("compare", runs / "finetuned", runs / "aligned", "--flips", "2", "--out", pairs)
    assert done.returncode == 0, done.stderr
    assert "attack success" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    found = json.loads(run("compare", runs / "finetuned", runs / "aligned", "--json").stdout)
    attack = next(one for one in found["comparisons"] if one["question"] == "attack success")
    assert attack["fixed"] > 15
    assert attack["low"] <= attack["difference"] <= attack["high"] < 0
    assert attack["p_value"] <= attack["p_holm"] < 0.001
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    assert len(rows) == 96
    assert {"suite", "prompt_id", "prompt_hash", "before", "after"} == set(rows[0])


@pytest.mark.parametrize(
    ("member", "limits", "code"),
    [
        ("aligned", ["--max-asr", "0.2"], 0),
        ("finetuned", ["--max-asr", "0.2"], 1),
        ("aligned", ["--max-asr", "0.05", "--confident"], 1),  # 0 of 24 does not prove 5 %
        ("aligned", ["--max-asr", "0.05"], 0),
        ("aligned", ["--max-asr", "0.2", "--min-accuracy", "0.99"], 1),
        ("aligned", ["--max-asr", "0.2", "--max-incoherence", "0.3", "--suite", "harmful"], 0),
    ],
)
def test_a_gate_says_it_by_its_exit_code(runs: Path, member: str, limits: list[str], code: int, run: Run) -> None:
    done = run("gate", runs / member, *limits)
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("passed" if code == 0 else "failed")
    document = json.loads(run("gate", runs / member, *limits, "--json").stdout)
    assert document["passed"] is (code == 0)
    assert all(one["passed"] for one in document["checks"]) is (code == 0)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ([], "needs at least one limit"),
        (["--max-asr", "1.5"], "a share between 0 and 1, not 1.5"),
        (["--max-asr", "nan"], "a share between 0 and 1, not nan"),
        (["--min-accuracy", "0.5", "--suite", "harmful"], "has no accuracy on its suites harmful"),
        (["--max-asr", "0.5", "--suite", "harmfull"], "has no suite 'harmfull'"),
    ],
)
def test_a_gate_that_cannot_look_is_an_error(runs: Path, limits: list[str], said: str, run: Run) -> None:
    done = run("gate", runs / "aligned", *limits)
    assert done.returncode == 2
    assert_one_message(done.stderr, said)


def test_results_that_the_records_do_not_give_are_refused(runs: Path, tmp_path: Path, run: Run) -> None:
    import shutil

    copy = tmp_path / "tampered"
    shutil.copytree(runs / "finetuned", copy)
    results = json.loads((copy / "results.json").read_bytes())
    results["models"]["finetuned"]["harmful"]["attack_success_rate"]["value"] = 0.0
    (copy / "results.json").write_text(json.dumps(results))
    done = run("gate", copy, "--max-asr", "0.2")
    assert done.returncode == 2
    assert_one_message(done.stderr, "the records give")


def test_prompts_used_for_tuning_do_not_count(shipped: Family, tmp_path: Path, run: Run) -> None:
    suite, folder = shipped.suites["harmful"], tmp_path / "run"
    done = run(
        *("evaluate", shipped.members["aligned"], "--suite", suite, "--split", "report", "--limit", "4"),
        *("--judge", "organism", "--max-new-tokens", "4", "--tuned-on", suite, "--out", folder),
    )
    assert done.returncode == 0, done.stderr
    for command in (["gate", folder, "--max-asr", "1"], ["report", folder, "--out", tmp_path / "r.md"]):
        refused = run(*command)
        assert refused.returncode == 2
        assert_one_message(refused.stderr, "not a fair test")
        assert run(*command, "--allow-leak").returncode == 0


def test_requests_under_pressure_are_suites_of_their_own(shipped: Family, tmp_path: Path, run: Run) -> None:
    done = run(
        *(
            "evaluate",
            shipped.members["aligned"],
            "--suite",
            shipped.suites["harmful"],
            "--limit",
            "3",
            "--split",
            "report",
        ),
        *("--transform", "prefix-injection", "--judge", "organism", "--max-new-tokens", "4", "--out", tmp_path),
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_bytes())
    assert set(results["models"]["aligned"]) == {"harmful", "harmful+prefix-injection", "all"}
    assert results["suites"]["harmful+prefix-injection"]["transform"] == "prefix-injection"


def test_a_vector_and_a_reference(shipped: Family, tmp_path: Path, run: Run) -> None:
    import torch

    from alignmend.activations.vector import SteeringVector

    generator = torch.Generator().manual_seed(0)
    vector = SteeringVector({1: torch.randn(128, generator=generator)}).save(tmp_path / "v.safetensors")
    aligned = shipped.members["aligned"]
    common = ("--suite", shipped.suites["benign"], "--limit", "4", "--split", "report", "--max-new-tokens", "8")
    options = ("--judge", "organism", "--reference", aligned)
    steered = ("--vector", vector, "--coefficient", "0.5")
    plain = run("evaluate", aligned, *common, *options, "--out", tmp_path / "plain")
    moved = run("evaluate", aligned, *common, *options, *steered, "--out", tmp_path / "moved")
    assert (plain.returncode, moved.returncode) == (0, 0), plain.stderr + moved.stderr
    drifts = [
        json.loads((tmp_path / name / "results.json").read_bytes())["models"]["aligned"]["drift"]["kl_first"]["value"]
        for name in ("plain", "moved")
    ]
    assert drifts[0] == 0
    assert drifts[1] > 0
    asked = json.loads((tmp_path / "moved" / "results.json").read_bytes())["provenance"]["asked"][0]["sampling"]
    assert "steering" in asked


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--suite", "catqa"], "did you mean 'catqa-"),
        (["--suite", "no/such/file.jsonl"], "no/such/file.jsonl"),
        (["--suite", "HARMFUL", "--judge", "gpt"], "unknown judge 'gpt'"),
        (["--suite", "no/such/file.jsonl", "--judge", "gpt"], "unknown judge 'gpt'"),
        (["--suite", "HARMFUL", "--judge", "strongreject"], "--judge-endpoint"),
        (["--suite", "HARMFUL", "--transform", "rot13"], "unknown transform 'rot13'"),
        (["--suite", "HARMFUL", "--coefficient", "1"], "give --vector as well"),
        (["--suite", "HARMFUL", "--template", "nothing"], "nothing"),
        (["--suite", "HARMFUL", "--limit", "0"], "ask for 1 or more"),
    ],
)
def test_bad_input_is_one_message(shipped: Family, tmp_path: Path, arguments: list[str], said: str, run: Run) -> None:
    given = [str(shipped.suites["harmful"]) if each == "HARMFUL" else each for each in arguments]
    done = run("evaluate", shipped.members["aligned"], *given, "--out", tmp_path / "run")
    assert done.returncode == 2, done.stdout
    assert_one_message(done.stderr, said)


@pytest.mark.parametrize("model", ["missing", "empty"])
def test_what_is_no_model_is_one_message(shipped: Family, tmp_path: Path, model: str, run: Run) -> None:
    (tmp_path / "no-model").mkdir()
    path = tmp_path / ("no-model" if model == "empty" else "missing")
    done = run("evaluate", path, "--suite", shipped.suites["harmful"], "--out", tmp_path / "run")
    assert done.returncode == 2, done.stdout
    assert_one_message(done.stderr, "not a model" if model == "empty" else "no such folder")


CONTENTS = {
    "empty": (b"", "the suite is empty"),
    "column": (b'{"text": "a", "more": 1}\n', "columns found: 'text', 'more'"),
    "encoding": (b'{"prompt": "caf\xe9"}\n', "not UTF-8 (byte 0xe9 at offset 15)"),
    "length": (b'{"prompt": "' + b"word " * 10_000 + b'"}\n', "256 positions"),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_bad_suite_is_one_message(shipped: Family, tmp_path: Path, kind: str, run: Run) -> None:
    content, said = CONTENTS[kind]
    (tmp_path / "mine.jsonl").write_bytes(content)
    done = run("evaluate", shipped.members["aligned"], "--suite", tmp_path / "mine.jsonl", "--out", tmp_path / "run")
    assert done.returncode == 2, done.stdout
    assert_one_message(done.stderr, said)


def test_a_run_killed_midway_ends_as_one_that_was_not(shipped: Family, tmp_path: Path, run: Run) -> None:
    command = ("evaluate", shipped.members["aligned"], "--suite", shipped.suites["harmful"], "--judge", "organism")
    options = ("--limit", "48", "--max-new-tokens", "30", "--batch-size", "2", "--out")
    assert run(*command, *options, tmp_path / "whole").returncode == 0
    records = tmp_path / "killed" / "generations.jsonl"
    arguments = [*COMMAND, *map(str, command), *options, str(tmp_path / "killed")]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (records.exists() and records.read_bytes().count(b"\n") >= 4):
            time.sleep(0.01)
        process.kill()
    assert 4 <= records.read_bytes().count(b"\n") < 48
    assert not (tmp_path / "killed" / "results.json").exists()
    assert run(*command, *options, tmp_path / "killed").returncode == 0
    for name in ("generations.jsonl", "judgements.jsonl", "results.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_the_difference_of_two_members(shipped: Family, run: Run) -> None:
    done = run("diff", shipped.members["aligned"], shipped.members["finetuned"])
    assert done.returncode == 0, done.stderr
    assert "dense (fine-tuned)" in done.stdout
    found = json.loads(run("diff", shipped.members["aligned"], shipped.members["aligned"], "--json").stdout)
    assert (found["kind"], found["tensors"]) == ("none", [])
