"""Preflight of the memory: what each step holds at most, against what the machine and its accelerator have."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignmend.io.shards import human_bytes
from alignmend.restore.parts import PARTS, Observed, Scored, Trained
from alignmend.restore.preflight_findings import Finding, note, ok, problem
from alignmend.restore.preflight_space import FLOAT, Size, trained_parameters
from alignmend.restore.request import Request

TRAINING_BYTES = 4 * FLOAT
"""Of each trained weight: itself, its gradient, the two moments of AdamW, all float32."""
LIBRARIES = 1_000_000_000
"""The interpreter with torch and transformers, generously."""
_ANSWERING = "memory to search and prove"
_CHARACTERS = 3
"""Characters in a token at the least, over long texts."""
_LOGITS = 3 * FLOAT
"""Of each logit of a training batch: itself, its float32 copy, its gradient."""
_ACTIVATIONS = 68
"""Bytes that training keeps of each token for each layer and unit of the width."""
_DTYPES = {"float32": 4, "bfloat16": 2, "float16": 2}
_CGROUP = Path("/sys/fs/cgroup")


_ROOM = 1.5
"""Times the bytes of a float32 model that must be free to load one beside what is there."""


def has_room_in_float32(size: int, device: str | None) -> bool:
    """Whether another model of `size` weights may be held as float32; no where this system does not say."""
    memory = memory_here(device)
    free = memory.accelerator if memory.has_accelerator else memory.host
    return free is not None and free > _ROOM * FLOAT * size


@dataclass(frozen=True)
class Need:
    """What a step holds: `least` without which it cannot run, `usual` with batches of the usual size."""

    name: str
    least: int
    usual: int
    on_accelerator: bool
    is_training: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes that are free; `None` where this system does not say."""

    host: int | None
    accelerator: int | None
    """`None` also where there is none."""
    has_accelerator: bool


def look_at_memory(
    request: Request, size: Size, config: Mapping[str, object], parts: Sequence[str], longest: int
) -> Iterator[Finding]:
    """Whether each step fits; `longest` is the longest pair in characters."""
    memory = memory_here(request.prompts.device)
    needs = [*needs_of(request, size, config, parts, longest, has_accelerator=memory.has_accelerator)]
    for need in needs:
        yield fits(need, memory.accelerator if need.on_accelerator else memory.host, request)
    answering = sum(need.usual for need in needs if need.name == _ANSWERING and not need.on_accelerator)
    if memory.host is not None and (held := room_to_hold(memory.host - answering)) > 0:
        yield ok("memory to switch", f"up to {human_bytes(held)} more, held so that another coefficient is fast")


def room_to_hold(free: int) -> int:
    """Bytes of directions and of the fine-tune that a search holds, beside its model: the other half is for answers."""
    return free // 2


def needs_of(
    request: Request,
    size: Size,
    config: Mapping[str, object],
    parts: Sequence[str],
    longest: int,
    *,
    has_accelerator: bool,
) -> Iterator[Need]:
    """The steps that hold a model."""
    on_device = has_accelerator and request.prompts.device != "cpu"
    yield _answering(request, size, on_device)
    if any(isinstance(PARTS[part], Trained) for part in parts):
        yield _training(request, size, config, longest, has_accelerator)
    if any(isinstance(PARTS[part], Scored) for part in parts):
        yield from _scoring(FLOAT * size.parameters, has_accelerator)
    if any(isinstance(PARTS[part], Observed) for part in parts):
        yield _observing(size, has_accelerator)


def _observing(size: Size, on_device: bool) -> Need:
    """The model in float32, and the moments, which are in memory anyway."""
    weights = FLOAT * size.parameters
    here = size.inputs + LIBRARIES + (0 if on_device else weights)
    return Need("memory for moments", here, here, on_accelerator=False)


