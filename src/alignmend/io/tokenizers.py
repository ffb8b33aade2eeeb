"""Whether two models read text alike: their tokenizers' vocabularies and chat templates, from files alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MAX_BYTES = 200_000_000
_NAME = "tokenizer.json"
_OTHER_NAMES = ("tokenizer.model", "vocab.json", "vocab.txt", "merges.txt")
"""Vocabularies that are compared byte by byte, where a folder has no `tokenizer.json`."""
_TEMPLATES = ("chat_template.jinja", "tokenizer_config.json")
_SHOWN = 3


@dataclass(frozen=True)
class TokenizerDifference:
    """`moved` tokens stand for different ids, `added` are only in the second, `missing` only in the first."""

    moved: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    """Vocabulary files of other forms whose bytes differ."""
    template: bool = False
    """Whether the chat templates differ."""


def compare_tokenizers(first: Path, second: Path) -> TokenizerDifference | None:
    """The difference between the tokenizers in two folders; `None` where they agree or one has no tokenizer."""
    if not (_has_tokenizer(first) and _has_tokenizer(second)):
        return None
    template = _template(first) != _template(second)
    texts = _bytes(first / _NAME), _bytes(second / _NAME)
    before, after = map(_vocabulary, texts) if texts[0] != texts[1] else ({}, {})  # long files are slow to parse
    if before is None or after is None or texts == (None, None):
        found = TokenizerDifference(files=_different_files(first, second), template=template)
    else:
        moved = (token for token in before.keys() & after.keys() if before[token] != after[token])
        added, missing = after.keys() - before.keys(), before.keys() - after.keys()
        found = TokenizerDifference(tuple(sorted(moved)), tuple(sorted(added)), tuple(sorted(missing)), (), template)
    return None if found == TokenizerDifference() else found


def tokens_beyond(rows: int, own: Path, base: Path) -> tuple[str, ...]:
    """Tokens of the folder `own` with ids from `rows` on, which no embedding of so many rows has, by id.

    Those that the tokenizer in `base` has too are left out: some models have tokens that are never embedded.
    """
    known = token_ids(base)
    beyond = {token: number for token, number in token_ids(own).items() if number >= rows and token not in known}
    return tuple(sorted(beyond, key=lambda token: beyond[token]))


def token_ids(folder: Path) -> Mapping[str, int]:
    """Token -> id, as far as the tokenizer's files in JSON say; empty where there are none."""
    found = dict(_vocabulary(_bytes(folder / _NAME)) or {})
    for name, key in (("vocab.json", None), ("added_tokens.json", None), (_TEMPLATES[1], "added_tokens_decoder")):
        document = _document(folder / name)
        table = document if key is None else document.get(key)
        for one, other in table.items() if isinstance(table, Mapping) else ():
            token, number = (other.get("content"), one) if isinstance(other, Mapping) else (one, other)
            if isinstance(token, str) and str(number).isdecimal():
                found.setdefault(token, int(number))
    return found


def _document(path: Path) -> Mapping[str, object]:
    try:
        found = json.loads(_bytes(path) or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def listed(tokens: tuple[str, ...]) -> str:
    """The first few of `tokens` for a message."""
    more = f" and {len(tokens) - _SHOWN} more" if len(tokens) > _SHOWN else ""
    return ", ".join(map(repr, tokens[:_SHOWN])) + more


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (_NAME, *_OTHER_NAMES, *_TEMPLATES))


def _different_files(first: Path, second: Path) -> tuple[str, ...]:
    contents = ((name, _bytes(first / name), _bytes(second / name)) for name in _OTHER_NAMES)
    return tuple(name for name, one, other in contents if None not in (one, other) and one != other)


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.stat().st_size <= MAX_BYTES else None
    except OSError:
        return None


def _vocabulary(text: bytes | None) -> Mapping[str, int] | None:
    """Token -> id with added tokens; `None` where the file is absent or is none of this form."""
    try:
        document = json.loads(text or b"null")
        model = document["model"]["vocab"]
        plain = model if isinstance(model, dict) else {token: index for index, (token, _) in enumerate(model)}
        return {**plain, **{token["content"]: token["id"] for token in document.get("added_tokens", ())}}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _template(folder: Path) -> object:
    """Beside the tokenizer, or in its config."""
    try:
        return (folder / _TEMPLATES[0]).read_text(encoding="utf-8")
    except (OSError, ValueError):
        pass
    return _document(folder / _TEMPLATES[1]).get("chat_template")
