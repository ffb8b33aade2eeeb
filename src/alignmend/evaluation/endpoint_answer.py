"""One answer of a chat server, read from the several forms that servers give it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from alignmend.errors import RefusedRequestError
from alignmend.evaluation.records import FinishReason

_CUT = frozenset({"length", "max_tokens", "max_output_tokens", "model_length", "max_length"})
_FILTERED = frozenset(
    {
        "content_filter",
        "content_filtered",
        "sensitive",
        "safety",
        "prohibited_content",
        "blocklist",
        "recitation",
        "guardrail_intervened",
        "refusal",
    }
)
_FILTER_CODES = frozenset(
    {
        "content_filter",
        "content_policy_violation",
        "data_inspection_failed",
        "moderation_blocked",
        "responsibleaipolicyviolation",
    }
)
_UNANSWERABLE = frozenset({400, 403, 413, 422})
"""Statuses that may be the fault of one prompt (too long, not allowed) and say nothing of the others."""
_NO_OPTION = frozenset({"model", "messages", "max_tokens", "max_completion_tokens"})
"""A prompt can be too long for the limit: that a server names it says nothing of other prompts."""
_THOUGHTS = frozenset({"thinking", "reasoning", "reasoning_content", "reasoning_text"})


@dataclass(frozen=True)
class ChatAnswer:
    """One answer. Token counts are `None` where the server gives none; `reasoning` is what it marks as such.

    `problem` is what the server said where it gave no answer: its filter withheld it, or it rejected the prompt.
    """

    text: str
    finish_reason: FinishReason
    prompt_tokens: int | None
    response_tokens: int | None
    reasoning: str | None = None
    problem: str | None = None


def read_answer(content: Mapping[str, Any]) -> ChatAnswer:
    """The first choice of `content`, which has one; an end that nobody knows counts as one by itself."""
    choice = content["choices"][0]
    message = choice["message"]
    usage = content.get("usage")
    said = "".join(text for text, thought in _parts(message.get("content")) if not thought)
    refusal = message.get("refusal")
    texts = [said, refusal if isinstance(refusal, str) else ""]
    thoughts = [message.get("reasoning_content") or message.get("reasoning")]
    thoughts += ["".join(text for text, thought in _parts(message.get("content")) if thought)]
    return ChatAnswer(
        text="\n\n".join(text for text in texts if text),
        finish_reason=_finish(choice.get("finish_reason")),
        prompt_tokens=_count(usage, "prompt_tokens"),
        response_tokens=_count(usage, "completion_tokens"),
        reasoning="\n\n".join(text for text in thoughts if isinstance(text, str) and text) or None,
    )


def unanswered(error: RefusedRequestError, asked: Mapping[str, Any]) -> ChatAnswer | None:
    """The answer that a refused request comes to, where the fault may be its prompt's; `None` where it is not.

    A server that names one of the parameters that were `asked` would refuse every prompt.
    """
    if error.status not in _UNANSWERABLE:
        return None
    if _is_filter(error):
        return ChatAnswer("", "filter", None, None, problem=str(error))
    if error.status in (400, 422) and named_parameter(error, asked):
        return None
    return ChatAnswer("", "rejected", None, None, problem=str(error))


def named_parameter(error: RefusedRequestError, asked: Mapping[str, Any]) -> str | None:
    """The parameter of the request that the server does not take, if it names one."""
    for name in sorted(asked.keys() - _NO_OPTION):
        places = _texts(error.body)
        if any(
            place == name or f"{name!r}" in place or f"`{name}`" in place or f'"{name}"' in place for place in places
        ):
            return name
    return None


def _texts(found: Any) -> Iterator[str]:
    """Every text in an error's body, `input` left out: it quotes the prompt."""
    if isinstance(found, str):
        yield found
    elif isinstance(found, dict):
        for name, each in found.items():
            if name not in ("input", "flagged_input"):
                yield from _texts(each)
    elif isinstance(found, list):
        for each in found:
            yield from _texts(each)


def _is_filter(error: RefusedRequestError) -> bool:
    if error.code.lower() in _FILTER_CODES:
        return True
    body = error.body if isinstance(error.body, dict) else {}
    inner = body.get("error") if isinstance(body.get("error"), dict) else body
    about = inner.get("metadata") if isinstance(inner, dict) else None
    return (isinstance(about, dict) and "flagged_input" in about) or any(
        each.lower() in _FILTER_CODES for each in _texts(error.body)
    )


def _finish(reason: Any) -> FinishReason:
    name = reason.lower() if isinstance(reason, str) else ""
    return "length" if name in _CUT else "filter" if name in _FILTERED else "stop"


def _parts(content: Any) -> Iterator[tuple[str, bool]]:
    """Every text in a message's content, and whether it is a thought."""
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            yield part, False
        elif isinstance(part, dict):
            kind = part.get("type")
            if kind in _THOUGHTS:
                inside = (part[name] for name in (kind, "text", "summary", "content") if part.get(name))
                yield "".join(text for text, _ in _parts(next(inside, None))), True
            else:
                found = part.get("refusal") if kind == "refusal" else part.get("text", part.get("content"))
                yield from _parts(found if isinstance(found, str | list) else None)


def _count(usage: Any, name: str) -> int | None:
    number = usage.get(name) if isinstance(usage, dict) else None
    return number if isinstance(number, int) and number >= 0 else None