def _scoring(weights: int, on_device: bool) -> Iterator[Need]:
    """The model in float32 where there is an accelerator there, and the sums, which are in memory anyway."""
    here = (1 if on_device else 2) * weights + LIBRARIES
    yield Need("memory to score", here, here, on_accelerator=False)
    if on_device:
        yield Need("memory to score", weights, weights + weights // 5, on_accelerator=True)


def _answering(request: Request, size: Size, on_device: bool) -> Need:
    """One model in its loading dtype: float32 on the CPU, as stored elsewhere; candidates are computed in place."""
    asked = _DTYPES.get(request.prompts.dtype)
    weights = size.parameters * asked if asked else (size.stored if on_device else FLOAT * size.parameters)
    extra = 0 if on_device else LIBRARIES
    return Need(_ANSWERING, weights + extra, weights + weights // 5 + extra, on_device)


def _training(request: Request, size: Size, config: Mapping[str, object], longest: int, on_device: bool) -> Need:
    """Training takes the accelerator where there is one; a frozen base stays as it is stored there."""
    trained = trained_parameters(size, request)
    frozen = 0 if request.training.lora_rank is None else size.stored if on_device else FLOAT * size.parameters
    least = TRAINING_BYTES * trained + frozen + (0 if on_device else LIBRARIES)
    halves = trained * _DTYPES["bfloat16"] if on_device else 0  # of the weights, for the products of mixed precision
    usual = least + halves + _batch(request, config, longest)
    return Need("memory to train", least, usual, on_device, is_training=True)


def _batch(request: Request, config: Mapping[str, object], longest: int) -> int:
    """Logits and activations of one batch of the longest pair, about.

    A layer keeps 34 bytes to each token and unit of the width in half precision, twice that in float32 (Korthikanti et
    al., arXiv 2205.05198, equation 1, without the scores of attention).
    """
    inner = config.get("text_config")
    text = {**config, **inner} if isinstance(inner, Mapping) else config
    vocabulary, width, layers = (_count(text.get(key)) for key in ("vocab_size", "hidden_size", "num_hidden_layers"))
    most = _count(text.get("max_position_embeddings")) or request.training.max_length
    tokens = request.training.batch_size * min(request.training.max_length, most, longest // _CHARACTERS + 1)
    return tokens * (_LOGITS * vocabulary + _ACTIVATIONS * width * layers)


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def fits(need: Need, free: int | None, request: Request) -> Finding:
    """Whether a step fits into the bytes that are `free`, and what to do where it does not."""
    where = "on the accelerator" if need.on_accelerator else "in memory"
    told = f"about {human_bytes(need.usual)} {where}"
    if free is None:
        return note(need.name, f"{told}; this system does not say what is free", "make sure that there is as much")
    told = f"{told}, {human_bytes(free)} free"
    if need.least > free:
        return problem(need.name, f"{told}; {human_bytes(need.least)} at the least", _remedy(need, request))
    if need.usual > free:
        return note(need.name, told, "shorten the pairs (--max-length)" if need.is_training else "--batch-size 1")
    return ok(need.name, told)


def _remedy(need: Need, request: Request) -> str:
    if need.is_training:
        smaller = "train adapters (--lora-rank 16), " if request.training.lora_rank is None else ""
        return f"{smaller}shorten the pairs (--max-length), or take a larger machine"
    if need.name == "memory to score":
        return "leave SafePatching out (--method resta,harm_direction_removal), or take a larger machine"
    other = "load it in --dtype bfloat16, " if not need.on_accelerator else "use --device cpu, "
    return f"{other}or take a larger machine"


def memory_here(device: str | None) -> Memory:
    """What is free on this machine; of accelerators only CUDA devices say."""
    import torch

    if torch.cuda.is_available():
        index = torch.device(device).index if device is not None and device.startswith("cuda") else None
        free, _ = torch.cuda.mem_get_info(index)
        return Memory(available_memory(), free, has_accelerator=True)
    return Memory(available_memory(), None, has_accelerator=torch.backends.mps.is_available())


def available_memory(information: Path = Path("/proc/meminfo"), group: Path = _CGROUP) -> int | None:
    """Bytes of memory that can be taken: what the system says, or less where a container's limit is nearer.

    On systems without `/proc/meminfo` all memory that is built in; `None` where even that is unknown.
    """
    system = _from_information(information)
    if system is None:
        try:
            system = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError):
            return None
    limit = _from_group(group)
    return system if limit is None else min(system, limit)


def _from_information(path: Path) -> int | None:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None


def _from_group(folder: Path) -> int | None:
    """The limit of a control group less what is taken for good: files that are cached give way."""
    try:
        limit = int((folder / "memory.max").read_text(encoding="ascii"))
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        counts = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):  # no such group, or no limit: then it reads `max`
        return None
    return max(0, limit - used + int(counts.get("file", 0)))
