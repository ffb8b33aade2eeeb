"""Runs a short Python program that a model wrote, and its tests, where it can do no harm.

The program runs in bubblewrap: no network, no other processes, a read-only system without any of the user's files, an
empty environment, a small private folder in memory that goes away, limits of CPU time, waiting, memory, files and open
files. Where bubblewrap is missing or may not make namespaces, nothing runs, unless the caller says `unsafe`: then
only the limits hold, and the program may do whatever the user may.

The machine is safe from the program; the verdict is not: a program shares its interpreter with its tests, and one that
is written to fake them can. Only the standard library is there.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from alignmend.errors import ParameterError, SandboxError
from alignmend.evaluation.utility.bubblewrap import HOME, filter_file, unfit, wrapped

DEFAULT_TIMEOUT = 10.0
DEFAULT_MEMORY = 1 << 30
_CHILD = Path(__file__).with_name("sandbox_child.py")
_WAITING_FACTOR = 4
_FILE_BYTES = 1 << 20
_FOLDER_BYTES = 16 << 20
_FOLDER_FILES = 1000
_OPEN_FILES = 64
_LONGEST_RESULT = 1 << 16
_LOOK_EVERY = 0.1
_LEAST_MEMORY = 64 << 20
_READY = "ready"
_FIRST_SIGNAL_STATUS = 128


@dataclass(frozen=True)
class Limits:
    """`timeout`: seconds of CPU time; of waiting, four times that, so that a busy machine changes no result.
    `memory`: bytes of address space.
    """

    timeout: float = DEFAULT_TIMEOUT
    memory: int = DEFAULT_MEMORY

    def __post_init__(self) -> None:
        if not 0 < self.timeout <= 3600 or self.memory < _LEAST_MEMORY:
            raise ParameterError(
                f"running code needs a timeout within (0, 3600] seconds and at least {_LEAST_MEMORY} bytes of memory, "
                f"not {self.timeout} and {self.memory}"
            )


@dataclass(frozen=True)
class Outcome:
    """Whether every test passed, and why not in a few words."""

    passed: bool
    reason: str


@dataclass(frozen=True)
class _Running:
    process: subprocess.Popen[bytes]
    verdict: IO[bytes]
    """What the child writes."""
    folder: Path | None
    """The private folder as it is seen from outside; `None` where nothing bounds it."""


def check_sandbox() -> None:
    """Raises `SandboxError` where code cannot run in a sandbox on this system, with the reason."""
    problem = unfit() or _refused()
    if problem is not None:
        raise SandboxError(
            f"code that a model wrote does not run here: {problem}. Install bubblewrap where user namespaces are "
            "allowed (a container must permit them); or, on a machine that may be lost with everything on it, say "
            "--unsafe-local-code"
        )


def run_program(program: str, tests: str, limits: Limits | None = None, *, unsafe: bool = False) -> Outcome:
    """Runs `program`, then `tests` (statements that raise where it is wrong) among the program's names.

    In a sandbox, or not at all (`SandboxError`), unless `unsafe`.
    """
    if not unsafe:
        check_sandbox()
    limits = limits or Limits()
    token = secrets.token_hex(16)
    with _running(program, tests, limits, token, unsafe=unsafe) as running:
        said, ended = _listen(running, token, time.monotonic() + _WAITING_FACTOR * limits.timeout)
    lines, status = said.splitlines(), running.process.returncode
    if lines[:1] != [_READY]:
        raise SandboxError(
            f"a program could not be started in the sandbox (status {status})", advice="free memory and run again"
        )
    return _outcome(lines[1:], ended, token, status)


@cache
def _refused() -> str | None:
    """What bubblewrap says where it cannot make a sandbox here; `None` where it can."""
    with filter_file() as calls, _pipe() as (_, telling):
        told = telling.fileno()
        command = wrapped([_interpreter(), "-S", "-c", ""], calls=calls, told=told, folder_bytes=_FOLDER_BYTES)
        try:
            ended = subprocess.run(
                command, capture_output=True, pass_fds=(calls, told), stdin=subprocess.DEVNULL, timeout=60, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"bubblewrap cannot be run ({error})"
    if ended.returncode == 0:
        return None
    said = " ".join(ended.stderr.decode("utf-8", "replace").split())[:300]
    return f"bubblewrap cannot make a sandbox ({said or f'status {ended.returncode}'})"


@contextmanager
def _running(program: str, tests: str, limits: Limits, token: str, *, unsafe: bool) -> Iterator[_Running]:
    """The child at work; nothing of it is left afterwards."""
    with ExitStack() as stack:
        reading, writing = stack.enter_context(_pipe())
        job = stack.enter_context(tempfile.TemporaryFile())
        job.write(_job(program, tests, limits, token, writing.fileno(), strict=not unsafe))
        job.seek(0)
        if unsafe:
            process, folder = _bare(job, stack.enter_context(_folder()), writing.fileno()), None
            stack.callback(_end, process)
        else:
            process, informed = stack.enter_context(_apart(job, writing.fileno()))
            folder = _seen(informed)
        writing.close()
        yield _Running(process, reading, folder)


@contextmanager
def _pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as reader, open(writing, "wb", buffering=0) as writer:  # noqa: PTH123
        yield reader, writer


def _job(program: str, tests: str, limits: Limits, token: str, result: int, *, strict: bool) -> bytes:
    bounds = {"cpu": max(1, round(limits.timeout)), "memory": limits.memory, "file": _FILE_BYTES, "open": _OPEN_FILES}
    job = {"program": program, "tests": tests, "token": token, "result": result, "limits": bounds, "strict": strict}
    return json.dumps(job).encode("ascii")


def _interpreter() -> str:
    """Not a virtual environment's link, which is not there inside."""
    return str(Path(sys.executable).resolve())


