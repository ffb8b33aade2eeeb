"""What is seen of a way of asking before anything is asked: a request for trial, and notes on what it shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from alignmend.errors import RecipeError
from alignmend.evaluation.special_tokens import special_ids
from alignmend.evaluation.templates import AUTO, CHAT, PROBE, RAW, appends_end, chat_text, messages

if TYPE_CHECKING:
    from alignmend.evaluation.asking import Asking


class Probe:
    """A request for trial: what would go in, or why it cannot."""

    def __init__(self, asking: Asking) -> None:
        self.text: str | None = None
        self.error: RecipeError | None = None
        self.tokens: list[int] = []
        self.ended = False
        try:
            self.text, special = asking.render(PROBE)
        except RecipeError as error:
            self.error = error
        else:
            found = list(asking.tokenizer(self.text, add_special_tokens=special, verbose=False)["input_ids"])
            self.ended = appends_end(asking.tokenizer, self.text, found, special=special)
            self.tokens = found


def notes_on(asking: Asking, asked: str, generation_config: Any, *, own: bool) -> Iterator[str]:
    """What a reader must know of how a model is asked; `own`: it decodes as its generation configuration says."""
    name, tokenizer = asking.name, asking.tokenizer
    if asked == AUTO and asking.template == RAW:
        yield f"{name!r} has no chat template: prompts go in as they are (template raw)"
    penalty = getattr(generation_config, "repetition_penalty", None)
    if own and penalty not in (None, 1.0):
        yield f"the repetition penalty {penalty} in the generation configuration of {name!r} is not applied"
    if asking.probe.ended:
        yield (
            f"the tokenizer of {name!r} appends its end token {tokenizer.eos_token!r} to every text: it is left out, "
            "so that an answer can follow the prompt"
        )
    if tokenizer.bos_token_id is not None and asking.probe.tokens[:2] == [tokenizer.bos_token_id] * 2:
        yield f"prompts to {name!r} begin with {tokenizer.bos_token!r} twice: its chat template or tokenizer doubles it"
    if not asking.stop_tokens:
        yield f"{name!r} has no end token: answers end at the token limit alone"
    elif all("pad" in str(end).lower() for end in tokenizer.convert_ids_to_tokens(sorted(asking.stop_tokens))):
        yield (
            f"the only end token of {name!r} is a padding token, which models do not write: answers may run on to the "
            "token limit (set eos_token_id)"
        )
    elif asking.template == CHAT and (end := _unknown_end(asking)):
        yield (
            f"the chat template of {name!r} ends answers with {end!r}, which is no end token of its tokenizer or "
            "generation configuration: answers may run on to the token limit (set eos_token_id)"
        )


def _unknown_end(asking: Asking) -> str | None:
    """The special token right behind an answer in a conversation, where it ends no answer."""
    turns = [*messages(PROBE, asking.system), {"role": "assistant", "content": _ANSWER}]
    try:
        text = chat_text(asking.tokenizer, turns, "conversation", asking.variables, opened=False)
    except RecipeError:  # a template that is for one request alone
        return None
    behind = text.rpartition(_ANSWER)[2].strip() if _ANSWER in text else ""
    tokens = asking.tokenizer(behind, add_special_tokens=False, verbose=False)["input_ids"] if behind else []
    if not tokens or tokens[0] in asking.stop_tokens or tokens[0] not in special_ids(asking.tokenizer):
        return None
    return str(asking.tokenizer.decode(tokens[:1]))


_ANSWER = "alignmend answers 7391 !"
