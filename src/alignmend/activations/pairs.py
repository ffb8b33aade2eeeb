"""Contrast pairs: a prompt with a safe and an unsafe answer, and the text that a model reads of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alignmend.errors import FileFormatError, ParameterError

TextForm = Literal["chat", "raw", "released-code"]
"""`chat`: the chat template, the answer begun; `raw`: question and answer as the paper prints them; `released-code`:
the same without full stops and outer spaces, as its code makes them."""

REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I cannot assist with this request.",
    "I won't help with that, because it could hurt someone.",
    "Sorry, that is something I have to decline.",
    "I can't provide that. If you like, I can help with something safe instead.",
    "No. This could cause harm, so I will not describe how to do it.",
)
"""Refusals in several phrasings: the safe side where a user has none."""


@dataclass(frozen=True)
class ContrastPair:
    """One prompt with a `safe` and an `unsafe` answer."""

    prompt: str
    safe: str
    unsafe: str


class _Row(BaseModel):
    model_config = ConfigDict(extra="allow")

    prompt: str = Field(min_length=1)
    safe: str = Field(min_length=1)
    unsafe: str = Field(min_length=1)


def read_pairs(path: Path | str) -> tuple[ContrastPair, ...]:
    """The pairs of a JSONL file with `prompt`, `safe` and `unsafe`; `FileFormatError` names the line."""
    try:
        lines = Path(path).read_bytes().decode("utf-8-sig").split("\n")
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path}: not UTF-8 (byte {error.start});", advice="save the file as UTF-8") from None
    pairs = [_pair(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not pairs:
        raise FileFormatError(
            f"{path}: holds no pairs; one JSON object with prompt, safe and unsafe is needed on each line"
        )
    return tuple(pairs)


def _pair(line: str, where: str) -> ContrastPair:
    try:
        row = _Row.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        column = ".".join(map(str, first["loc"])) or "row"
        raise FileFormatError(f"{where}: {column}: {first['msg']}; prompt, safe and unsafe are needed") from None
    return ContrastPair(row.prompt, row.safe, row.unsafe)


def pairs_from_prompts(prompts: Sequence[str], answers: Sequence[str]) -> tuple[ContrastPair, ...]:
    """Pairs where only prompts are at hand: shipped refusals as the safe side, a model's own `answers` as the other."""
    if len(prompts) != len(answers) or not prompts:
        raise ParameterError(f"one answer to each prompt is needed: {len(prompts)} prompts, {len(answers)} answers")
    together = enumerate(zip(prompts, answers, strict=True))
    return tuple(ContrastPair(prompt, REFUSALS[i % len(REFUSALS)], answer) for i, (prompt, answer) in together)


def pairs_hash(pairs: Sequence[ContrastPair]) -> str:
    """SHA-256 over all pairs in order."""
    text = json.dumps([asdict(pair) for pair in pairs], sort_keys=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def token_ids(tokenizer: Any, prompt: str, answer: str, form: TextForm) -> list[int]:
    """What a model reads of one side of a pair. Nothing follows the answer, so its end is what is pooled."""
    if form == "chat":
        if not getattr(tokenizer, "chat_template", None):
            raise ParameterError("the tokenizer has no chat template", advice="use text form 'raw'")
        message = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True) + answer
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    text = f"Question: {prompt}\n    Answer: {answer}"
    if form == "released-code":
        text = text.strip(" .")
    elif form != "raw":
        raise ParameterError(f"the text form is 'chat', 'raw' or 'released-code', not {form!r}")
    return list(tokenizer(text)["input_ids"])