def _child() -> list[str]:
    return [_interpreter(), "-s", "-S", "-B", "-P", "-X", "utf8", "-c", _CHILD.read_text(encoding="utf-8")]


def _bare(job: IO[bytes], folder: Path, writing: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        _child(),
        stdin=job,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={"PATH": os.defpath, "HOME": str(folder), "TMPDIR": str(folder), "PYTHONHASHSEED": "0"},
        pass_fds=(writing,),
        start_new_session=True,
    )


@contextmanager
def _apart(job: IO[bytes], writing: int) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """The child in bubblewrap, and what bubblewrap tells of it."""
    with filter_file() as calls, _pipe() as (informed, telling):
        told = telling.fileno()
        process = subprocess.Popen(
            wrapped(_child(), calls=calls, told=told, folder_bytes=_FOLDER_BYTES),
            stdin=job,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            pass_fds=(writing, calls, told),
            start_new_session=True,
        )
        telling.close()
        try:
            yield process, informed
        finally:
            _end(process)


def _seen(informed: IO[bytes]) -> Path | None:
    """The private folder of the process that bubblewrap tells of."""
    try:
        process = int(json.loads(informed.read())["child-pid"])
    except (ValueError, KeyError, TypeError):
        return None  # it did not start, which its silence will tell
    return Path("/proc") / str(process) / f"root{HOME}"


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder that goes away, however deep the trees in it: `rm` walks them where Python's own function gives up."""
    folder = tempfile.mkdtemp(prefix="alignmend-")
    try:
        yield Path(folder)
    finally:
        subprocess.run(["/bin/rm", "-rf", "--", folder], stderr=subprocess.DEVNULL, check=False)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills the session; its leader is not waited for before, so that its id cannot have become another's."""
    with suppress(PermissionError, ProcessLookupError):  # macOS refuses where only the ended leader is left
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def _listen(running: _Running, token: str, deadline: float) -> tuple[str, str]:
    """What the child wrote, and how listening ended: `token`, `closed`, `time`, `space` or `flood`."""
    said, ending, reading = b"", f"{token}\n".encode(), running.verdict.fileno()
    while True:
        ready, _, _ = select.select([reading], [], [], _LOOK_EVERY)
        chunk = os.read(reading, _LONGEST_RESULT) if ready else b""
        said += chunk
        told = said[:_LONGEST_RESULT].decode("utf-8", "replace")
        if ready and not chunk:
            with suppress(subprocess.TimeoutExpired):  # its status comes a moment after its pipe closes
                running.process.wait(1)
            return told, "closed"
        if len(said) > _LONGEST_RESULT:
            return told, "flood"
        if said.endswith(ending):
            return told, "token"
        if running.folder is not None and _files(running.folder) > _FOLDER_FILES:
            return told, "space"
        if time.monotonic() > deadline:
            return told, "time"


def _files(folder: Path) -> int:
    """Files and folders in the file system that is mounted at `folder`."""
    try:
        state = os.statvfs(folder)
    except OSError:  # the process has gone
        return 0
    return state.f_files - state.f_ffree


def _outcome(lines: list[str], ended: str, token: str, status: int) -> Outcome:
    if ended == "token" and lines[-1] == token:
        return Outcome(True, "passed")
    return Outcome(False, _reason(lines, ended, status))


def _reason(lines: list[str], ended: str, status: int) -> str:
    reasons = {
        "time": "did not end in time",
        "space": f"filled its folder: more than {_FOLDER_FILES} files",
        "flood": "wrote to the descriptor of its verdict",
    }
    if ended in reasons:
        return reasons[ended]
    ending = status - _FIRST_SIGNAL_STATUS if status > _FIRST_SIGNAL_STATUS else -status
    if ending == signal.SIGXCPU:
        return "used up its CPU time"
    if lines:
        return lines[0]
    return f"ended by signal {ending}" if ending > 0 else f"left with status {status} before its tests were done"
