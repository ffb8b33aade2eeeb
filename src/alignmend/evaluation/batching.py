"""Work in batches: one after another with fewer at once when memory runs out, or a few side by side."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from typing import TypeVar

from alignmend.errors import NoMemoryError, is_out_of_memory

Item = TypeVar("Item")
Result = TypeVar("Result")
Batches = Generator[tuple[Sequence[Item], list[Result]], None, None]
Size = Callable[[Item], int]
"""The most items of a batch, from its first."""


def one_after_another(
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], list[Result]],
    *,
    alike: Callable[[Item], object],
    size: Size[Item],
) -> Batches[Item, Result]:
    """Each batch with its results. Out of memory, a batch is tried again at half the size, which then is the largest.

    A batch has at most `size` of its first item, neighbours for which `alike` is the same. `NoMemoryError` where one
    item is too much.
    """
    start, most = 0, len(items)
    while start < len(items):
        batch = next(_cut_up(items[start:], alike, size))[:most]
        results = if_it_fits(work, batch)
        if results is None:
            most = len(batch) // 2
        else:
            yield batch, results
            start += len(batch)


def if_it_fits(work: Callable[[Sequence[Item]], Result], batch: Sequence[Item]) -> Result | None:
    """What `work` makes of `batch`, `None` where memory runs out on several items, `NoMemoryError` on one."""
    import torch

    try:
        return work(batch)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if len(batch) == 1:
            raise NoMemoryError(
                "out of memory at one prompt at a time",
                advice="free memory, or try --dtype bfloat16, a shorter --max-new-tokens, or another --device",
            ) from error
    torch.cuda.empty_cache()  # not before the error is gone, whose frames hold what failed
    return None


def side_by_side(
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], list[Result]],
    *,
    alike: Callable[[Item], object],
    size: Size[Item],
    workers: int,
    threads: int = 1,
) -> Batches[Item, Result]:
    """The same, `workers` batches at a time, each in a thread of its own for which torch takes `threads`."""
    import torch

    def halving(batch: Sequence[Item]) -> list[Result]:
        parts = one_after_another(batch, work, alike=lambda _: None, size=lambda _: len(batch))
        return [result for _, results in parts for result in results]

    batches = list(_cut_up(items, alike, size))
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads,))
    try:
        yield from zip(batches, pool.map(halving, batches), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def even_size(count: int, size: int, workers: int) -> int:
    """A batch size of at most `size` at which `workers` have about the same to do with `count` items."""
    rounds = -(-count // (size * workers))
    return max(1, -(-count // (rounds * workers))) if count else size


def _cut_up(items: Sequence[Item], alike: Callable[[Item], object], size: Size[Item]) -> Iterator[Sequence[Item]]:
    start = 0
    while start < len(items):
        first = items[start]
        kind, end = alike(first), start + size(first)
        batch = list(takewhile(lambda item, kind=kind: alike(item) == kind, items[start:end]))  # type: ignore[misc]
        yield batch
        start += len(batch)
