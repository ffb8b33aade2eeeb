"""What a program in the sandbox tries against the machine: it sees, reaches and leaves nothing."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.evaluation.sandboxed import needs_sandbox

from alignmend.errors import SandboxError
from alignmend.evaluation.utility import sandbox
from alignmend.evaluation.utility.call_filter import call_filter
from alignmend.evaluation.utility.sandbox import Limits, Outcome, run_program

QUICK = Limits(timeout=1, memory=256 << 20)
SYSCALL = "import ctypes, os\ncall = ctypes.CDLL(None, use_errno=True).syscall\n"
WAYS_TO_KILL = {
    "kill": "os.kill({0}, 9)",
    "tgkill": "assert call(234, {0}, {0}, 9) == -1; raise OSError('refused')",
    "rt_sigqueueinfo": "b = ctypes.create_string_buffer(128); b[8:12] = b'\\xff' * 4\n"
    "assert call(129, {0}, 9, b) == -1; raise OSError('refused')",
    "pidfd": "import signal; signal.pidfd_send_signal(os.pidfd_open({0}), 9)",
    "prlimit cpu": "import resource; resource.prlimit({0}, resource.RLIMIT_CPU, (0, 0))",
    "prlimit files": "import resource; resource.prlimit({0}, resource.RLIMIT_NOFILE, (3, 3))",
    "ptrace": "assert call(101, 16, {0}, 0, 0) == -1; raise OSError('refused')",
}
"""Numbers are those of x86-64; elsewhere they are other calls, which do no more."""


def run(program: str, tests: str = "pass") -> Outcome:
    return run_program(program, tests, QUICK)


def refused(program: str) -> None:
    outcome = run(program)
    assert not outcome.passed
    assert "Error" in outcome.reason, outcome


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A file of the user's."""
    file = tmp_path / "kept"
    file.write_text("hf_topsecret")
    return file


@needs_sandbox
@pytest.mark.parametrize("way", WAYS_TO_KILL)
def test_no_process_outside_is_reached(victim: subprocess.Popen[bytes], way: str) -> None:
    limits = Path(f"/proc/{victim.pid}/limits").read_text()
    refused(SYSCALL + WAYS_TO_KILL[way].format(victim.pid))
    time.sleep(0.05)
    assert victim.poll() is None
    assert Path(f"/proc/{victim.pid}/limits").read_text() == limits


@needs_sandbox
def test_no_process_is_seen_and_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    refused("import os; os.listdir('/proc')")
    for name in ("environ", "cmdline", "mem"):
        refused(f"open('/proc/{os.getpid()}/{name}', 'rb').read()")
    refused("import os; raise ValueError(os.environ['SOME_KEY'])")
    assert run("import os; seen = os.getpid(), os.getppid()", "assert seen[0] < 10 and seen[1] < 10").passed


@needs_sandbox
@pytest.mark.parametrize(
    "attempt",
    [
        "raise ValueError(open({0!r}).read())",
        "os.remove({0!r})",
        "open({0!r}, 'a')",
        "os.truncate({0!r}, 0)",
        "os.rename({0!r}, 'x')",
        "os.utime({0!r}, (0, 0))",
        "os.chmod({0!r}, 0o777)",
        "os.setxattr({0!r}, 'user.x', b'1')",
        "os.link({0!r}, 'x')",
        "import shutil; shutil.rmtree({1!r})",
        "open({1!r} + '/new', 'w')",
        "os.listdir({1!r})",
    ],
)
def test_no_file_of_the_user_is_read_or_changed(kept: Path, attempt: str) -> None:
    before = kept.stat()
    outcome = run("import os\n" + attempt.format(str(kept), str(kept.parent)))
    assert outcome.reason.startswith(("FileNotFoundError", "PermissionError")), outcome
    assert "secret" not in outcome.reason
    assert kept.read_text() == "hf_topsecret"
    assert (kept.stat().st_mtime_ns, kept.stat().st_mode) == (before.st_mtime_ns, before.st_mode)
    assert [path.name for path in kept.parent.iterdir()] == ["kept"]


@needs_sandbox
@pytest.mark.parametrize("place", ["/", "/usr", "/dev", "/dev/shm", "/etc", sys.base_prefix])
def test_the_system_is_read_only(place: str) -> None:
    assert run(f"open({place!r} + '/alignmend-attack', 'w')").reason.startswith("OSError: [Errno 30] Read-only")
    assert not Path(place, "alignmend-attack").exists()


