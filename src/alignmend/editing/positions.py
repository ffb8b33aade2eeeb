"""Token ids of edited prompts, and the place of a subject's last token among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from alignmend.editing.requests import EditRequest
from alignmend.errors import ParameterError


@dataclass(frozen=True)
class Located:
    """A prompt's token ids with the index of its subject's last token."""

    ids: list[int]
    subject: int


def locate_subject(tokenizer: Any, before: str, subject: str, after: str) -> Located:
    """`before + subject + after` in tokens, and the last token of `subject`.

    By the characters that each token covers, where the tokenizer tells; else by the length of the tokens of
    `before + subject`. `ParameterError` where the two disagree, or the found token does not end the subject.
    """
    text = before + subject + after
    subject = subject.rstrip()  # a space behind it belongs to what follows
    end = len(before) + len(subject)
    ids = _ids(tokenizer, text)
    by_length = len(_ids(tokenizer, before + subject)) - 1
    by_offset = _by_offset(tokenizer, text, end)
    index = by_length if by_offset is None else by_offset
    if by_offset is None and not _ends_with(tokenizer, ids[: index + 1], subject):
        raise ParameterError(f"no token of {text!r} ends where {subject!r} does: it merges with what follows")
    return Located(ids, index)


def target_ids(tokenizer: Any, request: EditRequest) -> list[int]:
    """The target's tokens as they follow the prompt."""
    return answer_ids(tokenizer, request.prompt, request.target, request.joint)


def answer_ids(tokenizer: Any, prompt: str, answer: str, joint: str | None = None) -> list[int]:
    """The tokens of `answer` as they follow `prompt`: after `joint`, by default a space unless the prompt ends in one.

    Those that the whole text has behind the prompt's own; where a token goes across the joint, those of the answer
    inside a line, without the mark that some tokenizers put before every text. `ParameterError` where there are none.
    """
    if joint is None:
        joint = "" if prompt.endswith((" ", "\n")) else " "
    said = joint + answer.strip()
    ids = next(
        (found for head in (prompt, *_HEADS) if (found := _behind(tokenizer, head, said))), _plain(tokenizer, said)
    )
    beginning = getattr(tokenizer, "bos_token_id", None)
    ids = [token for token in ids if token != beginning or beginning is None]
    if not ids:
        raise ParameterError(f"the target {answer!r} has no tokens")
    return ids


_HEADS = ("\n", ".", "(")
"""Texts behind which no tokenizer puts a mark before a word."""


def _plain(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _behind(tokenizer: Any, head: str, text: str) -> list[int]:
    """What the tokens of `head + text` have behind those of `head`; nothing where they begin otherwise."""
    alone, whole = _plain(tokenizer, head), _plain(tokenizer, head + text)
    return whole[len(alone) :] if alone and whole[: len(alone)] == alone else []


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text)["input_ids"])


def _by_offset(tokenizer: Any, text: str, end: int) -> int | None:
    """The token that covers the character before `end`; special tokens cover none."""
    if not getattr(tokenizer, "is_fast", False):
        return None
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    covering = [index for index, (start, stop) in enumerate(offsets) if start < end <= stop and stop > start]
    return covering[-1] if covering else None


def _ends_with(tokenizer: Any, ids: list[int], subject: str) -> bool:
    return "".join(tokenizer.decode(ids).split()).endswith("".join(subject.split()))
