"""How one model is asked: requests become texts and tokens, new tokens become generations. Backends share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from alignmend.errors import RecipeError
from alignmend.evaluation.asking_notes import Probe, notes_on
from alignmend.evaluation.decoding import Cut, Decoded
from alignmend.evaluation.reasoning import split_reasoning
from alignmend.evaluation.records import FinishReason, Generation, Prompt, text_hash
from alignmend.evaluation.sampling import Sampling
from alignmend.evaluation.special_tokens import by_response_template, special_ids, without_end, without_special
from alignmend.evaluation.templates import (
    CHAT,
    Preset,
    chat_source,
    first_stop,
    get_preset,
    prompt_tokens,
    render,
    stops_of,
    template_for,
)
from alignmend.evaluation.thinking import DEFAULT_THINKING_TOKENS, Thinking


@dataclass(frozen=True)
class Rendered:
    """A prompt at its place in the order asked, as the text and the tokens that go in."""

    place: int
    prompt: Prompt
    text: str
    tokens: list[int]

    @property
    def key(self) -> str:
        """What its random numbers belong to: one prompt under several ids is drawn anew under each."""
        return f"{self.text}\n{self.prompt.suite}\n{self.prompt.id}"


@dataclass(frozen=True)
class Wishes:
    """What the caller wants of the way of asking: a preset by name, parts of it replaced by what is not `None`."""

    preset: str = "default"
    template: str | None = None
    system: str | None = None
    sampling: Sampling | None = None
    max_new_tokens: int | None = None
    thinking: Thinking = field(default_factory=Thinking)

    def sampling_for(self, generation_config: Any) -> Sampling:
        """The decoding of a model that has this generation configuration."""
        chosen = self.sampling or self.chosen.sampling_for(generation_config)
        return chosen if self.max_new_tokens is None else replace(chosen, max_new_tokens=self.max_new_tokens)

    @property
    def chosen(self) -> Preset:
        """The preset itself."""
        return get_preset(self.preset)

    @property
    def leaves_sampling_to_the_model(self) -> bool:
        """Whether the model's own generation configuration decides."""
        return self.sampling is None and self.chosen.own_sampling

    def settings(self, sampling: Sampling, *more: str) -> str:
        """How answers are made, as records store it."""
        system = f"system prompt {text_hash(self.system)[:12]}" if self.system else ""
        room = f"max_thinking_tokens={self.thinking.tokens}" if self.thinking.tokens is not None else ""
        return ", ".join(part for part in (str(sampling), system, room, *self.thinking.settings(), *more) if part)