@needs_sandbox
@pytest.mark.parametrize(
    "attempt",
    [
        "socket.socket()",
        "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
        "socket.socket(socket.AF_UNIX)",
        "socket.create_connection(('127.0.0.1', 22), 1)",
        "socket.getaddrinfo('example.org', 80)",
    ],
)
def test_there_is_no_network(attempt: str) -> None:
    outcome = run(f"import socket\n{attempt}")
    assert not outcome.passed and "rror" in outcome.reason


@needs_sandbox
def test_there_is_no_ring_of_the_kernels() -> None:
    assert run(SYSCALL + "made = call(425, 1, 0)", "assert made == -1").passed


@needs_sandbox
def test_shared_memory_does_not_stay() -> None:
    key = 0x414C47
    program = f"""
import ctypes
library = ctypes.CDLL(None)
if library.shmget({key}, 4 << 20, 0o1600) < 0: raise OSError("refused")
"""
    refused(program)
    assert ctypes.CDLL(None).shmget(key, 0, 0) == -1
    refused(SYSCALL + "import os; os.memfd_create('x')")


@needs_sandbox
def test_new_privileges_are_not_to_be_had() -> None:
    refused("import os; os.unshare(os.CLONE_NEWUSER)" if sys.version_info >= (3, 12) else "import os; os.setuid(0)")
    refused("import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))")
    refused("import ctypes\nif ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None): raise OSError('refused')")


@needs_sandbox
@pytest.mark.parametrize(
    "program",
    [
        "import os\nfor i in range(5000):\n    os.mkdir('d'); os.chdir('d')",
        "import os; os.makedirs('a/b'); os.mkfifo('a/fifo'); os.symlink('/etc', 'a/l'); os.chmod('a', 0)",
        "import os\nfor i in range(20000): os.mkdir(f'd{i}')",
        "import os\nfor i in range(10**6): os.makedirs(f'd{i}/a/b')",
        "import os\nfor i in range(10**6): open(f'f{i}', 'wb').write(b'x' * (1 << 20))",
    ],
)
def test_whatever_is_put_into_the_private_folder_goes_away(program: str) -> None:
    def ours() -> list[str]:
        return sorted(name for name in os.listdir(tempfile.gettempdir()) if name.startswith("alignmend-"))  # noqa: PTH208

    before, started = ours(), time.monotonic()
    run(program)
    assert ours() == before
    assert time.monotonic() - started < 10


@needs_sandbox
def test_another_program_in_its_place_is_under_the_same_limits() -> None:
    program = "import os; os.execv('/bin/sh', ['sh', '-c', 'while :; do :; done'])"
    assert run(program).reason == "used up its CPU time"


def sandboxes() -> set[Path]:
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            line = (path / "cmdline").read_bytes()
            found |= {path} if b"bwrap" in line and b"--info-fd" in line else set()
    return found


@needs_sandbox
def test_what_ran_when_the_clock_stopped_is_gone() -> None:
    before = sandboxes()
    run_program("import time\ntime.sleep(600)", "", Limits(timeout=0.2))
    left = sandboxes() - before
    until = time.monotonic() + 60  # a test beside this one may run programs, all of which end within seconds
    while left and time.monotonic() < until:
        time.sleep(0.1)
        left &= sandboxes()
    assert not left


def test_without_bubblewrap_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match=r"bubblewrap.*is (not installed|for Linux only).*--unsafe-local-code"):
        run_program("", "")


@pytest.mark.skipif(sys.platform != "linux" or call_filter() is None, reason="no bubblewrap there")
def test_where_namespaces_are_not_allowed_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    sandbox._refused.cache_clear()
    try:
        with pytest.raises(
            SandboxError, match=r"cannot make a sandbox \(bwrap: No permissions to create new namespace"
        ):
            run_program("", "")
    finally:
        sandbox._refused.cache_clear()


def test_unsafe_code_runs_without_a_sandbox_and_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "secret")
    seen = run_program(
        f"import os\nopen({str(tmp_path / 'written')!r}, 'w').write('x')",
        "assert 'SOME_KEY' not in os.environ",
        QUICK,
        unsafe=True,
    )
    assert seen == Outcome(True, "passed")
    assert (tmp_path / "written").read_text() == "x"
    assert run_program("while True: pass", "", QUICK, unsafe=True).reason == "used up its CPU time"
    deep = "import os\nfor i in range(1100):\n    os.mkdir('d'); os.chdir('d')"
    assert run_program(deep, "", QUICK, unsafe=True).passed
