"""Special tokens in what a model writes: some mark its thoughts, none is part of an answer."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

_THOUGHTS = ("reasoning_content", "thinking", "reasoning", "thought")


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of the tokens that `skip_special_tokens` leaves out."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return frozenset([*tokenizer.all_special_ids, *(place for place, token in added.items() if token.special)])


def without_end(tokens: Sequence[int], stop: Collection[int]) -> list[int]:
    """`tokens` without the end token behind them."""
    return [*tokens[:-1]] if tokens and tokens[-1] in stop else [*tokens]


def without_special(tokenizer: Any, text: str) -> str:
    """`text` without the special tokens that it spells out."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    spelled = {str(token) for token in (*tokenizer.all_special_tokens, *(token for token in added if token.special))}
    pattern = "|".join(re.escape(one) for one in sorted(filter(None, spelled), key=len, reverse=True))
    return re.sub(pattern, "", text).strip() if pattern else text


def by_response_template(tokenizer: Any, tokens: Sequence[int], rendered_prompt: str) -> tuple[str, str | None] | None:
    """The answer and the thought as the tokenizer's own response template reads them.

    `None` where it has none or cannot read this, for calls of tools, which are no answers in words, and where the
    answer is not what the text ends with: then a tag that the answer speaks of was taken for one.
    """
    if not tokens or getattr(tokenizer, "response_template", None) is None:
        return None
    try:
        message = tokenizer.parse_response([*tokens], prefix=rendered_prompt)
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError, re.error):
        return None  # the template that came with the model cannot read this
    if not isinstance(message, dict) or message.get("tool_calls"):
        return None
    said = message.get("content")
    thought = next((message[name] for name in _THOUGHTS if isinstance(message.get(name), str)), None)
    if not isinstance(said, str | None) or not (said or thought):
        return None
    visible = without_special(tokenizer, said or "")
    if not str(tokenizer.decode([*tokens], skip_special_tokens=True)).strip().endswith(visible):
        return None
    return visible, without_special(tokenizer, thought or "") or None
