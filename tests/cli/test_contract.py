"""What scripts rely on: exit codes, `--help`, `--json`, one message for every error."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.cli.command import COMMAND, alignmend, assert_one_message
from tests.methods.tiny import resta_recipe, trio

from alignmend.cli import COMMANDS, main, parser
from alignmend.cli.guard import guarded

HELP_SECONDS = 1.0
"""Generous, for busy machines; an idle one needs about 0.15."""
NAMES = [command.__name__.rsplit(".", 1)[1].rstrip("_") for command in COMMANDS]
FULL_DEVICE = Path("/dev/full")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return trio(tmp_path)


@pytest.mark.parametrize("command", [[], *[[name] for name in NAMES]])
def test_help_loads_nothing_heavy_and_says_what_there_is(command: list[str]) -> None:
    heavy = ("torch", "transformers", "numpy", "pydantic", "yaml", "rich")
    code = f"""
import sys
from alignmend.cli import main
try:
    main({[*command, "--help"]!r})
except SystemExit as ended:
    assert ended.code == 0
print("loaded", [name for name in {heavy!r} if name in sys.modules])
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.endswith("loaded []\n")
    assert f"usage: {' '.join(['alignmend', *command])}" in shown.stdout.replace("usage: -c", "usage: alignmend")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\nmore")])
def test_out_of_memory_anywhere_is_one_message(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def run(arguments: argparse.Namespace) -> int:
        raise error

    arguments = argparse.Namespace(command="edit", interrupted="")
    assert guarded(lambda: run(arguments), arguments) == 2
    errors = capsys.readouterr().err
    assert_one_message(errors, "alignmend edit: out of memory", ": free memory, or use a smaller model")
    assert errors.count("\n") == 1


def test_every_command_is_in_the_help() -> None:
    text = parser().format_help()
    assert all(f"\n    {name} " in text for name in NAMES)


def test_help_is_quick() -> None:
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        assert alignmend("--help").returncode == 0
        seconds.append(time.perf_counter() - begin)
    assert statistics.median(seconds) < HELP_SECONDS


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("alignmend 0.")


def test_done_is_zero_and_the_result_is_verified(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", str(resta_recipe(place)), "--out", str(place / "out")]) == 0
    assert "finetuned + 0.5 * (aligned - unaligned)" in capsys.readouterr().out
    assert main(["verify", str(place / "out")]) == 0
    assert "all sizes and hashes are as the manifest says" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["apply", "explain"])
def test_json_is_one_object_on_each_line(place: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    out = ["--out", str(place / "out")] if command == "apply" else []
    assert main([command, str(resta_recipe(place)), "--json", *out]) == 0
    one = json.loads(capsys.readouterr().out)
    assert one["expression"] == "finetuned + 0.5 * (aligned - unaligned)"


def test_json_of_a_sweep(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, out = str(resta_recipe(place)), str(place / "out")
    assert main(["apply", recipe, "--json", "--set", "coefficient=[0.1, 0.2]", "--out", out]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(line["out"]).name for line in lines] == ["coefficient-0.1", "coefficient-0.2"]


def test_json_of_verify_and_list(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["apply", str(resta_recipe(place)), "--out", str(place / "out")])
    capsys.readouterr()
    assert main(["verify", str(place / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unhashed"] == []
    assert main(["list", "methods", "--json"]) == 0
    assert {one["name"] for one in json.loads(capsys.readouterr().out)} >= {"resta", "task_arithmetic"}
    assert main(["list", "judges", "--json"]) == 0
    assert "refusal-phrases" in json.loads(capsys.readouterr().out)


def test_a_method_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "methods", "resta"]) == 0
    shown = capsys.readouterr().out
    for part in ("2402.11746", "theta_sft", "layer_coefficients", "map of integer to number", "default 1.0"):
        assert part in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["aply"], "invalid choice: 'aply'"),
        (["apply"], "the following arguments are required"),
        (["apply", "r.yaml", "--out", "o", "--treads", "2"], "unrecognized arguments: --treads"),
        (["explain", "r.yaml", "--threads", "many"], "invalid int value: 'many'"),
        (["list", "nothing"], "invalid choice: 'nothing'"),
    ],
)
def test_wrong_use_is_two(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert_one_message(errors, message, "--help shows the options")


def test_options_are_not_guessed_from_their_beginnings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["apply", "r.yaml", "--out", "o", "--over"])
    assert "unrecognized arguments: --over" in capsys.readouterr().err


def test_no_command_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "missing.yaml"], "cannot read the recipe missing.yaml: No such file"),
        (["apply", "missing.yaml", "--out", "o"], "cannot read the recipe"),
        (["verify", "missing"], "missing"),
        (["list", "methods", "rest"], "did you mean 'resta'?"),
        (["list", "judges", "refusal-phrase"], "refusal-phrases"),
    ],
)
def test_bad_input_is_two(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert_one_message(shown.err, f"alignmend {arguments[0]}: ", message)


@pytest.mark.parametrize("threads", ["0", "-1", "100000"])
def test_threads_out_of_range(place: Path, threads: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", str(resta_recipe(place)), "--out", str(place / "out"), "--threads", threads]) == 2
    assert_one_message(capsys.readouterr().err, "threads is a number from 1 to 256")
    assert not (place / "out").exists()


def test_settings_reach_the_result(place: Path) -> None:
    recipe, out = str(resta_recipe(place)), place / "out"
    assert (
        main(["apply", recipe, "--out", str(out), "--set", "coefficient=0.25", "--set", "output.dtype=bfloat16"]) == 0
    )
    manifest = json.loads((out / "alignmend.json").read_text())
    assert manifest["expression"] == "finetuned + 0.25 * (aligned - unaligned)"
    assert manifest["parameters"] == {"coefficient": 0.25}
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"


def test_hashing_can_be_left_out_or_extended(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(resta_recipe(place))
    assert main(["apply", recipe, "--out", str(place / "a"), "--no-hash"]) == 0
    assert all(one["sha256"] is None for one in json.loads((place / "a" / "alignmend.json").read_text())["outputs"])
    assert main(["verify", str(place / "a")]) == 0
    assert "were not checked" in capsys.readouterr().out
    assert main(["apply", recipe, "--out", str(place / "b"), "--hash-inputs"]) == 0
    inputs = json.loads((place / "b" / "alignmend.json").read_text())["inputs"]
    assert all(file["sha256"] for one in inputs.values() for file in one["files"])


@pytest.mark.parametrize("arguments", [["--help"], ["list", "methods"], ["list", "methods", "resta"], ["--version"]])
def test_a_reader_that_goes_away_is_no_error(arguments: list[str]) -> None:
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()  # what `| head -0` does
    assert process.stderr.read() == b""
    assert process.wait(60) == 0


def test_a_closed_output_is_no_error() -> None:
    shell = ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "list", "methods"]
    ended = subprocess.run(shell, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.skipif(not FULL_DEVICE.exists(), reason="no /dev/full")
def test_a_full_output_is_one_message() -> None:
    with FULL_DEVICE.open("w") as full:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        ended = alignmend("list", "methods", stdout=full, env=environment)
    assert ended.returncode == 2
    assert_one_message(ended.stderr, "cannot print: No space left on device")
