"""What this machine has for the work: programs, device, room, rights; and what each missing extra would give."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

Level = Literal["ok", "note", "missing", "problem"]
EXTRAS = {
    "hub": "models by hub id",
    "evaluate": "evaluate, chat and vector: models that answer",
    "train": "train, run and restore --harmful-data: harm models and patches",
    "search": "the search of restore",
    "report": "pages in HTML",
    "endpoint": "evaluate --endpoint and judges that are served",
    "parquet": "suites that are published as Parquet",
    "gguf": "vector export to llama.cpp, convert",
    "vllm": "evaluate --vllm",
    "lm-eval": "evaluate --lm-eval",
    "inspect": "suites and judges in inspect",
    "completion": "completion of commands in the shell",
    "trackio": "--log-to trackio",
    "wandb": "--log-to wandb",
    "mlflow": "--log-to mlflow",
    "tensorboard": "--log-to tensorboard",
}
"""Extra -> what it gives."""
LIBRARIES = (
    "torch", "numpy", "safetensors", "pydantic", "transformers", "tokenizers", "peft", "accelerate", "huggingface-hub",
    "optuna", "jinja2", "openai", "vllm", "lm-eval", "inspect-ai", "gguf", "pyarrow",
)  # fmt: skip
_GIB = 1024**3


@dataclass(frozen=True)
class Line:
    """One thing that was looked at."""

    topic: str
    level: Level
    told: str


def library_versions() -> dict[str, str]:
    """Installed library -> version, of those that results may depend on."""
    return {name: found for name in LIBRARIES if (found := _version(name)) is not None}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def machine(folder: Path) -> tuple[Line, ...]:
    """All lines; `folder` is where outputs would be written."""
    return (*_programs(), *_device(), *_room(folder), _login(), _sandbox(), *_extras())


def _programs() -> Iterator[Line]:
    system = f"{platform.system()} {platform.machine()}"
    yield Line("alignmend", "ok", f"{metadata.version('alignmend')}, Python {platform.python_version()}, {system}")
    yield Line("libraries", "ok", ", ".join(f"{name} {version}" for name, version in library_versions().items()))


def _device() -> Iterator[Line]:
    import torch

    from alignmend.evaluation.devices import device_of
    from alignmend.execution.threads import multiplies_bfloat16

    device = device_of(None)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if device.type == "cuda":
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            told = f"cuda:{index} {torch.cuda.get_device_name(index)}, {free / _GIB:.0f} of {total / _GIB:.0f} GiB free"
            yield Line("device", "ok", told)
        bfloat16 = torch.cuda.is_bf16_supported()
    else:
        yield Line("device", "note", f"cpu, {cores} cores; no GPU that this torch can use ({torch.__version__})")
        bfloat16 = multiplies_bfloat16()
    fast = ["float32", *(["bfloat16"] if bfloat16 else []), *(["float16"] if device.type == "cuda" else [])]
    slow = "" if bfloat16 else "; bfloat16 works, but is emulated and slow"
    yield Line("dtypes", "ok" if bfloat16 else "note", f"{', '.join(fast)} in hardware{slow}")


def _room(folder: Path) -> Iterator[Line]:
    available = _available_memory()
    if available is not None:
        told = (
            f"{available / _GIB:.1f} GiB free: a loaded model in bfloat16 of up to {available / 2.5e9:.1f} B parameters"
        )
        yield Line("memory", "ok" if available > 2 * _GIB else "note", f"{told}; arithmetic on files needs about 2 GiB")
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        yield Line("disk", "problem", f"{folder} cannot be looked at ({error.strerror})")
        return
    writable = os.access(folder, os.W_OK)
    told = f"{free / _GIB:.1f} GiB free in {folder.resolve()}" + ("" if writable else ", which is not writable")
    yield Line("disk", "ok" if writable and free > 2 * _GIB else "problem" if not writable else "note", told)


def _available_memory() -> int | None:
    """Bytes, where the system tells; of a container, at most what it may use."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"MemAvailable:\s+(\d+) kB", text)
    if found is None:
        return None
    return min([int(found.group(1)) * 1024, *_container_room()])


def _container_room() -> Iterator[int]:
    place = Path("/sys/fs/cgroup")
    try:
        most, used = (place / "memory.max").read_text(), (place / "memory.current").read_text()
        yield max(0, int(most) - int(used))
    except (OSError, ValueError):
        return


def _login() -> Line:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return Line("hub", "note", "HF_HUB_OFFLINE is set: only what the cache holds")
    if _version("huggingface-hub") is None:
        return Line("hub", "missing", "huggingface_hub is not installed: folders only")
    from huggingface_hub import get_token

    if get_token() is None:
        return Line("hub", "note", "not logged in: public models only (hf auth login, or HF_TOKEN)")
    return Line("hub", "ok", "a token is there; it was not shown to anyone")


def _sandbox() -> Line:
    from alignmend.errors import SandboxError
    from alignmend.evaluation.utility.sandbox import check_sandbox

    try:
        check_sandbox()
    except SandboxError as error:
        return Line("sandbox", "note", f"HumanEval and MBPP cannot be scored: {error}")
    return Line("sandbox", "ok", "bubblewrap works: code in answers runs apart from your files")


def _extras() -> Iterator[Line]:
    """By what the package's own metadata says that each extra needs."""
    needs: dict[str, list[str]] = {}
    for requirement in metadata.requires("alignmend") or ():
        found = re.match(r"([A-Za-z0-9._-]+).*;.*extra == ['\"]([\w-]+)['\"]", requirement)
        if found is not None and found.group(1).lower() != "alignmend":
            needs.setdefault(found.group(2), []).append(found.group(1))
    for extra, gives in EXTRAS.items():
        lacking = [name for name in needs.get(extra, ()) if _version(name) is None]
        if extra in needs and not lacking:
            yield Line(f"extra {extra}", "ok", gives)
        elif lacking:
            said = f"{gives}: pip install 'alignmend[{extra}]' (lacks {', '.join(lacking)})"
            yield Line(f"extra {extra}", "missing", said)
