"""Formats that weight arithmetic would get wrong: recognised by their files, refused with the way out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NoReturn

from alignmend.errors import AlignmendError, FileFormatError, UnsupportedFormatError
from alignmend.io.strict_json import shown
from alignmend.io.tensors import TensorEntry

_TO_SAFETENSORS = (
    'python -c "import sys; from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; '
    "i, o = sys.argv[1:]; M.from_pretrained(i, dtype='auto').save_pretrained(o); "
    'T.from_pretrained(i).save_pretrained(o)"'
)
_DEQUANTIZE = (
    "use the full-precision checkpoint that it was made from, or dequantize it to bfloat16 first "
    "(transformers: load it, model.dequantize(), then save_pretrained, where its quantizer allows it)"
)
_QUANTIZED_NAME = re.compile(
    r"\.(qweight|qzeros|g_idx|absmax|nested_absmax|quant_map|nested_quant_map|quant_state\..+|SCB|weight_format"
    r"|weight_scale|weight_scale_2|weight_scale_inv|weight_packed|weight_zero_point|input_scale)$"
)
_LOADED_WEIGHTS = re.compile(r"[^/]+\.(safetensors|bin)(\.index\.json)?")
_BYTE_WEIGHT = re.compile(r"(^|[._])weight$|_(proj|blocks|scales)$")


def refuse_file(path: Path, written: str) -> None:
    """Refuse a single file that is not safetensors; `written` is what the user gave."""
    if path.suffix == ".safetensors":
        return
    if path.suffix == ".gguf":
        raise _gguf(written, path.name)
    if path.suffix in {".bin", ".pt", ".pth", ".ckpt", ".pkl"}:
        raise _pickled(str(Path(written).parent), path.name)
    raise UnsupportedFormatError(f"{written} is neither a folder nor a .safetensors file: give one of these")


def refuse_folder(path: Path, written: str) -> NoReturn:
    """Say what the folder `path`, in which no safetensors weights were found, holds instead; always raises.

    `UnsupportedFormatError` for a format with a way to convert it, `FileFormatError` for nothing to convert.
    """
    names = _names(path)
    if not names:
        raise FileFormatError(f"{written} is empty: give a folder with model.safetensors")
    for pattern, refusal in _EVIDENCE:
        for name in names:
            if pattern.fullmatch(name):
                raise refusal(written, name)
    if is_unfinished(path):
        raise _unfinished(written, "an .incomplete file in .cache")
    raise FileFormatError(
        f"{written} has no weights (neither model.safetensors nor an index of shards): check the path; a hub "
        "repository without safetensors must be converted first"
    )


def refuse_gguf(path: Path) -> None:
    """Refuse a GGUF file, or a folder whose only weights are GGUF, where a loader would ask for other files."""
    if path.is_file():
        if path.suffix.lower() == ".gguf":
            raise _gguf(str(path), path.name)
    elif path.is_dir():
        names = [child.name for child in path.iterdir()]
        found = sorted(name for name in names if name.lower().endswith(".gguf"))
        if found and not any(_LOADED_WEIGHTS.fullmatch(name) for name in names):
            raise _gguf(str(path), found[0])


def is_unfinished(path: Path) -> bool:
    """Whether a hub download into the folder `path` has left unfinished parts."""
    try:
        return any((path / ".cache" / "huggingface").rglob("*.incomplete"))
    except OSError:
        return False


def refuse_quantized_config(config: Mapping[str, object], where: Path) -> None:
    """Refuse a `config.json` that declares quantized weights (bitsandbytes, GPTQ, AWQ, float8, ...)."""
    for part in (config, config.get("text_config")):
        declared = part.get("quantization_config") if isinstance(part, Mapping) else None
        if declared:
            method = declared.get("quant_method", "unknown") if isinstance(declared, Mapping) else "unknown"
            raise UnsupportedFormatError(
                f"{where} declares quantized weights (quantization_config, method {shown(method)}): {_DEQUANTIZE}"
            )


def refuse_quantized_tensors(entries: Iterable[TensorEntry]) -> None:
    """Refuse tensors that are quantized by their dtype or by their names, as their headers tell."""
    for entry in entries:
        if entry.dtype.startswith("F8"):
            raise UnsupportedFormatError(
                f"{entry.path}: tensor {shown(entry.name)} is float8 ({entry.dtype}): {_DEQUANTIZE}"
            )
        if _QUANTIZED_NAME.search(entry.name):
            raise UnsupportedFormatError(
                f"{entry.path}: tensor {shown(entry.name)} belongs to a quantized layer: {_DEQUANTIZE}"
            )
        if entry.dtype in {"U8", "I8"} and _BYTE_WEIGHT.search(entry.name):
            raise UnsupportedFormatError(
                f"{entry.path}: weight {shown(entry.name)} has dtype {entry.dtype}, so it is quantized: {_DEQUANTIZE}"
            )


def _names(path: Path) -> list[str]:
    """Names in the folder and one level below it, sorted, with `/` between; hidden ones too."""
    try:
        children = sorted(path.iterdir())
        below = [child for parent in children if parent.is_dir() for child in sorted(parent.iterdir())]
    except OSError as error:
        raise FileFormatError(f"{path} cannot be listed ({error.strerror}): check its rights") from None
    return [child.relative_to(path).as_posix() for child in [*children, *below]]


def _adapter(written: str, name: str) -> AlignmendError:
    return UnsupportedFormatError(
        f"{written} is an adapter ({name}), where a whole checkpoint is meant: give the checkpoint it "
        "belongs to, or use the adapter in the role of a delta"
    )


def _delta(written: str, name: str) -> AlignmendError:
    return UnsupportedFormatError(
        f"{written} is a stored delta ({name}), where a whole checkpoint is meant: give the checkpoint that it belongs "
        "to, or use the delta in the role of one"
    )


def _unfinished(written: str, name: str) -> AlignmendError:
    return FileFormatError(f"{written} is an unfinished download ({name}): let the download finish first")


def _zero(written: str, name: str) -> AlignmendError:
    return UnsupportedFormatError(
        f"{written} holds DeepSpeed ZeRO shards ({name}): consolidate them first:  "
        f"python -m deepspeed.utils.zero_to_fp32 {shlex.quote(written)} OUT --safe_serialization"
    )


def _distributed(written: str, name: str) -> AlignmendError:
    shards = shlex.quote(str(Path(written) / Path(name).parent))
    return UnsupportedFormatError(
        f"{written} holds FSDP shards of torch.distributed.checkpoint ({name}): consolidate them first:  "
        f"accelerate merge-weights {shards} OUT"
    )


def _gguf(written: str, name: str) -> AlignmendError:
    return UnsupportedFormatError(
        f"{written} is in the GGUF format ({name}): use the safetensors checkpoint that it was made from, or convert "
        f"it first (what quantization has lost stays lost):  alignmend convert {shlex.quote(written)} DIR"
    )


def _pickled(written: str, name: str) -> AlignmendError:
    return UnsupportedFormatError(
        f"{written} holds pickled weights ({name}), which could run any code when opened: if you trust their "
        f"origin, convert them once to safetensors:  {_TO_SAFETENSORS} {shlex.quote(written)} OUT"
    )


def _unindexed(written: str, name: str) -> AlignmendError:
    return FileFormatError(
        f"{written} has shards ({name}) but no model.safetensors.index.json: the save or download was "
        "interrupted; repeat it"
    )


def _one_level_up(written: str, name: str) -> AlignmendError:
    folder = Path(name).parent
    return FileFormatError(
        f"{written} has no weights, but its folder {folder} has: give {Path(written) / folder} if it is meant"
    )


def _unnamed(written: str, name: str) -> AlignmendError:
    return FileFormatError(
        f"{written} has no model.safetensors and no index, but {name}: give the path of that file if it is meant"
    )


_EVIDENCE: tuple[tuple[re.Pattern[str], Callable[[str, str], AlignmendError]], ...] = (
    (re.compile(r"adapter_config\.json|adapter_model\.(safetensors|bin)"), _adapter),
    (re.compile(r"delta\.safetensors"), _delta),
    (re.compile(r"[^/]+\.incomplete"), _unfinished),
    (re.compile(r"zero_to_fp32\.py|global_step[^/]*|(.*/)?(bf16_)?zero_pp_rank_.*"), _zero),
    (re.compile(r"(.*/)?([^/]+\.distcp|\.metadata)"), _distributed),
    (re.compile(r"[^/]+-\d{5}-of-\d{5}\.safetensors"), _unindexed),
    (re.compile(r"[^/]+\.safetensors"), _unnamed),
    (re.compile(r"[^/]+\.gguf"), _gguf),
    (
        re.compile(r"(?!training_args|optimizer|scheduler)[^/]+\.(bin(\.index\.json)?|pth|ckpt)|model\.pt"),
        _pickled,
    ),
    (re.compile(r"[^/]+/model\.safetensors(\.index\.json)?"), _one_level_up),
)
"""What a file's name tells about a folder without safetensors weights; the first that fits is said."""
