"""Where a model runs: loading it, and how many prompts it takes at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from alignmend.errors import FileFormatError, ParameterError, is_out_of_memory, missing_extra
from alignmend.evaluation.quiet import quiet_hub
from alignmend.evaluation.weights import load_weights
from alignmend.execution.threads import SMALL_PARAMETERS, multiplies_bfloat16, on_cpu, parameter_count
from alignmend.io.adapter_config import CONFIG_NAME
from alignmend.io.companions import by_name, find_tokenizer_files, is_whole_tokenizer, superseded
from alignmend.io.copies import copy_files
from alignmend.io.folder import is_adapter_folder
from alignmend.io.pretrained import one_line, pretrained
from alignmend.io.published import noted_base
from alignmend.io.refusals import refuse_gguf
from alignmend.io.strict_json import read_object

if TYPE_CHECKING:
    import torch

LARGEST_BATCH = 256
_CONFIG_BYTES = 50_000_000
_CPU_BATCH_PARAMETERS = 1_000_000_000
_CPU_ROWS = 128
"""Rows at which a product of matrices runs at nearly full speed on a core."""
_PROMPT_TOKENS = 16_384
"""Of all prompts of a batch on a CPU, which are read at once."""
_LEAST_CACHE_ROOM = 512 * 2**20
DTYPES = ("auto", "float32", "bfloat16", "float16")


def load_model(path: Path | str, device: str | None = None, dtype: str = "auto") -> tuple[Any, Any]:
    """Model and tokenizer of a Hugging Face folder or cached hub id, ready to answer on `device`.

    An adapter's folder is loaded onto the base that it names, with what it has of a tokenizer and a chat template in
    place of the base's. `device` is a GPU where there is one, unless given. `dtype` `auto` is the stored one on a GPU;
    on a CPU float32, or bfloat16 where it is stored so and the processor multiplies it faster.
    """
    if dtype not in DTYPES:
        raise ParameterError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    if (folder := Path(path)).is_dir() and is_adapter_folder(folder):
        return _load_adapted(folder, device, dtype)
    tokenizer = load_tokenizer(path)
    target = device_of(device)
    with _quiet(), quiet_hub():
        chosen = dtype == "auto" and target.type == "cpu"
        model = _for_processor(path) if chosen else load_weights(path, dtype)
    return model.to(target).eval(), tokenizer


def _for_processor(path: Path | str) -> Any:
    if multiplies_bfloat16():
        model = load_weights(path, "auto")
        if str(model.dtype) == "torch.bfloat16" and parameter_count(model) >= SMALL_PARAMETERS:
            return model
    return load_weights(path, "float32")


def _load_adapted(folder: Path, device: str | None, dtype: str) -> tuple[Any, Any]:
    """The base with its adapter on top, unmerged, as PEFT runs it."""
    if find_spec("peft") is None:
        raise missing_extra("peft", "train")
    model, tokenizer = load_model(base_of(folder), device, dtype)
    try:
        with _quiet():
            model.load_adapter(str(folder))
    except Exception as error:  # damaged files lead the library into errors of any type
        if is_out_of_memory(error):
            raise
        raise FileFormatError(f"{folder}: its adapter cannot be loaded: {one_line(error)}") from error
    return model.eval(), adapted_tokenizer(folder, tokenizer)


def adapted_tokenizer(folder: Path, base: Any) -> Any:
    """The tokenizer of the adapter in `folder`: its own, or the `base` tokenizer with what the folder has of one."""
    own = by_name(folder, find_tokenizer_files(folder))
    if is_whole_tokenizer(own):
        return load_tokenizer(folder)
    if not own:
        return base
    with TemporaryDirectory() as place:
        mixed = Path(place)
        base.save_pretrained(mixed)
        for name, path in by_name(mixed, [path for path in mixed.rglob("*") if path.is_file()]).items():
            if superseded(name, own):
                path.unlink()
        copy_files(own, mixed)
        return load_tokenizer(mixed)


def base_of(folder: Path) -> str | Path:
    """The base that an adapter names: below its folder, here, or beside it; else a hub id."""
    name = read_object(
        folder / CONFIG_NAME, limit=_CONFIG_BYTES, advice="save it anew with PEFT's save_pretrained"
    ).get("base_model_name_or_path")
    if (not isinstance(name, str) or not name) and (noted := noted_base(folder)) is not None:
        return Path(noted)
    if not isinstance(name, str) or not name:
        raise FileFormatError(
            f"{folder / CONFIG_NAME} names no base model (base_model_name_or_path)", advice="merge it first"
        )
    places = (folder / name, Path(name), folder.parent / name)
    return next((place for place in places if place.is_dir()), name)


def load_tokenizer(path: Path | str) -> Any:
    """The tokenizer of a Hugging Face folder or cached hub id."""
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise missing_extra("transformers", "evaluate") from error
    if not Path(path).exists() and str(path).startswith(("/", "./", "../", "~")):
        raise FileFormatError(
            f"{path}: no such folder;", advice="give a folder with a model, or a hub id such as org/name"
        )
    refuse_gguf(Path(path))
    with quiet_hub():
        return pretrained(AutoTokenizer, path)


def device_of(name: str | None) -> torch.device:
    """The device `name`, or the best that is there; `ParameterError` where it cannot be used."""
    import torch

    if name in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ParameterError(
            f"device {name!r} cannot be used here ({reason});", advice="leave it out for automatic"
        ) from error
    return device


@contextmanager
def _quiet() -> Iterator[None]:
    """No loading bars of the library: progress is the caller's to show."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def automatic_batch_size(model: Any) -> int:
    """Texts to read at once: all that help on a GPU, fewer the larger the model is on a CPU."""
    if not on_cpu(model):
        return LARGEST_BATCH
    return max(1, min(LARGEST_BATCH, _CPU_BATCH_PARAMETERS // max(1, parameter_count(model))))


def automatic_decoding_size(model: Any, prompt: int, new: int) -> int:
    """Prompts of at most `prompt` tokens to answer at once, by at most `new` tokens each.

    Every token passes over all weights, so many rows cost little more than one, until the processor is the limit.
    """
    if not on_cpu(model):
        return LARGEST_BATCH
    rows = max(_CPU_ROWS, automatic_batch_size(model))
    by_cache = cache_room(model) // ((prompt + new) * _cache_bytes(model))
    return max(1, min(rows, by_cache, _PROMPT_TOKENS // prompt))


def cache_room(model: Any) -> int:
    """Bytes of keys and values that one batch may hold on a CPU, about."""
    weights = sum(int(parameter.numel()) * int(parameter.element_size()) for parameter in model.parameters())
    return max(_LEAST_CACHE_ROOM, weights // 8)


def _cache_bytes(model: Any) -> int:
    """Bytes of keys and values of one token; 1 where the configuration does not tell, as of models without them."""
    config = model.config.get_text_config(decoder=True)
    names = ("num_hidden_layers", "num_attention_heads", "hidden_size")
    layers, heads, hidden = (int(getattr(config, name, 0) or 0) for name in names)
    held = int(getattr(config, "num_key_value_heads", 0) or heads)
    width = int(getattr(config, "head_dim", 0) or hidden // max(1, heads))
    element = int(next(model.parameters()).element_size())
    return max(1, 2 * layers * held * width * element)
