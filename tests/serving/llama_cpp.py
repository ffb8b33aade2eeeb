"""llama.cpp over HTTP: its own `llama-server` where it is on the path, otherwise the one in the wheel `xllamacpp`.

Float32 keys and values and no flash attention (which computes in float16): what differs then is float32 rounding.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

CONTEXT = 256
PATIENCE = 60.0
"""Seconds that a server may take to load a tiny model."""


@contextmanager
def served(model: Path, *, control_vector: Path | None = None, adapter: Path | None = None) -> Iterator[str]:
    """The address of a server of the GGUF file `model`, as long as the context lasts; skips where there is none."""
    binary = shutil.which("llama-server")
    if binary is None:
        if control_vector is not None:
            pytest.skip("llama-server is not installed, and xllamacpp takes no control vector")
        yield from _by_wheel(model, adapter)
        return
    extra = ["--control-vector", str(control_vector)] if control_vector is not None else []
    extra += ["--lora", str(adapter)] if adapter is not None else []
    yield from _by_binary([binary, "-m", str(model), *extra])


def log_probabilities(address: str, tokens: Sequence[int], vocabulary: int) -> NDArray[np.float32]:
    """Of every next token after `tokens`."""
    asked = {"prompt": list(tokens), "n_predict": 1, "n_probs": vocabulary, "temperature": 0, "cache_prompt": False}
    (answer,) = _post(f"{address}/completion", asked)["completion_probabilities"]
    found = np.full(vocabulary, np.nan, np.float32)
    for one in answer["top_logprobs"]:
        found[one["id"]] = one["logprob"]
    assert not np.isnan(found).any()
    return found


def greedy_answer(address: str, prompt: str, tokens: int) -> str:
    """By the server's own rendering of the chat template."""
    asked = {"messages": [{"role": "user", "content": prompt}], "max_tokens": tokens, "temperature": 0}
    (choice,) = _post(f"{address}/v1/chat/completions", asked)["choices"]
    return str(choice["message"]["content"])


def _by_binary(command: Sequence[str]) -> Iterator[str]:
    port = _free_port()
    options = f"--port {port} -c {CONTEXT} -np 1 -t 1 -fa off -ctk f32 -ctv f32 --no-warmup".split()
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _wait(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{process.args!r} does not serve")


def _by_wheel(model: Path, adapter: Path | None) -> Iterator[str]:
    llama: Any = pytest.importorskip("xllamacpp", reason="neither llama-server nor xllamacpp is installed")
    options = llama.CommonParams()
    options.model.path, options.port, options.n_ctx, options.n_parallel = str(model), _free_port(), CONTEXT, 1
    options.n_gpu_layers, options.cpuparams.n_threads, options.warmup, options.verbosity = 0, 1, False, 0
    options.cache_type_k = options.cache_type_v = llama.ggml_type.GGML_TYPE_F32
    options.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if adapter is not None:
        options.lora_adapters = [llama.CommonAdapterLoraInfo(str(adapter), 1.0)]
    server = llama.Server(options)  # which ends as soon as nothing holds it
    yield server.listening_address


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
        read: dict[str, Any] = json.load(reply)
    return read
