"""The tokenizer of a GGUF file as a Hugging Face tokenizer, with the tokens that end an answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignmend.conversion.gguf_file import GgufFile
from alignmend.errors import UnsupportedFormatError
from alignmend.io.pretrained import one_line, pretrained

_DIGITS_APART = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"})
"""Kinds whose vocabulary was learned from text with every digit apart, otherwise split as GPT-2 does (llama.cpp)."""
_AS_GPT2 = frozenset({"", "default", "gpt-2", "phi-2", "mpt", "olmo", "jina-es", "jina-de", "roberta-bpe"})
_END_KEYS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
_MARK = "ANSWER"


@dataclass(frozen=True)
class Speaking:
    """How text is put to the model."""

    tokenizer: Any
    ends: tuple[int, ...]
    """Ids of the tokens that end an answer, the tokenizer's own end token first."""
    notes: tuple[str, ...]


def tokenizer_of(file: GgufFile) -> Speaking:
    """The tokenizer in `file`; notes say what a GGUF file leaves open. Raises `UnsupportedFormatError`."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(file.path.parent, gguf_file=file.path.name, trust_remote_code=False)
    except (ImportError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        said = " ".join(str(error).split())[:300]
        raise UnsupportedFormatError(
            f"{file.path}: transformers cannot read its tokenizer ({said})",
            advice="take the tokenizer of the model that it was made from (--tokenizer)",
        ) from error
    notes = _split_as_learned(tokenizer, str(file.fields.get("tokenizer.ggml.pre", "")))
    return speaking(tokenizer, file, notes)


def given_tokenizer(place: Path | str, file: GgufFile) -> Speaking:
    """The tokenizer in the folder `place` instead of the file's own. Raises `FileFormatError`."""
    from transformers import AutoTokenizer

    return speaking(pretrained(AutoTokenizer, place), file, ())


def speaking(tokenizer: Any, file: GgufFile, notes: Iterable[str]) -> Speaking:
    """`tokenizer` with its end tokens: its own, those that `file` names, and what the chat template ends answers by."""
    named = [tokenizer.eos_token_id, *(file.fields.get(key) for key in _END_KEYS), _end_of_answers(tokenizer)]
    ends = tuple(dict.fromkeys(int(one) for one in named if one is not None))
    told = list(notes)
    if not tokenizer.chat_template:
        told.append("the file has no chat template: prompts are put as plain text, unless you add one")
    if not ends:
        told.append("the file names no end token: answers go on until they are cut")
    return Speaking(tokenizer, ends, tuple(told))


def _split_as_learned(tokenizer: Any, kind: str) -> list[str]:
    """Cut text before merging as the vocabulary was learned, where transformers does not know how; notes on the rest.

    The pieces matter where tokens would cross them: numbers, above all.
    """
    from tokenizers import Regex, pre_tokenizers

    core = getattr(tokenizer, "backend_tokenizer", None)
    splitter = getattr(core, "pre_tokenizer", None)
    if core is None or not isinstance(splitter, pre_tokenizers.ByteLevel):
        return []  # not a byte-level vocabulary, or transformers has set the kind's own expression
    if kind in _DIGITS_APART:
        digits = pre_tokenizers.Split(Regex(r"\p{N}"), behavior="isolated")
        core.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
        return []
    if kind in _AS_GPT2:
        return []
    return [
        f"text is cut before merging as GPT-2 does, for transformers does not know the way of {kind!r}: some texts, "
        "numbers above all, may become other tokens; --tokenizer takes the tokenizer of the model it was made from"
    ]


def _end_of_answers(tokenizer: Any) -> int | None:
    """The special token that the chat template puts right after an answer."""
    if not tokenizer.chat_template:
        return None
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": _MARK}]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    except Exception as error:
        raise UnsupportedFormatError(
            f"the chat template in the file cannot be used ({one_line(error)})",
            advice="take the tokenizer of the model that it was made from (--tokenizer)",
        ) from error
    after = tokenizer(text.rpartition(_MARK)[2], add_special_tokens=False)["input_ids"]
    added = tokenizer.added_tokens_decoder.get(after[0]) if after else None
    return int(after[0]) if added is not None and added.special else None
