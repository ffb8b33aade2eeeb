"""Where a model runs: loading it, how many prompts it takes at once, how many threads help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from alignmend.errors import FileFormatError, ParameterError, missing_extra
from alignmend.evaluation.quiet import one_line, quiet_hub
from alignmend.io.adapter_config import CONFIG_NAME
from alignmend.io.companions import by_name, find_tokenizer_files, is_whole_tokenizer, superseded
from alignmend.io.copies import copy_files
from alignmend.io.folder import is_adapter_folder
from alignmend.io.refusals import refuse_gguf
from alignmend.io.strict_json import read_object

if TYPE_CHECKING:
    import torch

LARGEST_BATCH = 256
_CONFIG_BYTES = 50_000_000
_CPU_BATCH_PARAMETERS = 1_000_000_000
_SMALL_PARAMETERS = 30_000_000
_MOST_WORKERS = 4
DTYPES = ("auto", "float32", "bfloat16", "float16")


def load_model(path: Path | str, device: str | None = None, dtype: str = "auto") -> tuple[Any, Any]:
    """Model and tokenizer of a Hugging Face folder or cached hub id, ready to answer on `device`.

    An adapter's folder is loaded onto the base that it names, with what it has of a tokenizer and a chat template in
    place of the base's. `device` is a GPU where there is one, unless given. `dtype` `auto` is float32 on a CPU, the
    stored one elsewhere.
    """
    if dtype not in DTYPES:
        raise ParameterError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    if (folder := Path(path)).is_dir() and is_adapter_folder(folder):
        return _load_adapted(folder, device, dtype)
    tokenizer = load_tokenizer(path)
    from transformers import AutoModelForCausalLM

    target = device_of(device)
    if dtype == "auto" and target.type == "cpu":
        dtype = "float32"
    try:
        with _quiet(), quiet_hub():
            model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{path}: not a model that transformers can load: {one_line(error)}") from error
    return model.to(target).eval(), tokenizer


def _load_adapted(folder: Path, device: str | None, dtype: str) -> tuple[Any, Any]:
    """The base with its adapter on top, unmerged, as PEFT runs it."""
    if find_spec("peft") is None:
        raise missing_extra("peft", "train")
    model, tokenizer = load_model(_base_of(folder), device, dtype)
    try:
        with _quiet():
            model.load_adapter(str(folder))
    except (OSError, ValueError, KeyError) as error:
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


def _base_of(folder: Path) -> str | Path:
    """The base that an adapter names: below its folder, here, or beside it; else a hub id."""
    name = read_object(
        folder / CONFIG_NAME, limit=_CONFIG_BYTES, advice="save it anew with PEFT's save_pretrained"
    ).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise FileFormatError(f"{folder / CONFIG_NAME} names no base model (base_model_name_or_path): merge it first")
    places = (folder / name, Path(name), folder.parent / name)
    return next((place for place in places if place.is_dir()), name)


def load_tokenizer(path: Path | str) -> Any:
    """The tokenizer of a Hugging Face folder or cached hub id."""
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise missing_extra("transformers", "evaluate") from error
    if not Path(path).exists() and str(path).startswith(("/", "./", "../", "~")):
        raise FileFormatError(f"{path}: no such folder; give a folder with a model, or a hub id such as org/name")
    refuse_gguf(Path(path))
    try:
        with quiet_hub():
            return AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:  # what broken files make of it
        raise FileFormatError(f"{path}: not a model that transformers can load: {one_line(error)}") from error


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
        raise ParameterError(f"device {name!r} cannot be used here ({reason}); leave it out for automatic") from error
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
    """Prompts to ask at once: all that help on a GPU, fewer the larger the model is on a CPU."""
    if not _on_cpu(model):
        return LARGEST_BATCH
    return max(1, min(LARGEST_BATCH, _CPU_BATCH_PARAMETERS // max(1, _parameter_count(model))))


@contextmanager
def few_threads(model: Any) -> Iterator[int]:
    """One thread for a tiny model on a CPU: more only wait for each other, ten times as long on busy cores.

    Yields how many batches may be worked on side by side instead: each waits for nobody.
    """
    import torch

    before = torch.get_num_threads()
    alone = _on_cpu(model) and _parameter_count(model) < _SMALL_PARAMETERS
    torch.set_num_threads(1 if alone else before)
    try:
        yield min(before, _MOST_WORKERS) if alone else 1
    finally:
        torch.set_num_threads(before)


def _on_cpu(model: Any) -> bool:
    return bool(next(model.parameters()).device.type == "cpu")


def _parameter_count(model: Any) -> int:
    return sum(int(parameter.numel()) for parameter in model.parameters())
