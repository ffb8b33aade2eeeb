"""The one place where `transformers` loads something: no code of a model's own is run, and nobody is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignmend.errors import FileFormatError, is_out_of_memory
from alignmend.io.strict_json import read_object, shown

_LONGEST = 300
GENERATION_CONFIG = "generation_config.json"
_GENERATION_BYTES = 10_000_000
_JSON_FILES = (
    "config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "chat_template.json",
)
_LARGEST = 500_000_000
_SHAPES = "ignore_mismatched_sizes"
_SHAPES_SAID = "its weights have other shapes than its config.json says: they do not belong together"
_OWN_CODE = "trust_remote_code"


def pretrained(kind: Any, place: Path | str, **options: Any) -> Any:
    """`kind.from_pretrained(place)` of what a folder or a hub id holds.

    Raises `FileFormatError` for whatever the library makes of damaged files, and where they need code of their own.
    """
    _check_generation_config(place)
    try:
        loaded = kind.from_pretrained(place, trust_remote_code=False, **options)
    except Exception as error:  # damaged files lead it into errors of any type
        if is_out_of_memory(error):
            raise
        if _OWN_CODE in str(error):
            raise FileFormatError(
                f"{place}: it can only be loaded by code that comes with it, which is never run",
                advice="use a model whose architecture transformers has, or a newer transformers",
            ) from error
        _blame_file(place)
        said = _SHAPES_SAID if _SHAPES in str(error) else one_line(error)
        raise FileFormatError(f"{place}: not a model that transformers can load: {said}") from error
    _check_length(loaded, place)
    return loaded


def _check_length(loaded: Any, place: Path | str) -> None:
    """The library takes a tokenizer's longest text as it stands there, and fails when one is read."""
    longest = getattr(loaded, "model_max_length", 0)
    if isinstance(longest, bool) or not isinstance(longest, (int, float)):
        raise FileFormatError(
            f"{place}: tokenizer_config.json: model_max_length must be a number, not {shown(longest)}"
        )


def _blame_file(place: Path | str) -> None:
    """Raises `FileFormatError` for the first file of the folder that is not what its name says."""
    for name in _JSON_FILES:
        path = Path(place) / name
        if path.exists():
            read_object(path, limit=_LARGEST, advice="it is damaged: download it anew")


def one_line(error: BaseException, limit: int = _LONGEST) -> str:
    """What an error of a library says, without its line breaks; its type where that says nothing."""
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    text = " ".join(str(error).split())
    if isinstance(error, (KeyError, AttributeError, TypeError, IndexError)) or not text:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _check_generation_config(place: Path | str) -> None:
    """The library passes over a file that is no JSON, and answers would then end and be drawn otherwise."""
    path = Path(place) / GENERATION_CONFIG
    if not path.is_file():
        return
    advice = "download it anew, or remove it to use the library's defaults"
    said = read_object(path, limit=_GENERATION_BYTES, advice=advice)
    for name in ("eos_token_id", "pad_token_id", "bos_token_id"):
        value = said.get(name)
        ids = value if isinstance(value, list) and name == "eos_token_id" else [] if value is None else [value]
        if not all(isinstance(one, int) and not isinstance(one, bool) for one in ids):
            raise FileFormatError(f"{path}: {name} must be the number of a token, not {shown(value)}", advice=advice)
    for name in ("temperature", "top_p", "top_k", "repetition_penalty"):
        value = said.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise FileFormatError(f"{path}: {name} must be a number, not {shown(value)}", advice=advice)
