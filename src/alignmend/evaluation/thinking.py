"""Models that think aloud before they answer: switches of their templates, room for thoughts, tags of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from alignmend.errors import ParameterError, RecipeError
from alignmend.evaluation.reasoning import opens_thought
from alignmend.evaluation.reasoning_marks import Tags, marks_in

DEFAULT_THINKING_TOKENS = 2048
"""Room for a thought before the answer, where a model thinks aloud and nothing else was said."""

SWITCHES = ("enable_thinking", "thinking")
"""Variables by which chat templates turn thinking on and off; servers are sent both."""
_EFFORT = "reasoning_effort"
_SET_BY_TRANSFORMERS = frozenset(
    ("messages", "conversation", "chat_template", "add_generation_prompt", "continue_final_message", "tools",
     "documents", "tokenize", "padding", "truncation", "return_tensors", "return_dict")
)  # fmt: skip
_CHANNELS = "<|channel|>"
_CLOSED_LATELY = 200


@dataclass(frozen=True)
class Thinking:
    """How a model that may think aloud is asked.

    `switch` turns thinking on or off in templates that can, `template_kwargs` are variables for the chat template.
    `tokens` is the room for a thought, before and beside that of the answer (`DEFAULT_THINKING_TOKENS` where `None` and
    the model thinks aloud). `tags` are what the model puts around thoughts, where that is none of the known tags.
    """

    switch: bool | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    tokens: int | None = None
    tags: tuple[Tags, ...] = ()

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < 0:
            raise ParameterError(f"room for a thought is 0 tokens or more, not {self.tokens}")
        if reserved := sorted(_SET_BY_TRANSFORMERS & {*self.template_kwargs}):
            raise ParameterError(f"the chat template's {reserved[0]!r} is not to be set", advice="leave it out")

    def kwargs_for(self, source: str) -> dict[str, Any]:
        """What goes to a chat template with this source; `RecipeError` names what the template does not know."""
        unknown = [name for name in self.template_kwargs if not _names(source, name)]
        if unknown:
            raise RecipeError(
                f"the chat template does not use {unknown[0]!r}, so it would change nothing; {_switches_told(source)}",
                advice="correct or leave out --chat-template-kwargs",
            )
        return {**self._switched(source), **self.template_kwargs}

    def _switched(self, source: str) -> dict[str, Any]:
        if self.switch is None:
            return {}
        if known := [name for name in SWITCHES if _names(source, name)]:
            return dict.fromkeys(known, self.switch)
        if _names(source, _EFFORT) and self.switch:
            return {_EFFORT: "medium"}
        raise RecipeError(
            f"the chat template has no switch that turns thinking {'on' if self.switch else 'off'}; "
            f"{_switches_told(source)}: leave --thinking out"
            + ('; --chat-template-kwargs \'{"reasoning_effort": "low"}\' shortens it' * _names(source, _EFFORT))
        )

    def kwargs_for_server(self) -> dict[str, Any]:
        """The same for a server, whose template is not known."""
        switched = {} if self.switch is None else dict.fromkeys(SWITCHES, self.switch)
        return {**switched, **self.template_kwargs}

    def room(self, rendered_prompt: str, source: str) -> int:
        """New tokens for a thought; none where neither this nor the template tells that the model thinks aloud."""
        if self.tokens is not None:
            return self.tokens
        if opens_thought(rendered_prompt, self.tags) or self.tags:
            return DEFAULT_THINKING_TOKENS
        thinks = bool(marks_in(source)) or _CHANNELS in source
        closed = any(mark.side == "closing" for mark in marks_in(rendered_prompt[-_CLOSED_LATELY:].rstrip())[-1:])
        return DEFAULT_THINKING_TOKENS if thinks and self.switch is not False and not closed else 0

    def settings(self) -> tuple[str, ...]:
        """As records store it: only what was said."""
        switched = "" if self.switch is None else f"thinking {'on' if self.switch else 'off'}"
        given = f"template {json.dumps(dict(self.template_kwargs), sort_keys=True)}" if self.template_kwargs else ""
        tags = f"reasoning tags {' '.join(map(str, self.tags))}" if self.tags else ""
        return tuple(part for part in (switched, given, tags) if part)


def _names(source: str, name: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", source) is not None


def _switches_told(source: str) -> str:
    known = [name for name in (*SWITCHES, _EFFORT) if _names(source, name)]
    return f"it knows {', '.join(known)}" if known else "it knows no switch for thinking"
