"""Edits of what an assistant answers: a request's prompts as the user's words in the model's chat template."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from alignmend.editing.requests import HOLE, EditRequest, Neighbour
from alignmend.errors import ParameterError


def in_chat(tokenizer: Any, request: EditRequest) -> EditRequest:
    """`request` with all its prompts in the tokenizer's chat template, its target as the assistant's first words.

    Contexts that are put before a prompt stay within the user's turn. `ParameterError` without a chat template.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ParameterError("the tokenizer has no chat template", advice="edit the raw prompt instead")
    template = _asked(tokenizer, request.template)
    opening, found, _ = template.partition(request.template.strip())
    if not found or HOLE in opening:
        raise ParameterError(f"the chat template changes the prompt {request.template!r}, so its subject is lost")
    return replace(
        request,
        template=template,
        opening=opening,
        joint=_joint(tokenizer, request),
        paraphrases=tuple(_asked(tokenizer, text) for text in request.paraphrases),
        neighbourhood=tuple(Neighbour(_asked(tokenizer, one.prompt), one.answer) for one in request.neighbourhood),
    )


def _asked(tokenizer: Any, text: str) -> str:
    """The user's turn up to where the answer begins, without a beginning that the tokenizer adds by itself."""
    shown = tokenizer.apply_chat_template(_turns(text), tokenize=False, add_generation_prompt=True)
    return str(shown).removeprefix(_added(tokenizer))


def _added(tokenizer: Any) -> str:
    beginning = getattr(tokenizer, "bos_token", None)
    adds = beginning is not None and list(tokenizer("a")["input_ids"])[:1] == [tokenizer.bos_token_id]
    return beginning if adds and beginning else ""


def _joint(tokenizer: Any, request: EditRequest) -> str:
    """What the template puts between the place where the answer begins and the answer."""
    target = request.target.strip()
    turns = [*_turns(request.prompt), {"role": "assistant", "content": target}]
    whole = str(tokenizer.apply_chat_template(turns, tokenize=False)).removeprefix(_added(tokenizer))
    asked = _asked(tokenizer, request.prompt)
    between, found, _ = whole.removeprefix(asked).partition(target)
    return between if whole.startswith(asked) and found else ""


def _turns(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]
