"""A filter of system calls (seccomp) for a sandboxed program: what would take memory or processes past its limits.

The walls of the sandbox are its namespaces. This closes what they leave open: limits of memory and CPU hold for one
process, so there is no second one; and the kernel holds shared memory, keys and rings outside every limit.
"""

from __future__ import annotations

import platform
import struct
import sys

_NOT_PERMITTED, _NOT_IMPLEMENTED = 1, 38
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_THREAD = 0x00010000
_FOREIGN = 0x40000000
"""Numbers from here on belong to another calling convention of x86-64."""

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE_3 = 435
_EVERYWHERE = (425, 447)
"""io_uring_setup, memfd_secret."""
_REFUSED = {
    "x86_64": {
        "fork, vfork": (57, 58),
        "socket": (41,),
        "shared memory, semaphores, message queues": (29, 64, 68, 240, 319),
        "keys": (248, 249, 250),
        "ptrace, unshare, setns": (101, 272, 308),
        "bpf, perf_event_open, userfaultfd": (321, 298, 323),
    },
    "aarch64": {
        "socket": (198,),
        "shared memory, semaphores, message queues": (194, 190, 186, 180, 279),
        "keys": (217, 218, 219),
        "ptrace, unshare, setns": (117, 97, 268),
        "bpf, perf_event_open, userfaultfd": (280, 241, 282),
    },
}
"""Numbers of calls. `execve` stays: the sandbox starts the interpreter by it, and limits outlive it."""


def call_filter() -> bytes | None:
    """A Berkeley packet filter over (call number, architecture, arguments); `None` for an unknown processor."""
    machine = platform.machine()
    if machine not in _ARCHITECTURES or sys.maxsize < 2**32:
        return None
    return b"".join(_instructions(machine))


def _instructions(machine: str) -> list[bytes]:
    refused = [*_EVERYWHERE, *(number for numbers in _REFUSED[machine].values() for number in numbers)]
    return [
        _step(_LOAD, _ARCHITECTURE_AT),
        _step(_EQUAL, _ARCHITECTURES[machine], 1, 0),
        _step(_RETURN, _REFUSE | _NOT_PERMITTED),
        _step(_LOAD, _NUMBER_AT),
        _step(_AT_LEAST, _FOREIGN, 0, 1),
        _step(_RETURN, _REFUSE | _NOT_PERMITTED),
        *(step for number in refused for step in _refusal(number, _NOT_PERMITTED)),
        *_refusal(_CLONE_3, _NOT_IMPLEMENTED),  # libraries then fall back to clone, whose flags a filter can read
        _step(_EQUAL, _CLONE[machine], 0, 3),
        _step(_LOAD, _FIRST_ARGUMENT_AT),
        _step(_ANY_BIT, _THREAD, 1, 0),
        _step(_RETURN, _REFUSE | _NOT_PERMITTED),
        _step(_RETURN, _ALLOW),
    ]


def _refusal(number: int, error: int) -> list[bytes]:
    return [_step(_EQUAL, number, 0, 1), _step(_RETURN, _REFUSE | error)]


def _step(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, operand)
