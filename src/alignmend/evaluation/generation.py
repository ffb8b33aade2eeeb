"""Backends turn prompts into generations. This one runs `transformers` models in this process.

Left-padded batches of similar length, from which answers that are done leave; the order and size of batches never
change what is asked of the model or what is drawn, and results come back in prompt order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from pathlib import Path
from typing import Any, Protocol

from alignmend.errors import ParameterError
from alignmend.evaluation.asking import Asking, Rendered, Wishes
from alignmend.evaluation.batching import Batches, even_size, one_after_another, side_by_side
from alignmend.evaluation.decoding import Decoded, decode, has_hooks, without_own_config
from alignmend.evaluation.devices import automatic_decoding_size, load_model
from alignmend.evaluation.fingerprint import model_fingerprint
from alignmend.evaluation.records import Generation, Prompt
from alignmend.evaluation.sampling import DEFAULT_MAX_NEW_TOKENS, Sampler, Sampling
from alignmend.evaluation.thinking import Thinking
from alignmend.execution.threads import few_threads, side_by_side_threads

__all__ = ["DEFAULT_MAX_NEW_TOKENS", "Backend", "Report", "Steer", "TransformersBackend"]

Report = Callable[[Sequence[Generation]], None]
Steer = Callable[[Any], AbstractContextManager[object]]
"""Given the model, a context in which it is steered and after which it is as it was."""


class Backend(Protocol):
    """Answers prompts. `name` is what records and results call the model."""

    @property
    def name(self) -> str: ...

    def generate(self, prompts: Sequence[Prompt], *, report: Report | None = None) -> list[Generation]:
        """One generation per prompt, in order; `report` gets each batch as soon as it is there, in any
        order.
        """
        ...


class TransformersBackend:
    """A `transformers` causal model and its tokenizer, on whatever device the model is on.

    `batch_size` is found automatically when `None`: by the model's size on a CPU, large on a GPU. Out of
    memory, batches halve, also those of a given size.
    `preset` names a way of asking (`alignmend.evaluation.templates`); `template`, `sampling` and `max_new_tokens`
    replace parts of it. `steering` is entered around the work and `steering_description` says in the records what it
    does; hooks that are on the model already stay and act too. `thinking` is about models that think aloud, whose
    thoughts do not count against `max_new_tokens`.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        batch_size: int | None = None,
        max_new_tokens: int | None = None,
        sampling: Sampling | None = None,
        preset: str = "default",
        template: str | None = None,
        system: str | None = None,
        steering: Steer | None = None,
        steering_description: str = "",
        thinking: Thinking | None = None,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise ParameterError(f"batch_size must be at least 1, not {batch_size}")
        if (steering is not None) != bool(steering_description):
            raise ParameterError("steering and steering_description go together: records must say what was steered")
        self.model, self.tokenizer = model, tokenizer
        self._batch_size, self._steering = batch_size, steering
        self._asking = Asking(
            name,
            tokenizer,
            generation_config=getattr(model, "generation_config", None),
            positions=positions_of(getattr(model, "config", None)),
            wishes=Wishes(preset, template, system, sampling, max_new_tokens, thinking or Thinking()),
            steering=steering_description,
        )

    @classmethod
    def from_folder(
        cls,
        path: Path | str,
        *,
        name: str | None = None,
        device: str | None = None,
        dtype: str = "auto",
        **options: Any,
    ) -> TransformersBackend:
        """Loads a Hugging Face folder (or cached hub id); `dtype` `auto` is float32 on a CPU, the stored one on a GPU.

        `options` are those of the class.
        """
        model, tokenizer = load_model(path, device, dtype)
        return cls(model, tokenizer, name=name or Path(path).name, **options)

    @property
    def name(self) -> str:
        """What records and results call the model."""
        return self._asking.name

    @property
    def template(self) -> str:
        """`chat` for the tokenizer's chat template, `raw` where prompts go in as they are, or another named one."""
        return self._asking.template

    @property
    def system(self) -> str | None:
        """The system prompt, where one was given."""
        return self._asking.system

    @property
    def sampling(self) -> Sampling:
        """How tokens are chosen."""
        return self._asking.sampling

    @property
    def settings(self) -> str:
        """How answers are made, as records store it: decoding, system prompt, steering."""
        return self._asking.settings

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results must know of how they were made."""
        return self._asking.notes

    def render(self, text: str) -> tuple[str, bool]:
        """What goes in for `text`, and whether the tokenizer's own special tokens belong around it."""
        return self._asking.render(text)

    def steered(self) -> AbstractContextManager[object]:
        """The context in which the model is steered; an empty one where no steering was given."""
        return nullcontext() if self._steering is None else self._steering(self.model)

    def generate(self, prompts: Sequence[Prompt], *, report: Report | None = None) -> list[Generation]:
        """One generation per prompt, in order; longest prompts are answered first, so memory peaks at the
        start.
        """
        asking, weights = self._asking, model_fingerprint(self.model)
        longest_first = sorted(asking.rendered(prompts), key=lambda one: -len(one.tokens))
        results: dict[int, Generation] = {}
        workers, threads = side_by_side_threads(self.model, len(prompts))
        with ExitStack() as stack:
            stack.enter_context(few_threads(self.model))
            stack.enter_context(self.steered())
            stack.enter_context(without_own_config(self.model))
            for batch, answers in stack.enter_context(closing(self._in_batches(longest_first, workers, threads))):
                made = [_generation(asking, *pair, weights) for pair in zip(batch, answers, strict=True)]
                results.update(zip((one.place for one in batch), made, strict=True))
                if report is not None:
                    report(made)
        return [results[place] for place in range(len(prompts))]

    def _in_batches(self, rendered: Sequence[Rendered], workers: int, threads: int) -> Batches[Rendered, Decoded]:
        size, alike = self._size, self._asking.room  # a batch shares its room, so that no row depends on its neighbours
        if workers == 1 or has_hooks(self.model):
            return one_after_another(rendered, self._decode, alike=alike, size=size)

        def even(first: Rendered) -> int:
            return even_size(len(rendered), size(first), workers) if self._batch_size is None else size(first)

        return side_by_side(rendered, self._decode, alike=alike, size=even, workers=workers, threads=threads)

    def _size(self, first: Rendered) -> int:
        """The most prompts of a batch whose longest is `first`."""
        if self._batch_size is not None:
            return self._batch_size
        return automatic_decoding_size(self.model, len(first.tokens), self._asking.room(first))

    def _decode(self, batch: Sequence[Rendered]) -> list[Decoded]:
        asking = self._asking
        room = asking.room(batch[0])
        sampler = None if asking.sampling.greedy else Sampler(asking.sampling, [one.key for one in batch], numbers=room)
        return decode(
            self.model,
            [one.tokens for one in batch],
            stop=asking.stop_tokens,
            max_new_tokens=room,
            choose=None if sampler is None else sampler.choose,
            cut=asking.cutter(batch),
        )


def _generation(asking: Asking, rendered: Rendered, answer: Decoded, weights: str) -> Generation:
    return asking.generation(rendered, answer.tokens, "stop" if answer.stopped else "length", weights)


def positions_of(config: Any) -> int | None:
    """The most tokens that a model of this configuration takes, `None` where it does not say."""
    limit = getattr(config, "max_position_embeddings", None)
    return limit if isinstance(limit, int) else None
