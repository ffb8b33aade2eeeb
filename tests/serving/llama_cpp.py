"""llama.cpp in this process, by its C interface: logits of a GGUF file, with a control vector or an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONTEXT = 256
F32 = 0
"""ggml's number of the type; the cache of keys and values is float16 unless told otherwise."""


def logits(
    model: Path, tokens: Sequence[int], *, control_vector: Path | None = None, adapter: Path | None = None
) -> NDArray[np.float32]:
    """[tokens, vocabulary] in float32 on one thread, with a float32 cache."""
    from llama_cpp_py_sync._cffi_bindings import get_ffi, get_lib

    ffi, library = get_ffi(), get_lib()
    loaded = library.llama_model_load_from_file(str(model).encode(), library.llama_model_default_params())
    assert loaded != ffi.NULL, f"llama.cpp does not load {model}"
    context = library.llama_init_from_model(loaded, _context_options(library))
    try:
        if control_vector is not None:
            _steer(ffi, library, context, control_vector, library.llama_model_n_layer(loaded))
        if adapter is not None:
            opened = library.llama_adapter_lora_init(loaded, str(adapter).encode())
            assert opened != ffi.NULL, f"llama.cpp does not load {adapter}"
            one, scale = ffi.new("struct llama_adapter_lora *[]", [opened]), ffi.new("float[]", [1.0])
            assert library.llama_set_adapters_lora(context, one, 1, scale) == 0
        return _decoded(ffi, library, context, tokens, _vocabulary(library, loaded))
    finally:
        library.llama_free(context)
        library.llama_model_free(loaded)


def _context_options(library: Any) -> Any:
    options = library.llama_context_default_params()
    options.n_ctx, options.n_batch, options.n_threads, options.n_threads_batch = CONTEXT, CONTEXT, 1, 1
    options.type_k = options.type_v = F32
    return options


def _vocabulary(library: Any, model: Any) -> int:
    return int(library.llama_vocab_n_tokens(library.llama_model_get_vocab(model)))


def _steer(ffi: Any, library: Any, context: Any, path: Path, layers: int) -> None:
    """As `--control-vector FILE` does: `direction.N` is row N - 1, and all layers but the first are steered."""
    from gguf import GGUFReader

    directions = {int(one.name.removeprefix("direction.")): np.array(one.data) for one in GGUFReader(str(path)).tensors}
    width = len(next(iter(directions.values())))
    rows = np.zeros((max(directions), width), np.float32)
    for number, direction in directions.items():
        rows[number - 1] = direction
    data = ffi.cast("float *", ffi.from_buffer(rows))
    assert library.llama_set_adapter_cvec(context, data, rows.size, width, 1, layers) == 0


def _decoded(ffi: Any, library: Any, context: Any, tokens: Sequence[int], vocabulary: int) -> NDArray[np.float32]:
    """Token by token, so that every position's logits are there."""
    rows = []
    for token in tokens:
        assert library.llama_decode(context, library.llama_batch_get_one(ffi.new("int32_t[]", [token]), 1)) == 0
        buffer = ffi.buffer(library.llama_get_logits_ith(context, -1), 4 * vocabulary)
        rows.append(np.frombuffer(buffer, np.float32).copy())
    return np.stack(rows)
