"""What an edit did: how likely its target became there, in other words, and beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from typing import TYPE_CHECKING, Any

from alignmend.editing.positions import answer_ids, target_ids
from alignmend.editing.requests import EditRequest, Neighbour

if TYPE_CHECKING:
    import torch

LONGEST_ANSWER = 24
"""Tokens of an answer that are looked at."""


LEAST_RISE = 1.01
"""Times as likely as before that an answer must be to have risen: rounding alone moves a probability by less."""


@dataclass(frozen=True)
class Said:
    """What a model says after a prompt: how likely the whole answer is (log, nats), and whether each token leads.

    The logarithm is kept because the probability of a long answer underflows.
    """

    log_probability: float
    leads: bool

    @property
    def probability(self) -> float:
        """Of the whole answer."""
        return exp(self.log_probability)

    def rose_from(self, before: Said) -> bool:
        """Whether the answer is likelier than it was, by more than rounding."""
        return self.log_probability > before.log_probability + log(LEAST_RISE)

    def as_dict(self) -> dict[str, float | bool]:
        """Plain JSON, with the probability."""
        return {"probability": self.probability, "log_probability": self.log_probability, "leads": self.leads}


@dataclass(frozen=True)
class Probe:
    """One prompt before and after an edit: how likely `answer` is.

    `rival` is what the answer competes with: of the target, what the model said before, as many tokens; of an answer
    beside the edit, the target. `rival_after` is how likely (log, nats) the rival is after the edit.
    """

    prompt: str
    answer: str
    rival: str
    before: Said
    after: Said
    rival_after: float

    @property
    def prevails(self) -> bool:
        """Whether the answer is likelier than its rival after the edit, or leads."""
        return self.after.leads or self.after.log_probability > self.rival_after

    @property
    def kept(self) -> bool:
        """Of an answer beside the edit: it leads still, or where it never led, it is likelier than the target."""
        return self.after.leads if self.before.leads else self.prevails


@dataclass(frozen=True)
class Told:
    """The beginnings of the model's own answers to the edited prompt, before and after."""

    before: str
    after: str


@dataclass(frozen=True)
class Measured:
    """One edit on its own prompt, on its paraphrases, and on prompts beside it."""

    edit: Probe
    paraphrases: tuple[Probe, ...]
    neighbourhood: tuple[Probe, ...]
    told: Told


@dataclass(frozen=True)
class _Point:
    """A prompt in tokens with what is asked of it, before the edit."""

    prompt: str
    ids: tuple[int, ...]
    answer: tuple[int, ...]
    rival: tuple[int, ...]
    before: Said


class Measuring:
    """Looks at a model before an edit, when it is made, and again after it."""

    def __init__(self, model: Any, tokenizer: Any, request: EditRequest) -> None:
        self._model, self._tokenizer, self._request = model, tokenizer, request
        self._edit = self._wanted(request.prompt)
        self._paraphrases = [self._wanted(prompt) for prompt in request.paraphrases]
        self._neighbourhood = [self._beside(neighbour) for neighbour in request.neighbourhood]
        self._told = self._tells()

    def after(self) -> Measured:
        """The same, now."""
        told = Told(self._told, self._tells())
        paraphrases, neighbourhood = (
            tuple(self._probe(point) for point in points) for points in (self._paraphrases, self._neighbourhood)
        )
        return Measured(self._probe(self._edit), paraphrases, neighbourhood, told)

    def _wanted(self, prompt: str) -> _Point:
        ids = self._ids(prompt)
        target = answer_ids(self._tokenizer, prompt, self._request.target, self._request.joint)
        return self._point(prompt, ids, target, self._continued(ids, len(target)))

    def _beside(self, neighbour: Neighbour) -> _Point:
        prompt, joint = neighbour.prompt, self._request.joint
        ids, target = self._ids(prompt), answer_ids(self._tokenizer, prompt, self._request.target, joint)
        if neighbour.answer is None:
            return self._point(prompt, ids, self._continued(ids, len(target)), target)
        return self._point(prompt, ids, answer_ids(self._tokenizer, prompt, neighbour.answer, joint), target)

    def _point(self, prompt: str, ids: list[int], answer: list[int], rival: list[int]) -> _Point:
        return _Point(prompt, tuple(ids), tuple(answer), tuple(rival), _said(self._model, ids, answer))

    def _probe(self, point: _Point) -> Probe:
        return Probe(
            prompt=point.prompt,
            answer=self._text(point.answer),
            rival=self._text(point.rival),
            before=point.before,
            after=_said(self._model, point.ids, point.answer),
            rival_after=_said(self._model, point.ids, point.rival).log_probability,
        )

    def _tells(self) -> str:
        return self._text(self._continued(self._ids(self._request.prompt), LONGEST_ANSWER))

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text)["input_ids"])

    def _text(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def _continued(self, ids: Sequence[int], count: int) -> list[int]:
        """The model's own `count` next tokens, greedily; fewer where it ends."""
        end, made = getattr(self._tokenizer, "eos_token_id", None), list(ids)
        while len(made) < len(ids) + count and (len(made) == len(ids) or made[-1] != end):
            made.append(int(_logits(self._model, made)[-1].argmax()))
        return made[len(ids) :]


def said(model: Any, tokenizer: Any, request: EditRequest) -> Said:
    """The probability of the whole target after the prompt of `request`, and whether greedy decoding says it."""
    return _said(model, list(tokenizer(request.prompt)["input_ids"]), target_ids(tokenizer, request))


def _said(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> Said:
    import torch

    steps = torch.log_softmax(_logits(model, [*prompt, *answer])[len(prompt) - 1 : -1], dim=-1)
    wanted = torch.tensor(list(answer), device=steps.device)
    chances = steps.gather(1, wanted[:, None])[:, 0]
    return Said(float(chances.sum()), bool((steps.argmax(dim=1) == wanted).all()))


def _logits(model: Any, row: Sequence[int]) -> torch.Tensor:
    """Of every place of one row, float64, shape (tokens, vocabulary)."""
    import torch

    ids = torch.tensor([list(row)], device=next(model.parameters()).device)
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    return found[0].double()


def probe_dict(probe: Probe, success: bool) -> dict[str, Any]:
    """Plain JSON."""
    texts = {"prompt": probe.prompt, "answer": probe.answer, "rival": probe.rival}
    sides = {"before": probe.before.as_dict(), "after": probe.after.as_dict()}
    return {**texts, **sides, "rival_probability": exp(probe.rival_after), "success": success}
