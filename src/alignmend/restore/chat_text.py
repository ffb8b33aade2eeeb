"""Conversations as the text that goes in, and tokens as the pieces of text that come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from alignmend.evaluation.templates import CHAT, TEMPLATES, Template, first_stop, render_chat

Message = dict[str, str]
_BEFORE_ANSWER: Mapping[str, str] = {"raw": "", "alpaca": "\n"}
_AFTER_ANSWER: Mapping[str, str] = {"alpaca": "\n\n", "vicuna": "{eos}", "llama-2-chat": " {eos}{bos}"}
_BROKEN = "\ufffd"


def render_all(
    tokenizer: Any,
    template: str,
    messages: Sequence[Message],
    variables: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[str, bool]:
    """The text that goes in, and whether the tokenizer's own special tokens belong around it.

    `messages` are an optional system prompt, then the user's and the assistant's in turn, the user's last. A plain
    template is repeated for every turn, as its format is; `raw` is the text so far, a line for each turn. `variables`
    are for a chat template.
    """
    if template != CHAT:
        return _rendered(TEMPLATES[template], messages, tokenizer), True
    return render_chat(tokenizer, messages, "conversation", variables), False


def _rendered(template: Template, messages: Sequence[Message], tokenizer: Any) -> str:
    system = messages[0]["content"] if messages[0]["role"] == "system" else None
    turns = messages[1:] if system else messages
    before = _BEFORE_ANSWER.get(template.name, " ")
    special = {"{eos}": tokenizer.eos_token or "", "{bos}": tokenizer.bos_token or ""}
    after = _AFTER_ANSWER.get(template.name, "\n")
    for name, token in special.items():
        after = after.replace(name, token)
    text = template.render(turns[0]["content"], system)
    for answer, prompt in zip(turns[1::2], turns[2::2], strict=True):
        opening, _, closing = template.form.replace("{before}", "").partition("{prompt}")
        text += before + answer["content"] + after + opening + prompt["content"] + closing
    return text


class Pieces:
    """Listens to tokens as `generate` makes them, and passes on what is sure of their text.

    Not yet sure are characters of which tokens are missing, and what may become one of `stops`. `stopped` says that one
    came; nothing from there on is passed on.
    """

    def __init__(self, text: Callable[[Sequence[int]], str], stops: Sequence[str], said: Callable[[str], None]) -> None:
        self.tokens: list[int] = []
        self.stopped = False
        self._text, self._stops, self._said = text, stops, said
        self._heard_prompt = False
        self._done = 0

    def put(self, tokens: Any) -> None:
        """The prompt the first time, then one token after another."""
        if not self._heard_prompt:
            self._heard_prompt = True
            return
        self.tokens += tokens.reshape(-1).tolist()
        text = self._text(self.tokens)
        if (place := first_stop(text, self._stops)) is not None:
            self.stopped = True
            self._pass_on(text[:place])
        else:
            self._pass_on(text[: self._sure(text)])

    def end(self) -> None:
        """Pass on the rest; may be called again."""
        text = self._text(self.tokens)
        self._pass_on(text[: first_stop(text, self._stops)])

    def _pass_on(self, text: str) -> None:
        if len(text) > self._done:
            piece, self._done = text[self._done :], len(text)
            self._said(piece)

    def _sure(self, text: str) -> int:
        end = len(text.rstrip(_BROKEN))
        for stop in self._stops:
            lengths = range(min(len(stop) - 1, end), 0, -1)
            end -= next((length for length in lengths if text[:end].endswith(stop[:length])), 0)
        return end
