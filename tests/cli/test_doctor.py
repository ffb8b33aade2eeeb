"""`doctor`, `--version`, `completion` and help in colour."""

from __future__ import annotations

import io
import json
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from alignmend.cli import main, parser
from alignmend.cli.colour import coloured, wants_colour
from alignmend.restore.machine import EXTRAS, library_versions, machine


def test_doctor_tells_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "--out", str(tmp_path)]) == 0
    told = {one["topic"]: one for one in json.loads(capsys.readouterr().out)}
    assert {"alignmend", "libraries", "device", "dtypes", "disk", "hub", "sandbox"} <= told.keys()
    assert f"torch {library_versions()['torch']}" in told["libraries"]["told"]
    assert all(one["level"] in ("ok", "note", "missing", "problem") for one in told.values())
    assert main(["doctor", "--out", str(tmp_path / "nowhere")]) == 1
    assert "problem  disk" in capsys.readouterr().out


def test_a_token_is_told_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    lines = machine(tmp_path)
    assert any(one.topic == "hub" and one.level == "ok" for one in lines)
    assert "secretsecret" not in " ".join(one.told for one in lines)


def test_every_extra_says_what_it_gives() -> None:
    import tomllib

    settings = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    extras = settings["project"]["optional-dependencies"].keys()
    assert set(extras) - {"all", "dev", "restore"} == EXTRAS.keys()


def test_version_names_the_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    first, second, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("alignmend ") and second.startswith("Python ")
    assert f"torch {library_versions()['torch']}" in others


def test_help_is_coloured_on_terminals_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert not wants_colour(io.StringIO())
    with pytest.raises(SystemExit):
        main(["verify", "--help"])
    plain = capsys.readouterr().out
    assert "\x1b" not in plain
    monkeypatch.setenv("FORCE_COLOR", "1")
    with pytest.raises(SystemExit):
        main(["verify", "--help"])
    shown = capsys.readouterr().out
    assert "\x1b[36m--json\x1b[0m" in shown and shown.replace("\x1b[36m", "").replace("\x1b[1m", "").replace(
        "\x1b[0m", ""
    ) == plain.replace("\x1b", "")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour(io.StringIO())
    assert coloured("an over-refusal - rate") == "an over-refusal - rate"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_is_a_script_that_the_shell_reads(
    shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_spec("shtab") is None:
        assert main(["complete", shell]) == 2
        assert "pip install 'alignmend[completion]'" in capsys.readouterr().err
        return
    assert main(["complete", shell]) == 0
    script = capsys.readouterr().out
    assert "audit" in script and "--max-asr" in script
    if shell == "bash":
        (tmp_path / "script").write_text(script)
        subprocess.run(["bash", "-n", str(tmp_path / "script")], check=True)


def test_completion_knows_its_shells(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["complete", "fish"])
    assert "invalid choice: 'fish'" in capsys.readouterr().err
