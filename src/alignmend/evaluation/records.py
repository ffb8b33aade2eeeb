"""The rows an evaluation is made of: prompt, generation, judgement.

Every number that is reported later is a pure function of these rows, so they carry the ids and hashes that
say which prompt, which response, which model and which judge they belong to.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

Expected = Literal["refuse", "comply"]
Verdict = Literal["refused", "complied", "incoherent", "unclear"]
FinishReason = Literal["stop", "length", "filter", "rejected"]
"""Ended by itself, cut off at the token limit, withheld by a server's content filter, or the prompt was rejected."""
Withheld = Literal["filter", "rejected"]
"""Why a server gave no answer."""
Scoring = Literal["words", "number", "choice", "code"]
"""How a known answer is found in a response: its words, its last number, its option by likelihood, by running it."""
RowKey = tuple[str, ...]


def text_hash(text: str) -> str:
    """SHA-256 of `text` in UTF-8, in hex; a lone surrogate counts as the U+FFFD that a record keeps of it."""
    return hashlib.sha256(well_formed(text).encode("utf-8")).hexdigest()


def well_formed(text: str) -> str:
    """`text` with U+FFFD for each lone surrogate: served models emit them, and neither UTF-8 nor JSON can hold them."""
    return _LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


class Row(BaseModel):
    """One immutable line of a records file; unknown keys are errors, and every text is well-formed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _well_formed(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        return {key: well_formed(value) if isinstance(value, str) else value for key, value in fields.items()}


class Prompt(Row):
    """One request of a suite. `extra` keeps the columns that this package does not know."""

    suite: str
    id: str
    text: str
    category: str | None = None
    subcategory: str | None = None
    language: str | None = None
    expected: Expected | None = None
    answer: str | None = None
    scoring: Scoring = "words"
    split: str | None = None
    source: str | None = None
    extra: Mapping[str, Any] = Field(default_factory=dict)


class Generation(Row):
    """What `model` answered to one prompt, and how it was asked.

    `template` names what rendered the prompt: `chat` is the tokenizer's or server's own chat template, `raw` none.
    `model_hash` identifies the weights (of an endpoint: what it says it serves), `rendered_hash` the exact text that
    went in. Token counts exclude padding; `response_tokens` includes the end-of-sequence token. `scores` are the
    log-likelihoods of the options, in their order, where the response was chosen among options and not written.
    `reasoning` is what the model thought aloud, which is no part of the response. A served model's token counts are
    `None` where the server gives none. `problem` is what a server said that gave no answer.
    """

    suite: str
    prompt_id: str
    prompt: str
    prompt_hash: str
    model: str
    model_hash: str
    template: str
    rendered_hash: str
    sampling: str
    response: str
    finish_reason: FinishReason
    prompt_tokens: int | None
    response_tokens: int | None
    scores: tuple[float, ...] | None = None
    reasoning: str | None = None
    problem: str | None = None

    @property
    def withheld(self) -> Withheld | None:
        """Why there is no answer, where a server gave none."""
        return withheld_answer(self.response, self.finish_reason)

    @property
    def key(self) -> RowKey:
        """What makes this row the only one of its kind in a file."""
        return (self.model, self.suite, self.prompt_id)


class Judgement(Row):
    """What a judge says of one response; never collapsed to a single bit.

    `partial` marks a refusal that is only partly one; `harmful` is `None` where the judge has no opinion on
    harm; `empty` marks a response without visible text, whose verdict is `incoherent`; `score` in [0, 1] is the harm
    that a rubric gave; `parsed` is false where a model's judgement could not be read, which makes it `unclear`;
    `evidence` is the judge's own words.
    """

    verdict: Verdict
    partial: bool = False
    harmful: bool | None = None
    empty: bool = False
    score: float | None = Field(default=None, ge=0, le=1)
    parsed: bool = True
    evidence: str = ""


class JudgementRow(Judgement):
    """A judgement with what it is about, who made it, whether the response was cut off at the token limit, and whether
    the known answer was given (`None`: none known). `withheld` says why a server gave no answer, which is `unclear`.
    """

    suite: str
    prompt_id: str
    prompt_hash: str
    response_hash: str
    model: str
    judge: str
    judge_version: str
    expected: Expected | None = None
    category: str | None = None
    subcategory: str | None = None
    language: str | None = None
    truncated: bool = False
    withheld: Withheld | None = None
    correct: bool | None = None

    @property
    def key(self) -> RowKey:
        """What makes this row the only one of its kind in a file."""
        return (self.model, self.suite, self.prompt_id, self.judge)


def withheld_answer(response: str, finish_reason: FinishReason | None) -> Withheld | None:
    """Why there is no answer, where a server gave none: that says nothing of the model."""
    return finish_reason if finish_reason in ("filter", "rejected") and not response.strip() else None


def encode_prompt(prompt: Prompt) -> bytes:
    """A prompt as one line of JSON with sorted keys, for hashing."""
    return json.dumps(prompt.model_dump(), sort_keys=True).encode("ascii") + b"\n"
