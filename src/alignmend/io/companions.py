"""What lies beside the weights of a checkpoint and belongs to it: config, tokenizer, templates, licence."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from alignmend.errors import FileFormatError
from alignmend.io.links import is_own_file, own_file

_BELONGS = re.compile(
    r".*\.(json|jinja|txt|model|model\.v\d+|tiktoken|py|vocab|bpe)"
    r"|additional_chat_templates/[^/]+\.jinja"
    r"|(LICEN[CS]E|NOTICE|COPYING|USE_POLICY)[^/]*",
    re.IGNORECASE,
)
_STAYS = re.compile(
    r".*\.index\.json|alignmend[.-].*|adapter_config\.json|(trainer|training)_.*|optimizer.*|scheduler.*|.*results.*\.json"
    r"|zero_to_fp32\.py|requirements.*\.txt|latest.*",
    re.IGNORECASE,
)
_TEMPLATES = "additional_chat_templates"
_CONFIG = "tokenizer_config.json"
_CONFIGS = frozenset({"config.json", "generation_config.json"})
_MAIN_TEMPLATE = re.compile(r"chat_template\.[^/]+")
_TEMPLATE = re.compile(rf"{_MAIN_TEMPLATE.pattern}|{_TEMPLATES}/[^/]+")
_VOCABULARY = re.compile(r"tokenizer\.json|tekken\.json|vocab\.[^/]+|[^/]+\.(model|model\.v\d+|tiktoken|vocab|bpe)")
_BESIDE = re.compile(r"tokenizer[^/]*\.json|merges\.txt|special_tokens_map\.json|added_tokens\.json")


def find_companions(folder: Path) -> tuple[Path, ...]:
    """Files of `folder` that an output made from its checkpoint must carry too, sorted by name.

    Weights, indexes, trainer state, adapters, manifests and `README.md` are not among them, nor links to unrelated
    files. Raises `FileFormatError` for such a link in place of a file without which the model does not load.
    """
    return _found(folder, lambda name: True)


def find_tokenizer_files(folder: Path) -> tuple[Path, ...]:
    """Those companions in `folder` that decide how text is put to a model: tokenizer and chat templates.

    Raises `FileFormatError` for a link to an unrelated file.
    """
    return _found(folder, is_tokenizer_file)


def unrelated_links(folder: Path) -> tuple[str, ...]:
    """Names of links in `folder` that would be companions if they did not lead to unrelated files."""
    return tuple(
        name for name, path in _candidates(folder).items() if _is_companion(name, path) and _is_left(folder, path)
    )


def is_tokenizer_file(name: str) -> bool:
    """Whether a companion's name (relative, with `/`) is a tokenizer's or a chat template's."""
    return any(pattern.fullmatch(name) for pattern in (_TEMPLATE, _VOCABULARY, _BESIDE))


def by_name(folder: Path, files: Iterable[Path]) -> dict[str, Path]:
    """Files below `folder` by their relative names, with `/`."""
    return {path.relative_to(folder).as_posix(): path for path in files}


def is_whole_tokenizer(own: Mapping[str, Path]) -> bool:
    """Whether the tokenizer files `own` (by name) load without those of a base."""
    return _CONFIG in own and any(_VOCABULARY.fullmatch(name) for name in own)


def decides_template(own: Mapping[str, Path]) -> bool:
    """Whether the tokenizer files `own` (by name) say what the chat template is; a tokenizer's config may say none."""
    return _CONFIG in own or any(map(_MAIN_TEMPLATE.fullmatch, own))


def superseded(name: str, own: Mapping[str, Path]) -> bool:
    """Whether the base's companion `name` must give way to an adapter's tokenizer files `own` (by name).

    Beside a whole tokenizer nothing of the base's may stay: loaders would mix the two. A template in a file of its own
    goes before one in a config, so the base's file would hide the adapter's.
    """
    if _TEMPLATE.fullmatch(name) and decides_template(own):
        return True
    return name in own or (is_tokenizer_file(name) and is_whole_tokenizer(own))


def _found(folder: Path, wanted: Callable[[str], bool]) -> tuple[Path, ...]:
    found = {name: path for name, path in _candidates(folder).items() if wanted(name) and _is_companion(name, path)}
    return tuple(own_file(folder, path) for path in found.values() if not _is_left(folder, path))


def _candidates(folder: Path) -> dict[str, Path]:
    try:
        return by_name(folder, sorted([*folder.iterdir(), *(folder / _TEMPLATES).glob("*")]))
    except OSError as error:
        raise FileFormatError(f"{folder} cannot be listed ({error.strerror})", advice="check its rights") from None


def _is_left(folder: Path, path: Path) -> bool:
    """A link to an unrelated file that the model can do without."""
    name = path.relative_to(folder).as_posix()
    needed = name in _CONFIGS or is_tokenizer_file(name)
    return not needed and path.is_symlink() and not is_own_file(folder, path)


def _is_companion(name: str, path: Path) -> bool:
    is_ours = not name.startswith(".") and _BELONGS.fullmatch(name) and not _STAYS.fullmatch(name)
    return bool(is_ours) and path.is_file()
