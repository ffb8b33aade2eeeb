"""One model in a conversation: it hears all that was said, and says its answer piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alignmend.errors import RecipeError, memory_told
from alignmend.evaluation.asking import Asking, Wishes
from alignmend.evaluation.decoding import without_own_config
from alignmend.evaluation.generation import positions_of
from alignmend.evaluation.sampling import Sampler, Sampling
from alignmend.evaluation.templates import prompt_tokens
from alignmend.evaluation.thinking import Thinking
from alignmend.execution.threads import few_threads
from alignmend.restore.chat_text import Message, Pieces, render_all

if TYPE_CHECKING:
    from alignmend.activations.steering import Steering
    from alignmend.activations.vector import SteeringVector

Said = Callable[[str], None]


@dataclass(frozen=True)
class Answer:
    """What was said; `reasoning` apart from it. `interrupted`: the user stopped it, and this is what there was."""

    text: str
    finish_reason: Literal["stop", "length", "interrupted"]
    tokens: int
    reasoning: str | None = None


class Speaker:
    """A `transformers` model and its tokenizer, with the steering vector that belongs to it, if any.

    `template` is `auto` (the tokenizer's chat template, or `raw` without one), `chat` or another named template;
    `thinking` is about models that think aloud, whose thoughts have room of their own.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        template: str | None = None,
        steered: tuple[SteeringVector, Steering] | None = None,
        thinking: Thinking | None = None,
    ) -> None:
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.vector: SteeringVector | None = None if steered is None else steered[0]
        self.how: Steering | None = None if steered is None else steered[1]
        self.steering = steered is not None
        self._asking = Asking(
            name,
            tokenizer,
            generation_config=getattr(model, "generation_config", None),
            positions=positions_of(getattr(model, "config", None)),
            wishes=Wishes(template=template, thinking=thinking or Thinking()),
        )

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        name: str | None = None,
        device: str | None = None,
        dtype: str = "auto",
        template: str | None = None,
        steering: bool = True,
        thinking: Thinking | None = None,
    ) -> Speaker:
        """A folder or cached hub id, also an adapter's; `steering` false leaves its own vector out for now."""
        from alignmend.activations.attached import attached
        from alignmend.restore.loading import load

        found = attached(folder)
        model, tokenizer = load(folder, device=device, dtype=dtype, steering=False)
        made = cls(
            model, tokenizer, name=name or Path(folder).name, template=template, steered=found, thinking=thinking
        )
        made.steering = steering and found is not None
        return made

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the answers must know of how they are made."""
        return self._asking.notes

    @property
    def template(self) -> str:
        """The template in use."""
        return self._asking.template

    def set_coefficient(self, coefficient: float) -> None:
        """Steer this strongly; `ParameterError` where it is no finite number."""
        if self.how is None:
            raise TypeError("callers look for a vector first")
        self.how, self.steering = replace(self.how, coefficient=coefficient), True

    def steered(self) -> AbstractContextManager[object]:
        """The context in which the model is steered, where steering is on."""
        if not self.steering or self.vector is None or self.how is None:
            return nullcontext()
        return self.vector.steer(self.model, self.how)

    def answer(self, messages: Sequence[Message], sampling: Sampling, said: Said = lambda piece: None) -> Answer:
        """The answer to the last of `messages`; `said` gets its pieces. Ctrl-C ends it early and is no error.

        `RecipeError` where the template refuses the messages, or they leave no room for an answer.
        """
        text, special = render_all(self.tokenizer, self.template, messages, self._asking.variables)
        tokens = prompt_tokens(self.tokenizer, text, special=special)
        room = self._room(text, len(tokens), sampling.max_new_tokens)
        pieces = Pieces(self._asking.text, self._asking.stops, said)
        try:
            with memory_told(
                "answering", "shorten the conversation (/undo, /reset) or the answer (/tokens), or free memory"
            ):
                self._generate(tokens, pieces, sampling, text, room)
            interrupted = False
        except KeyboardInterrupt:
            interrupted = True
        pieces.end()
        return self._finished(pieces, text, interrupted=interrupted)

    def _room(self, text: str, length: int, wanted: int) -> int:
        positions, room = self._asking.positions, self._asking.room_behind(text, length, wanted)
        if length == 0 or room < 1:
            problem = "is empty" if length == 0 else f"has {length} tokens, and {self.name} has {positions} positions"
            raise RecipeError(f"the conversation {problem}", advice="shorten it (/undo, /reset), or say something")
        return room

    def _generate(self, tokens: list[int], pieces: Pieces, sampling: Sampling, text: str, room: int) -> None:
        import torch
        from transformers import GenerationConfig

        stop = self._asking.stop_tokens
        ids = torch.tensor([tokens], device=next(self.model.parameters()).device)
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=room,
            eos_token_id=sorted(stop) or None,
            pad_token_id=min(stop, default=0),
        )
        drawn = None if sampling.greedy else [_drawn(Sampler(sampling, [text], numbers=room), len(tokens))]

        def ended(ids: Any, scores: Any) -> Any:
            heard = pieces.tokens
            used_up = self._asking.used_up(text, heard, range(len(heard), len(heard) + 1), sampling.max_new_tokens)
            return torch.full((1,), pieces.stopped or used_up is not None, device=ids.device)

        with ExitStack() as stack:
            stack.enter_context(few_threads(self.model))
            stack.enter_context(self.steered())
            stack.enter_context(without_own_config(self.model))
            stack.enter_context(torch.inference_mode())
            self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                generation_config=config,
                logits_processor=drawn,
                streamer=pieces,
                stopping_criteria=[ended],
            )

    def _finished(self, pieces: Pieces, rendered: str, *, interrupted: bool) -> Answer:
        text, reasoning = self._asking.apart(pieces.tokens, rendered)
        last = pieces.tokens[-1] if pieces.tokens else None
        stopped = pieces.stopped or last in self._asking.stop_tokens
        reason: Any = "stop" if stopped else "interrupted" if interrupted else "length"
        return Answer(text, reason, len(pieces.tokens), reasoning)


def _drawn(sampler: Sampler, prompt_length: int) -> Callable[[Any, Any], Any]:
    def force(ids: Any, logits: Any) -> Any:
        """Logits that leave the greedy choice no choice."""
        chosen = sampler.choose(logits, [0], ids.shape[1] - prompt_length)
        return logits.new_full(logits.shape, float("-inf")).scatter_(1, chosen[:, None], 0.0)

    return force
