"""A GGUF model becomes a Hugging Face folder, read by transformers: every method then works on it.

Quantized weights are unpacked, not repaired: the folder holds the numbers that llama.cpp computes with, so the loss of
quantization stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib import metadata
from io import StringIO
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from alignmend.conversion.gguf_file import GgufFile, find_gguf, read_gguf
from alignmend.conversion.gguf_tokenizer import Speaking, given_tokenizer, tokenizer_of
from alignmend.errors import FileFormatError, ParameterError, UnsupportedFormatError, memory_told, missing_extra
from alignmend.io.card import CARD_NAME
from alignmend.io.identity import sha256_of, sha256_of_files
from alignmend.io.manifest import MANIFEST_NAME, Input, InputFile, Manifest, OutputFile, Versions, write_manifest
from alignmend.io.published import published
from alignmend.io.staging import check_space, staging

Dtype = Literal["bfloat16", "float16", "float32"]
_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
_SHARD_SIZE = "5GB"
_LIBRARIES = ("torch", "transformers", "gguf", "safetensors")
_LOSS = (
    "the weights were unpacked from blocks of small integers ({stored}): what that rounding lost stays lost, and the "
    "checkpoint that the file was made from is better where it can be had"
)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Converted:
    """A folder that was written."""

    path: Path
    manifest: Manifest

    @property
    def notes(self) -> list[str]:
        """What a user should know of it."""
        return self.manifest.notes


def convert_gguf(
    source: Path,
    out: Path,
    *,
    dtype: Dtype = "bfloat16",
    tokenizer: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Converted:
    """Write the GGUF model `source` (a file, or a folder with one) as the Hugging Face folder `out`, in `dtype`.

    The folder has weights, configuration, generation configuration, tokenizer and chat template, and appears whole or
    not at all. `tokenizer` is a folder or hub id whose tokenizer is taken instead of the file's. Raises
    `FileFormatError` for a damaged file, `UnsupportedFormatError` where transformers cannot read its architecture,
    `ParameterError`, `OutputError`, `MissingExtraError`.
    """
    if dtype not in get_args(Dtype):
        raise ParameterError(f"dtype must be one of {', '.join(get_args(Dtype))}, not {dtype!r}")
    if any(_is_absent(name) for name in ("transformers", "accelerate", "gguf")):
        raise missing_extra("transformers, accelerate and gguf", "train,gguf")
    tell = progress or (lambda what, done, total: None)
    tell("convert", 0, 3)
    file = read_gguf(find_gguf(source))
    with staging(out, key=f"{file.path} {dtype}", overwrite=overwrite) as stage:
        check_space(stage.path, file.weights * _BYTES[dtype])
        with _quiet():
            spoken = tokenizer_of(file) if tokenizer is None else given_tokenizer(tokenizer, file)
        tell("convert", 1, 3)
        with _quiet():
            _write_model(file, stage.path, dtype, spoken)
            spoken.tokenizer.save_pretrained(stage.path)
        tell("convert", 2, 3)
        manifest = _write_records(file, stage.path, out.name, dtype, spoken.notes)
        stage.publish(overwrite)
    tell("convert", 3, 3)
    return Converted(out, manifest)


def _is_absent(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return True
    return False


def _write_model(file: GgufFile, folder: Path, dtype: Dtype, spoken: Speaking) -> None:
    import torch
    from transformers import GenerationConfig

    with memory_told(f"unpacking {file.path.name}", "free memory, or convert on a larger machine"):
        model = _plain(_load(file, getattr(torch, dtype)))
        _check_finite(model, file, dtype)
        model.generation_config = GenerationConfig(
            bos_token_id=spoken.tokenizer.bos_token_id,
            eos_token_id=(spoken.ends[0] if len(spoken.ends) == 1 else list(spoken.ends)) if spoken.ends else None,
            pad_token_id=spoken.tokenizer.pad_token_id,
        )
        model.save_pretrained(folder, max_shard_size=_SHARD_SIZE)


def _load(file: GgufFile, dtype: Any) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        model, told = AutoModelForCausalLM.from_pretrained(
            file.path.parent, gguf_file=file.path.name, dtype=dtype, output_loading_info=True, trust_remote_code=False
        )
    except (ValueError, KeyError, NotImplementedError, AttributeError, TypeError) as error:
        said = " ".join(str(error).split())[:300]
        raise UnsupportedFormatError(
            f"{file.path}: transformers {metadata.version('transformers')} cannot read this model of architecture "
            f"{file.architecture!r} ({said})",
            advice="use the safetensors checkpoint that it was made from, or a newer transformers",
        ) from error
    except OSError as error:
        raise FileFormatError(f"{file.path} cannot be loaded ({' '.join(str(error).split())[:300]})") from error
    missing = sorted(told["missing_keys"])
    if missing:
        raise UnsupportedFormatError(
            f"{file.path} has no tensor for {len(missing)} weights of the model ({', '.join(missing[:3])}, ...), "
            "which would be random",
            advice="use the safetensors checkpoint that it was made from",
        )
    return model


def _plain(model: Any) -> Any:
    """The same weights in a model that knows nothing of their origin: an unpacked one refuses to be saved."""
    import torch

    config = model.config
    for name in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(config, name):
            delattr(config, name)
    config._name_or_path = ""
    with torch.device("meta"):
        plain = type(model)(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    return plain


def _check_finite(model: Any, file: GgufFile, dtype: Dtype) -> None:
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            advice = "convert to bfloat16 or float32" if dtype == "float16" else "fetch it again"
            raise FileFormatError(f"{file.path}: {name} has NaN or infinity as {dtype}", advice=advice)


def _write_records(file: GgufFile, folder: Path, name: str, dtype: Dtype, told: tuple[str, ...]) -> Manifest:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    outputs = [
        OutputFile(file=path.relative_to(folder).as_posix(), bytes=path.stat().st_size, sha256=sha256)
        for path, sha256 in zip(paths, sha256_of_files(paths), strict=True)
    ]
    loss = [_LOSS.format(stored=file.stored_as)] if file.is_quantized else []
    manifest = Manifest(
        versions=Versions(
            alignmend=metadata.version("alignmend"), libraries={one: metadata.version(one) for one in _LIBRARIES}
        ),
        expression=f"{file.path.name}, unpacked",
        parameters={"architecture": file.architecture, "formats": dict(file.formats), "dtype": dtype},
        inputs={"gguf": Input(location=str(file.path), files=[_identified(file)])},
        outputs=outputs,
        notes=[*loss, *told],
    )
    manifest = published(manifest, folder)
    (folder / CARD_NAME).write_text(_card(manifest, file, name), encoding="utf-8")
    write_manifest(folder / MANIFEST_NAME, manifest)
    return manifest


def _identified(file: GgufFile) -> InputFile:
    with file.path.open("rb") as opened:
        header = hashlib.sha256(opened.read(file.header_bytes)).hexdigest()
    size = file.path.stat().st_size
    return InputFile(file=file.path.name, bytes=size, header_sha256=header, sha256=sha256_of(file.path))


def _card(manifest: Manifest, file: GgufFile, name: str) -> str:
    licence = file.fields.get("general.license")
    front = {"library_name": "transformers", "tags": ["alignmend"]} | ({"license": licence} if licence else {})
    parts = (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {' '.join(name.split())}",
        f"Converted from the GGUF file `{file.path.name}` ({file.stored_as}) by `alignmend convert`.",
        *(f"- {note}" for note in manifest.notes),
    )
    return "\n\n".join(parts) + "\n"


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no remarks of the library; one of its bars knows no switch."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
