from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evaluation.sandboxed import needs_sandbox

from alignmend.errors import ParameterError
from alignmend.evaluation.utility.sandbox import Limits, Outcome, run_program

pytestmark = needs_sandbox
SMALL = Limits(timeout=1, memory=256 << 20)


def run(program: str, tests: str = "") -> Outcome:
    return run_program(program, tests, SMALL)


def test_a_right_program_passes_and_a_wrong_one_does_not() -> None:
    assert run("def double(x): return 2 * x", "assert double(2) == 4").passed
    wrong = run("def double(x): return 2 + x", "assert double(3) == 6")
    assert not wrong.passed and wrong.reason == "AssertionError: "


@settings(max_examples=8)
@given(st.integers(), st.text())
def test_the_program_computes_what_python_does(number: int, text: str) -> None:
    program = f"a, b = {number!r}, {text!r}"
    tests = f"assert a == {number!r}\nassert b == {text!r}"
    assert run(program, tests) == Outcome(True, "passed")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise ValueError('no')", "ValueError: no"),
        ("def", "SyntaxError: invalid syntax"),
        ("x = 1\0", "SyntaxError: source code string cannot contain null bytes"),
        ("def f(): f()\nf()", "RecursionError"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import os; os._exit(0)", "left with status 0 before its tests were done"),
        ("import ctypes; ctypes.string_at(0)", "ended by signal 11"),
        ("import os; os.closerange(0, 100)", "before its tests were done"),
        ("input()", "EOFError"),
        ("import sys; assert sys.stdin.read() == ''; import numpy", "ModuleNotFoundError: No module named 'numpy'"),
        ("import alignmend", "ModuleNotFoundError"),
    ],
)
def test_a_program_that_does_not_reach_the_end_of_its_tests_fails(program: str, reason: str) -> None:
    outcome = run(program, "pass")
    assert not outcome.passed
    assert reason in outcome.reason


def test_leaving_from_within_the_tests_is_no_success() -> None:
    program = "import sys\ndef double(x): sys.exit(0)"
    assert not run(program, "assert double(2) == 4").passed
    assert not run("import atexit, os\ndef double(x): os._exit(0)", "double(2)").passed


def test_an_endless_loop_is_stopped_by_its_cpu_time() -> None:
    started = time.monotonic()
    outcome = run("while True: pass")
    assert (outcome.passed, outcome.reason) == (False, "used up its CPU time")
    assert time.monotonic() - started < 4


def test_a_program_that_catches_the_signal_of_its_limit_is_stopped_too() -> None:
    program = "import signal\nsignal.signal(signal.SIGXCPU, lambda *_: None)\nwhile True: pass"
    assert not run(program).passed


def test_a_program_that_waits_is_stopped_by_the_clock() -> None:
    limits = Limits(timeout=0.2)
    assert run_program("import time\ntime.sleep(60)", "", limits).reason == "did not end in time"


@pytest.mark.parametrize("program", ["x = 'a' * (1 << 30)", "x = []\nwhile True: x.append('a' * 100_000)"])
def test_memory_is_bounded(program: str) -> None:
    assert run(program).reason.startswith("MemoryError")


@pytest.mark.parametrize(
    "program",
    [
        "import os\nfor _ in range(5): os.fork()",
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', '1'])",
        "import multiprocessing\nmultiprocessing.Process(target=print).start()",
    ],
)
def test_there_are_no_new_processes(program: str) -> None:
    outcome = run(program)
    assert not outcome.passed
    assert "Error" in outcome.reason


def test_threads_are_no_processes() -> None:
    program = (
        "import threading\nseen = []\none = threading.Thread(target=seen.append, args=(1,))\none.start(); one.join()"
    )
    assert run(program, "assert seen == [1]").passed
    assert run("import asyncio\nasync def f(): return 3", "assert asyncio.run(f()) == 3").passed


