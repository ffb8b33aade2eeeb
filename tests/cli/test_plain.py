"""Names of other people's things in what is printed: brackets stay brackets."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.command import alignmend, assert_one_message

from alignmend.cli.plain import plain_console
from alignmend.cli.restore_steps import ScreenSteps
from alignmend.restore.preflight import Finding, Preflight

NAMES = "bad/x[/b] v[v2] [bold]a[/] :bug: pip install 'alignmend[restore]'"


def test_strings_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    plain_console(soft_wrap=True).print(NAMES)
    assert capsys.readouterr().out == f"{NAMES}\n"


def test_the_preflight_shows_names_and_advice_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    finding = Finding("fine-tune", "v[v2] m[/x] :bug:", "problem", "pip install 'alignmend[restore]'")
    ScreenSteps(ask=False, quiet=False).checked(Preflight((finding,), None, is_adapter=False, weights_bytes=0), None)
    shown = capsys.readouterr().out
    assert all(text in shown for text in (finding.found, finding.remedy, "problem"))


def test_paths_with_brackets_are_paths(tmp_path: Path) -> None:
    ran = alignmend("restore", "bad/x[/b][v2]", "--out", tmp_path / "m[/x]")
    assert ran.returncode == 2
    assert_one_message(ran.stderr, "bad/x[/b][v2]")
    assert "bad/x[/b][v2]" in ran.stdout