class Asking:
    """The way of asking a model whose tokenizer and generation configuration are at hand.

    `positions` is the most tokens that prompt and answer have together, `None` where there is no limit.
    """

    def __init__(
        self,
        name: str,
        tokenizer: Any,
        *,
        generation_config: Any,
        positions: int | None,
        wishes: Wishes,
        steering: str = "",
    ) -> None:
        asked = wishes.template or wishes.chosen.template
        self.name, self.tokenizer, self.positions, self.system = name, tokenizer, positions, wishes.system
        self.template = template_for(asked, tokenizer)
        self.stops = stops_of(self.template)
        self.sampling = wishes.sampling_for(generation_config)
        self.stop_tokens = _stop_tokens(tokenizer, generation_config)
        self.thinking = wishes.thinking
        self._variables, self._source = _variables(wishes.thinking, self.template, tokenizer)
        self._special = special_ids(tokenizer) - self.stop_tokens
        self.probe = Probe(self)
        self._thinks = self.probe.text is not None and self.thinking.room(self.probe.text, self._source) > 0
        thinks = f"max_thinking_tokens={DEFAULT_THINKING_TOKENS}" if self._thinks and not wishes.thinking.tokens else ""
        self.settings = wishes.settings(self.sampling, thinks, f"steering: {steering}" if steering else "")
        self.notes = tuple(notes_on(self, asked, generation_config, own=wishes.leaves_sampling_to_the_model))

    def render(self, text: str) -> tuple[str, bool]:
        """What goes in for `text`, and whether the tokenizer's own special tokens belong around it."""
        return render(self.tokenizer, self.template, text, self.system, self._variables)

    @property
    def variables(self) -> Mapping[str, Any]:
        """What goes to the chat template beside the messages."""
        return self._variables

    def rendered(self, prompts: Sequence[Prompt]) -> list[Rendered]:
        """All prompts, in order; `RecipeError` names the first that is empty or leaves no room for an answer."""
        if self.probe.error is not None and prompts:
            raise self.probe.error
        return [self._rendered(place, prompt) for place, prompt in enumerate(prompts)]

    def _rendered(self, place: int, prompt: Prompt) -> Rendered:
        text, special = self.render(prompt.text)
        one = Rendered(place, prompt, text, prompt_tokens(self.tokenizer, text, special=special))
        if not one.tokens:
            raise RecipeError(f"prompt {prompt.id!r} of suite {prompt.suite!r} is empty", advice="leave it out")
        if self.room(one) < 1:
            raise RecipeError(
                f"prompt {prompt.id!r} of suite {prompt.suite!r} has {len(one.tokens)} tokens; model {self.name!r} "
                f"has {self.positions} positions and needs one for the answer",
                advice="shorten the prompt or leave it out",
            )
        return one

    def room(self, rendered: Rendered) -> int:
        """New tokens that a prompt may get, those of a thought among them."""
        return self.room_behind(rendered.text, len(rendered.tokens))

    def room_behind(self, text: str, tokens: int, most: int | None = None) -> int:
        """The same behind a text of so many tokens, for an answer of `most` where that is not the sampling's own."""
        wanted = (most or self.sampling.max_new_tokens) + self.thinking_room(text)
        return wanted if self.positions is None else min(wanted, self.positions - tokens)

    def thinking_room(self, text: str) -> int:
        """New tokens for a thought, beside those for the answer."""
        return self.thinking.room(text, self._source)

    def cutter(self, batch: Sequence[Rendered]) -> Cut | None:
        """What ends the rows of `batch` before a stop token does; `None` where nothing can."""
        if not self.stops and not any(self.thinking_room(one.text) for one in batch):
            return None
        return lambda row, tokens, looked_at: self.cut(batch[row].text, tokens, looked_at)

    def cut(self, text: str, tokens: Sequence[int], looked_at: int) -> Decoded | None:
        """What new tokens behind `text` come to when the template's stop strings, or the room for a thought or for the
        answer, end them.
        """
        kept = range(looked_at + 1, len(tokens) + 1)
        if self.stops and first_stop(self.text(tokens), self.stops) is not None:
            end = next((count for count in kept if first_stop(self.text(tokens[:count]), self.stops) is not None), None)
            if end is not None:
                return Decoded([*tokens[:end]], stopped=True)
        return self.used_up(text, tokens, kept, self.sampling.max_new_tokens)

    def used_up(self, text: str, tokens: Sequence[int], kept: range, most: int) -> Decoded | None:
        """`tokens` up to where their room ends: `most` of an answer, or a thought's own without an answer."""
        room = self.thinking_room(text)
        if not room or len(tokens) < most:
            return None
        if self._answers(text, tokens[: len(tokens) - most + 1]):
            ends = (count for count in kept if count >= most and self._answers(text, tokens[: count - most + 1]))
            return Decoded([*tokens[: next(ends, len(tokens))]], stopped=False)
        if len(tokens) >= room and not self._answers(text, tokens[:room]):
            return Decoded([*tokens[: max(room, kept.start)]], stopped=False)
        return None

    def _answers(self, text: str, tokens: Sequence[int]) -> bool:
        """Whether an answer has begun."""
        return bool(self.apart(tokens, text)[0])

    def text(self, tokens: Sequence[int]) -> str:
        """New tokens as text, without special ones."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def apart(self, tokens: Sequence[int], rendered_prompt: str) -> tuple[str, str | None]:
        """The visible answer and the reasoning in new tokens, by the tokenizer's own response template where it has
        one, else by tags, special tokens among them.
        """
        tags = self.thinking.tags
        if not tags and (found := by_response_template(self.tokenizer, tokens, rendered_prompt)):
            return found
        if any(token in self._special for token in tokens):
            marked = str(self.tokenizer.decode(without_end(tokens, self.stop_tokens), skip_special_tokens=False))
            visible, thought = split_reasoning(marked[: first_stop(marked, self.stops)], rendered_prompt, tags=tags)
            if thought is not None or visible != marked.strip():
                return without_special(self.tokenizer, visible), thought and without_special(self.tokenizer, thought)
        text = self.text(tokens)
        return split_reasoning(text[: first_stop(text, self.stops)], rendered_prompt, tags=tags)

    def generation(
        self, rendered: Rendered, tokens: Sequence[int], finish_reason: FinishReason, model_hash: str
    ) -> Generation:
        """The record of one answer; it ends before a stop string, and reasoning is taken out of it."""
        prompt, (response, reasoning) = rendered.prompt, self.apart(tokens, rendered.text)
        return Generation(
            suite=prompt.suite,
            prompt_id=prompt.id,
            prompt=prompt.text,
            prompt_hash=text_hash(prompt.text),
            model=self.name,
            model_hash=model_hash,
            template=self.template,
            rendered_hash=text_hash(rendered.text),
            sampling=self.settings,
            response=response,
            reasoning=reasoning,
            finish_reason=finish_reason,
            prompt_tokens=len(rendered.tokens),
            response_tokens=len(tokens),
        )


def _stop_tokens(tokenizer: Any, generation_config: Any) -> frozenset[int]:
    """End-of-sequence ids of the tokenizer and of the model's generation configuration together."""
    declared = getattr(generation_config, "eos_token_id", None)
    several = declared if isinstance(declared, list) else [declared]
    return frozenset(token for token in (*several, tokenizer.eos_token_id) if token is not None)


def _variables(thinking: Thinking, template: str, tokenizer: Any) -> tuple[dict[str, Any], str]:
    """What goes to the chat template, and its source; `RecipeError` where there is none to take it."""
    if template == CHAT:
        source = chat_source(tokenizer)
        return thinking.kwargs_for(source), source
    if thinking.switch is not None or thinking.template_kwargs:
        raise RecipeError(
            f"template {template!r} has no switches",
            advice=(
                "leave --thinking and --chat-template-kwargs out, or ask with the tokenizer's chat template "
                "(--template chat)"
            ),
        )
    return {}, ""
