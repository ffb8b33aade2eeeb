"""Runs one untrusted program and its tests; started by `sandbox.py` in a bare interpreter, never imported.

The job comes as JSON on standard input. The descriptor that it names gets a line when the limits are set, and the token
only after the last test, so a program that leaves early, however quietly, has not passed.
"""

from __future__ import annotations

import builtins
import json
import os
import resource
import sys
import types


def main() -> None:
    """Reads the job, binds itself, runs program and tests."""
    job = json.loads(sys.stdin.buffer.read())
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.close(nothing)
    limit(job["limits"], strict=job["strict"])
    write, encode, run, result = os.write, str.encode, exec, job["result"]
    write(result, b"ready\n")
    try:
        tests = compile(job["tests"], "<tests>", "exec")
        program = compile(job["program"], "<program>", "exec")
        module = types.ModuleType("program")
        sys.modules["program"] = module
        before = dict(vars(builtins))
        run(program, vars(module))
        vars(builtins).update(before)
        run(tests, vars(module))
    except BaseException as error:
        write(result, encode(f"{type(error).__name__}: {error}"[:500] + "\n", "utf-8", "replace"))
        raise
    write(result, encode(job["token"] + "\n"))


def limit(limits: dict[str, int], *, strict: bool) -> None:
    """Binds this process for good; where not `strict`, as far as the system can (macOS has some only in name)."""
    seconds = limits["cpu"]
    for which, soft, hard in (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_CPU, seconds, seconds + 1),
        (resource.RLIMIT_AS, limits["memory"], limits["memory"]),
        (resource.RLIMIT_FSIZE, limits["file"], limits["file"]),
        (resource.RLIMIT_NOFILE, limits["open"], limits["open"]),
    ):
        ceiling = resource.getrlimit(which)[1]
        most = hard if ceiling == resource.RLIM_INFINITY else min(hard, ceiling)
        try:
            resource.setrlimit(which, (min(soft, most), most))
        except (OSError, ValueError):
            if strict:
                raise


if __name__ == "__main__":
    main()
