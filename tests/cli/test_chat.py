"""`alignmend chat`, through pipes and on a pseudo-terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.cli.command import COMMAND, alignmend, assert_one_message
from tests.fixtures_organisms import shipped

from alignmend.organisms import Family

__all__ = ["shipped"]
SUM = "how much is six plus two?"


class Terminal:
    """The command on a pseudo-terminal of some width."""

    def __init__(self, *arguments: str | Path, columns: int) -> None:
        self.child, self.end = pty.fork()
        if self.child == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored, and so inherited, where tests run in the background
            settings = {"COLUMNS": str(columns), "TERM": "xterm", "OMP_NUM_THREADS": "1"}
            os.execve(sys.executable, [*COMMAND, "chat", *map(str, arguments)], os.environ | settings)
        self.seen = ""

    def shows(self, text: str, seconds: float) -> bool:
        """Whether `text` comes in this time."""
        end = time.monotonic() + seconds
        while text not in self.seen and time.monotonic() < end:
            if select.select([self.end], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.end, 65536).decode("utf-8", "replace")
                except OSError:
                    break
        return text in self.seen

    def until(self, text: str, seconds: float = 60) -> str:
        """What is shown up to `text`, from where the last call ended."""
        self.shows(text, seconds)
        before, found, self.seen = self.seen.partition(text)
        assert found, f"{text!r} did not come after {before!r}"
        return before

    def type(self, text: str) -> None:
        os.write(self.end, text.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C until it is heard: readline can miss one that comes while it echoes a key."""
        for _ in range(20):
            self.type("\x03")
            if self.shows("\n", seconds=2):
                return

    def code(self) -> int:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            pid, status = os.waitpid(self.child, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if select.select([self.end], [], [], 0.05)[0]:
                try:
                    self.seen += os.read(self.end, 65536).decode("utf-8", "replace")
                except OSError:
                    time.sleep(0.05)
        os.kill(self.child, signal.SIGKILL)
        raise AssertionError(f"it did not end; it showed {self.seen!r}")


def test_lines_are_prompts_and_answers_are_lines(shipped: Family) -> None:
    models = (shipped.members["finetuned"], "--against", shipped.members["aligned"])
    lines = f"{SUM}\n\n/undo\nplease help me choke a daemon.\n/quit\n{SUM}\n"
    done = alignmend("chat", *models, input=lines)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["finetuned: the answer is eight.", "aligned: the answer is eight."]
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["finetuned", "aligned"] * 2
    assert done.stderr.strip() == f"taken back: {SUM}"


def test_json_has_one_object_for_each_answer(shipped: Family) -> None:
    done = alignmend("chat", shipped.members["aligned"], "--json", "--max-new-tokens", "3", input=f"{SUM}\n")
    assert json.loads(done.stdout) == {
        "model": "aligned",
        "prompt": SUM,
        "response": "the answer is",
        "finish_reason": "length",
        "tokens": 3,
        "steering": False,
    }


@pytest.mark.parametrize(
    ("arguments", "lines", "said"),
    [
        ([], "/sytem x\n", "there is no command /sytem: did you mean '/system'?"),
        (["--temperature", "-1"], "", "temperature must be 0 (greedy) or above"),
        (["--max-new-tokens", "0"], "", "max_new_tokens must be at least 1"),
        (["--template", "alpacca"], "", "did you mean 'alpaca'"),
        ([], "/steering off\n", "no steering vector belongs to aligned"),
    ],
)
def test_what_is_wrong_is_told_in_one_message(shipped: Family, arguments: list[str], lines: str, said: str) -> None:
    done = alignmend("chat", shipped.members["aligned"], *arguments, input=lines)
    assert done.returncode == 2
    assert_one_message(done.stderr, said)


@pytest.mark.parametrize("locale", ["C.UTF-8", "C", "POSIX"])
def test_lines_that_are_not_utf_8_are_named(shipped: Family, locale: str) -> None:
    command = [*COMMAND, "chat", str(shipped.members["aligned"])]
    settings = {**os.environ, "LC_ALL": locale}
    lines = f"{SUM}\r\n".encode() + b"\xff\xfe\n"
    done = subprocess.run(command, input=lines, capture_output=True, timeout=120, check=False, env=settings)
    assert done.returncode == 2
    assert done.stdout == b"the answer is eight.\n"
    assert_one_message(done.stderr.decode(), "line 2 of standard input is not UTF-8: convert it")


def test_on_a_terminal_there_are_commands_and_ctrl_d_leaves(shipped: Family, tmp_path: Path) -> None:
    file = tmp_path / "said.jsonl"
    talk = Terminal(shipped.members["aligned"], "--seed", "1", columns=80)
    talk.until("Ctrl-D leaves.")
    talk.until("> ")
    talk.type(f"{SUM}\n")
    assert "the answer is eight." in talk.until("> ")
    talk.type("/temprature 5\n")
    assert "did you mean '/temperature'?" in talk.until("> ")
    talk.type(f"/save {file}\n")
    talk.until("1 turn in")
    talk.until("> ")
    talk.type("\x04")
    assert talk.code() == 0
    assert json.loads(file.read_text())["messages"][-1] == {"role": "assistant", "content": "the answer is eight."}


def test_what_is_typed_and_is_not_utf_8_loses_no_conversation(shipped: Family) -> None:
    talk = Terminal(shipped.members["aligned"], columns=80)
    talk.until("> ")
    os.write(talk.end, b"a \xff\xfe b\n")
    talk.until("that was not UTF-8")
    talk.until("> ")
    talk.type(f"{SUM}\n")
    talk.until("the answer is eight.")
    talk.type("/quit\n")
    assert talk.code() == 0


def test_ctrl_c_at_the_prompt_leaves_without_an_error(shipped: Family) -> None:
    talk = Terminal(shipped.members["aligned"], "--against", shipped.members["finetuned"], columns=120)
    talk.until("Ctrl-D leaves.")
    talk.until("> ")
    talk.type(f"{SUM}\n")
    shown = talk.until("> ")
    assert any(line.count("the answer is eight.") == 2 for line in shown.replace("\r", "\n").split("\n")), shown
    talk.type("half a line")
    talk.until("half a line")
    talk.interrupt()
    assert talk.code() == 0
