"""The command that starts a program inside bubblewrap: its own namespaces, a read-only system, nothing of ours.

No network, no other processes, no /proc, none of our files beside the system's and the interpreter's, an empty
environment, no privileges, one small private folder.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from alignmend.evaluation.utility.call_filter import call_filter

HOME = "/tmp"
"""The private folder, inside."""
_NOBODY = "65534"
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
_LOADER = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives")


def unfit() -> str | None:
    """Why bubblewrap cannot be used on this system, before trying; `None` where it may work."""
    if sys.platform != "linux":
        return "bubblewrap, which runs such code apart from your files, is for Linux only"
    if shutil.which("bwrap") is None:
        return "bubblewrap (bwrap), which runs such code apart from your files, is not installed"
    if call_filter() is None:
        return "no filter of system calls is known for this processor"
    return None


@contextmanager
def filter_file() -> Iterator[int]:
    """A descriptor from which bubblewrap reads its filter."""
    with tempfile.TemporaryFile() as file:
        file.write(call_filter() or b"")
        file.seek(0)
        yield file.fileno()


def wrapped(command: Sequence[str], *, calls: int, told: int, folder_bytes: int) -> list[str]:
    """`command` inside bubblewrap; `calls` is the filter's descriptor, `told` one that gets the process's id."""
    private = ["--perms", "0700", "--size", str(folder_bytes), "--tmpfs", HOME, "--chdir", HOME]
    return [
        shutil.which("bwrap") or "bwrap",
        *("--unshare-all", "--unshare-user", "--uid", _NOBODY, "--gid", _NOBODY, "--cap-drop", "ALL"),
        *("--die-with-parent", "--new-session"),
        *_read_only(),
        *("--dev", "/dev", "--remount-ro", "/dev"),
        *private,
        *("--remount-ro", "/"),
        *("--clearenv", "--setenv", "PATH", os.defpath, "--setenv", "HOME", HOME, "--setenv", "TMPDIR", HOME),
        *("--setenv", "PYTHONHASHSEED", "0"),  # the order of sets is the same in every run
        *("--seccomp", str(calls), "--info-fd", str(told)),
        "--",
        *command,
    ]


def _read_only() -> Iterator[str]:
    """The system's programs and libraries, and the interpreter's own."""
    for place in _SYSTEM:
        if Path(place).is_symlink():
            yield from ("--symlink", str(Path(place).readlink()), place)
        elif Path(place).is_dir():
            yield from ("--ro-bind", place, place)
    for place in _LOADER:
        yield from ("--ro-bind-try", place, place)
    prefix = Path(sys.base_prefix).resolve()
    if not any(prefix.is_relative_to(place) for place in _SYSTEM):
        yield from ("--ro-bind", str(prefix), str(prefix))
