"""The edge of the program: what is printed is visible, what is raised is one line, and nothing else comes out."""

from __future__ import annotations

import argparse
import errno
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from tests.cli.command import COMMAND, alignmend, assert_one_message
from tests.methods.tiny import contents, resta_recipe, trio
from tqdm import tqdm

from alignmend.cli import main
from alignmend.cli.guard import guarded
from alignmend.cli.plain import VisibleStream, plain_console, visible
from alignmend.errors import FileFormatError, MismatchError

ESCAPES = "no\x1b]0;title\x07\x1b[2J\x9b1m\r\u202eend"
SHOWN = r"no\x1b]0;title\x07\x1b[2J\x9b1m\r\u202eend"
NOT_UTF8 = os.fsdecode(b"x\xff")
FULL_DEVICE = Path("/dev/full")


@given(st.text())
def test_visible_text_commands_nothing(text: str) -> None:
    shown = visible(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)
    assert visible(shown) == shown
    assert shown.count("\n") == text.count("\n")


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs", "M"])))
def test_plain_text_of_any_language_is_shown_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_bytes_of_a_path_are_shown_as_bytes() -> None:
    assert visible(NOT_UTF8) == r"x\xff"


@pytest.mark.parametrize("arguments", [["apply", ESCAPES, "--out", "o"], ["verify", ESCAPES], [ESCAPES]])
def test_escapes_in_input_are_visible_in_messages(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert main(arguments) == 2
    except SystemExit as ended:
        assert ended.code == 2
    errors = capsys.readouterr().err
    assert "\x1b" not in errors and "\x9b" not in errors and "\r" not in errors
    assert r"\x1b]0;title\x07" in errors


def test_what_libraries_print_is_visible_and_their_bars_move() -> None:
    target = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")
    stream = VisibleStream(target)
    print(ESCAPES, file=stream)
    with tqdm(total=2, file=stream, desc=ESCAPES, ascii=True) as bar:
        bar.update(2)
    target.flush()
    written = target.buffer.getvalue().decode()
    message, bars = written.split("\n", 1)
    assert message == SHOWN
    assert bars.startswith("\r") and "100%" in bars
    assert "\x07" not in bars and "\x1b]" not in bars


def test_tables_show_what_others_wrote_around_their_own_colours() -> None:
    target = io.StringIO()
    table = Table("column")
    table.add_row(ESCAPES, style="red")
    plain_console(file=target, width=120, force_terminal=True, color_system="standard").print(table, ESCAPES)
    written = target.getvalue()
    assert written.count("\x1b[31m") >= 1, "rich's own colours stay"
    assert "\x1b]" not in written and "\x1b[2J" not in written and "\x9b" not in written
    assert r"\x1b[2J" in written


def edge(error: BaseException) -> int:
    def run() -> int:
        raise error

    return guarded(run, argparse.Namespace(command="edit", interrupted="; go on with --resume"))


def test_what_nobody_foresaw_is_one_line_and_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert edge(ZeroDivisionError("by\nzero")) == 2
    errors = capsys.readouterr().err
    assert_one_message(errors, "alignmend edit: ", "(ZeroDivisionError: by zero)", "; go on with --resume")
    assert len(errors.splitlines()) == 1
    (file,) = tmp_path.glob("alignmend-traceback-*.txt")
    assert str(file) in errors
    assert file.stat().st_mode & 0o777 == 0o600
    told = file.read_text()
    assert "Traceback (most recent call last)" in told and "raise error" in told


def opened_too_many() -> MismatchError:
    try:
        try:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "model.safetensors")
        except OSError as error:
            raise FileFormatError("model.safetensors cannot be read: check its rights") from error
    except FileFormatError:
        try:
            raise MismatchError("two models have other tensors") from None
        except MismatchError as error:
            return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EMFILE, "x"), "too many open files: raise the limit (ulimit -n 4096)"),
        (opened_too_many(), "too many open files: raise the limit"),
        (OSError(errno.ENOSPC, "x", "out/model"), "no space is left on the disk (out/model)"),
        (RuntimeError("can't start new thread"), "no further thread can be started"),
        (MemoryError(), "out of memory: free memory"),
        (UnicodeEncodeError("utf-8", f"see a/{NOT_UTF8}b c", 7, 8, "surrogates not allowed"), r"a/x\xffb is not UTF-8"),
    ],
)
def test_faults_of_the_machine_are_told_as_what_they_are(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sys.stderr", VisibleStream(sys.stderr))
        assert edge(error) == 2
    errors = capsys.readouterr().err
    assert_one_message(errors, said)
    assert "traceback" not in errors and len(errors.splitlines()) == 1


def test_too_many_open_files_are_told_by_the_command(tmp_path: Path) -> None:
    recipe = resta_recipe(trio(tmp_path / "in"))
    code = "import os, resource, sys, torch, numpy, yaml\nfrom alignmend.cli import main\n"
    code += "import alignmend.recipes.apply, alignmend.execution.save\n"
    code += "resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir('/dev/fd')) + 1,) * 2)\nsys.exit(main())"
    command = [sys.executable, "-c", code, "apply", str(recipe), "--out", str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert "alignmend apply: too many open files: raise the limit" in ended.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("closing", [">&- 2>&-", "<&- >&- 2>&-", "2>&-", "<&-"])
def test_closed_streams_change_nothing(tmp_path: Path, closing: str) -> None:
    """A file that got the number of a closed stream would hold what is printed."""
    recipe, out = resta_recipe(trio(tmp_path / "in")), tmp_path / "out"
    assert main(["apply", str(recipe), "--out", str(tmp_path / "expected")]) == 0
    shell = ["sh", "-c", f'exec "$@" {closing}', "sh", *COMMAND, "apply", str(recipe), "--out", str(out)]
    assert subprocess.run(shell, capture_output=True, check=False).returncode == 0
    expected = contents(tmp_path / "expected")
    found = contents(out)
    assert found["model.safetensors"] == expected["model.safetensors"]
    assert found.keys() == expected.keys()
    assert main(["verify", str(out)]) == 0


@pytest.mark.skipif(not FULL_DEVICE.exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [["list", "suites"], ["list", "methods", "--json"]])
def test_an_output_that_is_full_from_the_start_is_one_message(arguments: list[str]) -> None:
    with FULL_DEVICE.open("w") as full:
        ended = alignmend(*arguments, stdout=full, env=os.environ | {"PYTHONUNBUFFERED": "1"})
        assert ended.returncode == 2
        assert_one_message(ended.stderr, "cannot print: No space left on device")
        assert alignmend("verify", "nothing", stdout=full, stderr=full).returncode == 2


@pytest.mark.parametrize("optimize", ["1", "2"])
def test_without_assertions_and_docstrings_all_is_the_same(tmp_path: Path, optimize: str) -> None:
    recipe, out = resta_recipe(trio(tmp_path / "in")), tmp_path / "out"
    for arguments in (["list", "methods"], ["list", "judges"], ["list", "transforms"], ["explain", str(recipe)]):
        plain = alignmend(*arguments)
        bare = alignmend(*arguments, env=os.environ | {"PYTHONOPTIMIZE": optimize})
        assert (bare.returncode, bare.stdout, bare.stderr) == (plain.returncode, plain.stdout, plain.stderr)
    ended = alignmend("apply", recipe, "--out", out, env=os.environ | {"PYTHONOPTIMIZE": optimize})
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_path_that_is_not_utf8_is_refused_before_any_work(tmp_path: Path) -> None:
    recipe = resta_recipe(trio(tmp_path / "in"))
    ended = alignmend("apply", recipe, "--out", tmp_path / NOT_UTF8)
    assert ended.returncode == 2
    assert_one_message(ended.stderr, r"x\xff is not UTF-8: rename it")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_with_few_characters_gets_the_rest_written_out(encoding: str) -> None:
    ended = alignmend("verify", "модель→☃", env=os.environ | {"PYTHONIOENCODING": encoding})
    assert ended.returncode == 2
    assert_one_message(ended.stderr, r"\u2192\u2603")