def test_a_thread_left_running_does_not_hold_the_verdict_up() -> None:
    program = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()"
    assert run(program, "pass").passed


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_UNIX"])
def test_there_is_no_network(family: str) -> None:
    assert run(f"import socket\nsocket.socket(socket.{family})").reason.startswith("PermissionError")


def test_a_flood_of_output_is_lost_and_harmless() -> None:
    started = time.monotonic()
    assert run("import sys\nfor _ in range(200): print('x' * 100_000); print('y', file=sys.stderr)", "pass").passed
    assert time.monotonic() - started < 4


def test_files_are_written_in_a_folder_that_goes_away() -> None:
    program = "import os\nopen('a', 'w').write('b')\nassert os.listdir() == ['a'] and open('a').read() == 'b'"
    assert run(program, "pass").passed
    assert run("import tempfile\nwith tempfile.TemporaryFile() as file: file.write(b'x')", "pass").passed


def test_disk_space_is_bounded() -> None:
    assert run("open('a', 'wb').write(bytes(1 << 22))").reason.startswith("OSError: [Errno 27]")
    many = "for i in range(40): open(str(i), 'wb').write(bytes(1_000_000))"
    assert run(many).reason.startswith("OSError: [Errno 28]")
    few = "import time\nfor i in range(1500): open(str(i), 'wb')\ntime.sleep(60)"
    assert run(few).reason.startswith("filled its folder")
    folders = "import os, time\nfor i in range(1500): os.mkdir(str(i))\ntime.sleep(60)"
    assert run(folders).reason.startswith("filled its folder")


def test_nothing_of_our_environment_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    program = "import os, sys\nseen = dict(os.environ), sys.path, os.listdir('.')"
    tests = (
        "assert 'SOME_KEY' not in seen[0] and len(seen[0]) < 8, seen[0]\n"
        "assert not any('site-packages' in path or 'evaluation' in path for path in seen[1]), seen[1]\n"
        "assert not seen[2]"
    )
    assert run(program, tests) == Outcome(True, "passed")


@pytest.mark.parametrize(
    "tampering",
    [
        "import builtins\nbuiltins.all = lambda items: True",
        "import builtins\nbuiltins.exec = builtins.compile = lambda *_: None",
        "import builtins\nbuiltins.AssertionError = SystemExit",
        "import os\nos.write = lambda *_: None",
        "import sys\nsys.excepthook = lambda *_: None\nsys.settrace(None)",
        "import json\njson.dumps = lambda *_: ''",
    ],
)
def test_patched_functions_do_not_pass_tests(tampering: str) -> None:
    assert not run(tampering, "assert all([0])").passed
    assert run(tampering, "assert all([1])").passed


def test_a_guessed_verdict_is_not_believed() -> None:
    program = "import os\nfor one in range(3, 4096):\n  try: os.write(one, b'passed\\n' * 9)\n  except OSError: pass"
    assert not run(program, "assert False").passed
    endless = program.replace("passed\\n", "x").replace("* 9", "* 99_999")
    assert run(endless).reason == "wrote to the descriptor of its verdict"


def test_sets_are_in_the_same_order_in_every_run() -> None:
    order = "''.join({'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'})"
    first = run(f"raise ValueError({order})").reason
    assert all(run(f"raise ValueError({order})").reason == first for _ in range(3))


def test_nothing_is_left_behind() -> None:
    before = len(list(Path("/dev/fd").iterdir())), threading.active_count()
    for program in ("def f(): return 1", "1 / 0", "import os; os.closerange(0, 100)"):
        run(program, "assert f() == 1")
    assert (len(list(Path("/dev/fd").iterdir())), threading.active_count()) == before


@pytest.mark.parametrize("limits", [(0.0, 1 << 30), (10.0, 1000), (-1.0, 1 << 30), (1e9, 1 << 30)])
def test_limits_that_make_no_sense_are_refused(limits: tuple[float, int]) -> None:
    with pytest.raises(ParameterError, match="needs a timeout within"):
        Limits(*limits)
