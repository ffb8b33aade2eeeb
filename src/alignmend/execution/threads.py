"""How many threads to use, and in which numbers a processor is fast.

By what a process may use: the cores of its affinity and the quota of its control group; `OMP_NUM_THREADS` of the user's
wins. Not by how busy the machine is: that changes while a job runs, and threads that do not spin do no harm there.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignmend.errors import ParameterError

MAX_THREADS = 256
DEFAULT_MOST = 8
"""More threads than this rarely help: the disk or the memory is the limit."""
SMALL_PARAMETERS = 30_000_000
"""Below it the threads of one product of matrices only wait for each other."""
_LARGE_PARAMETERS = 1_000_000_000
_MOST_SMALL = 4
_LEAST_ROWS = 4
"""Prompts that are worth a worker of their own."""
_CGROUP = Path("/sys/fs/cgroup")


def thread_count(threads: int | None) -> int:
    """The number of threads to use: as asked, else one per available core, at most `DEFAULT_MOST`."""
    if threads is None:
        return min(available_cores(), DEFAULT_MOST)
    if not 1 <= threads <= MAX_THREADS:
        raise ParameterError(f"threads is a number from 1 to {MAX_THREADS}, not {threads}")
    return threads


def available_cores(group: Path = _CGROUP) -> int:
    """Cores that this process may use: those of its affinity, or fewer where the quota of a container says so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(group)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _quota(group: Path) -> float | None:
    """Cores' worth of time that the control group gives, version 2 or 1; `None` where it gives all."""
    try:
        limit, period = (group / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            limit, period = ((group / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except (OSError, ValueError):
            return None
    try:
        return float(limit) / float(period) if float(limit) > 0 else None
    except (ValueError, ZeroDivisionError):  # no limit: it reads `max`
        return None


@contextmanager
def few_threads(model: Any) -> Iterator[None]:
    """One thread for a tiny model on a CPU: more only wait for each other, ten times as long on busy cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1 if on_cpu(model) and parameter_count(model) < SMALL_PARAMETERS else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def side_by_side_threads(model: Any, rows: int) -> tuple[int, int]:
    """How many batches of `rows` prompts to work on side by side, and how many threads torch takes for each.

    Batches wait for nobody, threads of one batch do. A large model is read from memory once for all threads instead.
    """
    import torch

    threads, parameters = torch.get_num_threads(), parameter_count(model)
    if not on_cpu(model) or parameters >= _LARGE_PARAMETERS:
        return 1, threads
    if parameters < SMALL_PARAMETERS:
        return min(threads, _MOST_SMALL), 1
    workers = max(1, min(threads, DEFAULT_MOST, rows // _LEAST_ROWS))
    return workers, threads // workers


def on_cpu(model: Any) -> bool:
    """Whether the weights of `model` are in the processor's memory."""
    return bool(next(model.parameters()).device.type == "cpu")


def parameter_count(model: Any) -> int:
    """Parameters, each once."""
    return sum(int(parameter.numel()) for parameter in model.parameters())


def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16 matrices: AMX, or AVX-512 with BF16.

    With them a pass takes half to a third of the time that it takes in float32; without them several times as long.
    """
    import torch

    asked = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(supported() for supported in asked if supported is not None)
