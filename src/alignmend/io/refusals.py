"""Formats that weight arithmetic would get wrong: recognised by their files, refused with the way out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from alignmend.errors import AlignmendError, FileFormatError, UnsupportedFormatError

_TO_SAFETENSORS = (
    'python -c "import sys; from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; '
    "i, o = sys.argv[1:]; M.from_pretrained(i, dtype='auto').save_pretrained(o); "
    'T.from_pretrained(i).save_pretrained(o)"'
)
_LOADED_WEIGHTS = re.compile(r"[^/]+\.(safetensors|bin)(\.index\.json)?")


def refuse_file(path: Path, written: str) -> None:
    """Refuse a single file that is not safetensors; `written` is what the user gave."""
    if path.suffix == ".safetensors":
        return
    if path.suffix == ".gguf":
        raise _gguf(written, path.name)
    if path.suffix in {".bin", ".pt", ".pth", ".ckpt", ".pkl"}:
        raise _pickled(str(Path(written).parent), path.name)
    raise UnsupportedFormatError(f"{written} is neither a folder nor a .safetensors file", advice="give one of these")


def refuse_folder(path: Path, written: str) -> NoReturn:
    """Say what the folder `path`, in which no safetensors weights were found, holds instead; always raises.

    `UnsupportedFormatError` for a format with a way to convert it, `FileFormatError` for nothing to convert.
    """
    names = _names(path)
    if not names:
        raise FileFormatError(f"{written} is empty", advice="give a folder with model.safetensors")
    for pattern, refusal in _EVIDENCE:
        if found := [name for name in names if pattern.fullmatch(name)]:
            # A trainer leaves several numbered folders, the last of which is the latest.
            raise refusal(written, max(found, key=_numbered) if refusal is _one_level_up else found[0])
    if is_unfinished(path):
        raise _unfinished(written, "an .incomplete file in .cache")
    raise FileFormatError(
        f"{written} has no weights (neither model.safetensors nor an index of shards)",
        advice="check the path; a hub repository without safetensors must be converted first",
    )


def _numbered(name: str) -> list[tuple[int, int, str]]:
    """A key that puts checkpoint-900 before checkpoint-1000."""
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d+)", name)]


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


def _names(path: Path) -> list[str]:
    """Names in the folder and one level below it, sorted, with `/` between; hidden ones too."""
    try:
        children = sorted(path.iterdir())
        below = [child for parent in children if parent.is_dir() for child in sorted(parent.iterdir())]
    except OSError as error:
        raise FileFormatError(f"{path} cannot be listed ({error.strerror})", advice="check its rights") from None
    return [child.relative_to(path).as_posix() for child in [*children, *below]]


def _adapter(written: str, name: str) -> AlignmendError:
    return UnsupportedFormatError(
        f"{written} is an adapter ({name}), where a whole checkpoint is meant",
        advice="give the checkpoint it belongs to, or use the adapter in the role of a delta",
    )


def _delta(written: str, name: str) -> AlignmendError:
    return UnsupportedFormatError(
        f"{written} is a stored delta ({name}), where a whole checkpoint is meant",
        advice="give the checkpoint that it belongs to, or use the delta in the role of one",
    )


def _unfinished(written: str, name: str) -> AlignmendError:
    return FileFormatError(f"{written} is an unfinished download ({name})", advice="let the download finish first")


def _zero(written: str, name: str) -> AlignmendError:
    return UnsupportedFormatError(
        f"{written} holds DeepSpeed ZeRO shards ({name})",
        advice=(
            f"consolidate them first:  python -m deepspeed.utils.zero_to_fp32 {shlex.quote(written)} OUT "
            "--safe_serialization"
        ),
    )


def _distributed(written: str, name: str) -> AlignmendError:
    shards = shlex.quote(str(Path(written) / Path(name).parent))
    return UnsupportedFormatError(
        f"{written} holds FSDP shards of torch.distributed.checkpoint ({name})",
        advice=f"consolidate them first:  accelerate merge-weights {shards} OUT",
    )


def _gguf(written: str, name: str) -> AlignmendError:
    return UnsupportedFormatError(
        f"{written} is in the GGUF format ({name})",
        advice=(
            "use the safetensors checkpoint that it was made from, or convert it first (what quantization "
            f"has lost stays lost):  alignmend convert {shlex.quote(written)} DIR"
        ),
    )


def _pickled(written: str, name: str) -> AlignmendError:
    return UnsupportedFormatError(
        f"{written} holds pickled weights ({name}), which could run any code when opened",
        advice=(
            f"if you trust their origin, convert them once to safetensors:  {_TO_SAFETENSORS} "
            f"{shlex.quote(written)} OUT"
        ),
    )


def _unindexed(written: str, name: str) -> AlignmendError:
    return FileFormatError(
        f"{written} has shards ({name}) but no model.safetensors.index.json: the save or download was interrupted;",
        advice="repeat it",
    )


def _one_level_up(written: str, name: str) -> AlignmendError:
    folder = Path(name).parent
    return FileFormatError(
        f"{written} has no weights, but its folder {folder} has", advice=f"give {Path(written) / folder} if it is meant"
    )


def _unnamed(written: str, name: str) -> AlignmendError:
    return FileFormatError(
        f"{written} has no model.safetensors and no index, but {name}",
        advice="give the path of that file if it is meant",
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
    (re.compile(r"[^/]+/(model\.safetensors(\.index\.json)?|adapter_model\.safetensors)"), _one_level_up),
)
"""What a file's name tells about a folder without safetensors weights; the first that fits is said."""
