"""Judges that are causal language models in this process: prompted in the form they were trained on, decoded greedily.

Where the tokenizer gives harm's label a first token of its own, `score` is the probability of that token where the
label stands. It is rounded to four decimals, since the last bits depend on what else is in a batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from alignmend.evaluation.batching import one_after_another
from alignmend.evaluation.decoding import Decoded, decode_greedily
from alignmend.evaluation.devices import automatic_batch_size, load_model
from alignmend.evaluation.fingerprint import model_fingerprint
from alignmend.evaluation.judge_cache import Reply
from alignmend.evaluation.judges.model_judge import Keep, ModelJudge, needs_model
from alignmend.evaluation.judges.registry import JudgeOptions
from alignmend.execution.threads import few_threads

SCORE_DECIMALS = 4


class ClassifierJudge(ModelJudge):
    """A classifier whose reply holds the word `harm_label` (or another label) right after the text `label_after`."""

    harm_label: str
    label_after: str = ""
    max_new_tokens: int
    special_tokens: bool = False
    """Whether the tokenizer adds its own, such as the one that begins a sequence."""

    def __init__(self, name: str, options: JudgeOptions, *, example: str, batch_size: int | None = None) -> None:
        super().__init__(name, options)
        self._path = needs_model(name, options, example)
        self._device = options.device
        self._batch_size = batch_size
        self._loaded: tuple[Any, Any] | None = None
        self._weights = ""

    @property
    def model(self) -> Any:
        """The classifier, loaded when it is first needed."""
        return self._pair()[0]

    @property
    def tokenizer(self) -> Any:
        """The classifier's tokenizer."""
        return self._pair()[1]

    def _pair(self) -> tuple[Any, Any]:
        if self._loaded is None:
            self._loaded = load_model(self._path, self._device)
            self._weights = model_fingerprint(self._loaded[0])
        return self._loaded

    @property
    @abstractmethod
    def form(self) -> str:
        """Identity of the prompt's form, with a hash."""

    @property
    def asks(self) -> str:
        """Form, model and a fingerprint of its weights."""
        self._pair()
        return f"{self.form} by {Path(self._path).name} {self._weights[:12]}"

    def ask(self, questions: Sequence[str], keep: Keep) -> None:
        """Asks all in left-padded batches, longest first; a question that does not fit the model is a problem."""
        tokens = [self.tokenizer(text, add_special_tokens=self.special_tokens)["input_ids"] for text in questions]
        room = self._positions - self.max_new_tokens
        for position in [one for one, ids in enumerate(tokens) if len(ids) > room]:
            problem = f"{len(tokens[position])} tokens; the judge's model takes {room}"
            keep(position, Reply(requests=0, problem=problem))
        order = sorted((one for one, ids in enumerate(tokens) if len(ids) <= room), key=lambda one: -len(tokens[one]))
        batches = one_after_another(
            order,
            lambda batch: self._replies_to([tokens[one] for one in batch]),
            alike=lambda one: None,
            size=lambda one: self._batch_size or automatic_batch_size(self.model),
        )
        with few_threads(self.model):
            for batch, replies in batches:
                for position, reply in zip(batch, replies, strict=True):
                    keep(position, reply)

    @property
    def _positions(self) -> int:
        limit = getattr(self.model.config, "max_position_embeddings", None)
        return limit if isinstance(limit, int) else 1 << 30

    def _replies_to(self, prompts: Sequence[list[int]]) -> list[Reply]:
        watched = label_tokens(self.tokenizer, self.harm_label)
        seen, record = _recorder(watched)
        decoded = decode_greedily(
            self.model,
            prompts,
            stop=self._stop_tokens(),
            max_new_tokens=self.max_new_tokens,
            logits_processor=record,
        )
        return [
            self._reply(ids, one, [step[row] for step in seen])
            for row, (ids, one) in enumerate(zip(prompts, decoded, strict=True))
        ]

    def _reply(self, prompt: Sequence[int], decoded: Decoded, probabilities: Sequence[float]) -> Reply:
        step = self._label_step(decoded.tokens)
        score = None if step is None else round(min(1.0, max(0.0, probabilities[step])), SCORE_DECIMALS)
        text = self._text(decoded.tokens)
        return Reply(texts=(text,), score=score, prompt_tokens=len(prompt), response_tokens=len(decoded.tokens))

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def _label_step(self, tokens: Sequence[int]) -> int | None:
        """Which new token begins the label: the first visible one after `label_after`."""
        for step in range(len(tokens)):
            before, now = self._text(tokens[:step]).rstrip(), self._text(tokens[: step + 1]).rstrip()
            if before.endswith(self.label_after) and (self.label_after or not before) and now != before:
                return step
        return None

    def _stop_tokens(self) -> frozenset[int]:
        config = getattr(self.model, "generation_config", None)
        declared = getattr(config, "eos_token_id", None)
        several = declared if isinstance(declared, list) else [declared]
        return frozenset(token for token in (*several, self.tokenizer.eos_token_id) if token is not None)


def label_tokens(tokenizer: Any, label: str) -> frozenset[int]:
    """Tokens that `label` can begin with, at the start of a text or after a space."""
    found = set()
    for spelled in (label, f" {label}"):
        for token in tokenizer(spelled, add_special_tokens=False)["input_ids"]:
            if piece := tokenizer.decode([token]).strip():
                if label.startswith(piece):
                    found.add(int(token))
                break
    return frozenset(found)


def _recorder(watched: frozenset[int]) -> tuple[list[list[float]], Callable[[Any, Any], Any]]:
    """A list that fills with each step's probability of `watched`, by row, and the function that fills it."""
    seen: list[list[float]] = []
    columns = sorted(watched)

    def record(ids: Any, scores: Any) -> Any:
        seen.append(scores.float().softmax(dim=-1)[:, columns].sum(dim=-1).tolist())
        return scores

    return seen, record
