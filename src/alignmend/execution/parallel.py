"""A few threads over many small jobs: results in order, a bounded number under way, the first error stops all."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from threading import Condition, local
from typing import TypeVar

import torch

State = TypeVar("State")
Job = TypeVar("Job")
Result = TypeVar("Result")

_JOBS_PER_THREAD = 4


class _UnderWay:
    """Counts the jobs that run. An interrupt while a thread starts hides that thread from its pool, which then cannot
    wait for it; the job that it runs is waited for here, and one that it has not begun is left undone.
    """

    def __init__(self) -> None:
        self._changed, self._running, self._closed = Condition(), 0, False

    def begin(self) -> bool:
        with self._changed:
            if not self._closed:
                self._running += 1
            return not self._closed

    def end(self) -> None:
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let no job begin any more, and wait for those that run."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: self._running == 0)


def in_order(
    jobs: Iterable[Job], make_state: Callable[[], State], work: Callable[[State, Job], Result], threads: int
) -> Iterator[tuple[Job, Result]]:
    """Yield (job, work(state, job)) in the order of `jobs`; each thread has its own state.

    However it ends, also by Ctrl-C, no job runs afterwards.
    """
    states, running = local(), _UnderWay()

    def start_thread() -> None:
        torch.set_num_threads(1)  # the parallelism is ours; set per thread, since the setting is too
        states.own = make_state()

    def run(job: Job) -> Result:
        if not running.begin():
            raise CancelledError
        try:
            return work(states.own, job)
        finally:
            running.end()

    threads_before = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="alignmend", initializer=start_thread)
    under_way: deque[tuple[Job, Future[Result]]] = deque()
    try:
        for job in jobs:
            under_way.append((job, pool.submit(run, job)))
            if len(under_way) > _JOBS_PER_THREAD * threads:
                oldest, future = under_way.popleft()
                yield oldest, future.result()
        for waiting, future in under_way:
            yield waiting, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        running.close()
        torch.set_num_threads(threads_before)
