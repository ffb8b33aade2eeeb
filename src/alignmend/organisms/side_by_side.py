"""Several trainings at once, each on one thread of its own.

Two threads in one small training would wait for each other at every operation: hardly faster on an idle machine, and
on a busy one twenty times slower. It also makes the result depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock
from typing import Any

Step = Callable[[float], None]
Job = Callable[[Step], Any]


class _StoppedError(Exception):
    """Another training failed, or the user interrupted."""


def side_by_side(
    jobs: Mapping[str, Job], report: Callable[[str, float], None], threads: int
) -> Iterator[tuple[str, Any]]:
    """Run `jobs` by name, at most `threads` at once, and yield their results in order.

    A job gets a function to call at every step with the share that is done, which `report` gets with the job's name.
    The first error, or an interruption, ends the others at their next step.
    """
    import torch

    stopped, reporting = Event(), Lock()

    def step(name: str, share: float) -> None:
        if stopped.is_set():
            raise _StoppedError
        with reporting:
            report(name, share)

    def run(name: str) -> Any:
        torch.set_num_threads(1)  # of this thread alone
        return jobs[name](lambda share: step(name, share))

    pool = ThreadPoolExecutor(min(threads, len(jobs)), thread_name_prefix="alignmend")
    try:
        running = [(name, pool.submit(run, name)) for name in jobs]
        for name, future in running:
            yield name, future.result()
    finally:
        stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)
