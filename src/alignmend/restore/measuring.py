"""Measures candidates on one loaded model, cheapest first: likelihoods, then some answers, then all of them.

Every candidate answers the same prompts, so candidates are compared pairwise. Losers stop early; their numbers so far
are kept for the search, but only candidates that were measured whole can be chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from alignmend.activations.pairs import REFUSALS
from alignmend.algebra.values import Checkpoint
from alignmend.errors import MismatchError
from alignmend.evaluation.generation import Steer, TransformersBackend
from alignmend.evaluation.judges import Judge
from alignmend.evaluation.records import Generation, JudgementRow
from alignmend.evaluation.run import Evaluation, evaluate
from alignmend.evaluation.suites import Suite
from alignmend.evaluation.utility.likelihood import LogLikelihood, log_likelihoods
from alignmend.execution.in_place import InPlace
from alignmend.restore.request import Prompts
from alignmend.restore.scoring import Worth, accuracies, likelihood_ratio, rates, relative
from alignmend.restore.suites import Split, by_kind, kind_of

Told = Callable[[int, int], None]
"""Called with answers made and answers in all."""
Pair = tuple[str, str]
"""A request and an answer to it."""

_REFUSALS = 24
"""Refusals whose likelihood ranks candidates before any answer is made."""
_KEPT = 48
"""Answers of the fine-tune whose likelihood tells how far a candidate has moved."""
_FIRST_SHARE = 3
"""One in so many prompts is asked before a candidate may be called a loser."""


@dataclass(frozen=True)
class Anchor:
    """Texts whose likelihood is compared, and their log-likelihoods under the fine-tune."""

    pairs: tuple[Pair, ...]
    before: tuple[float, ...]
    tokens: tuple[int, ...]

    @property
    def per_token(self) -> float:
        """Mean log-likelihood of a token under the fine-tune."""
        return sum(self.before) / max(1, sum(self.tokens))


@dataclass(frozen=True)
class Baseline:
    """The fine-tune and its aligned parent on the search prompts, and the texts that both leave behind."""

    finetuned: Evaluation
    worth: Worth
    aligned: Worth | None
    """`None` where the parent's weights do not have the fine-tune's shapes."""
    refusals: Anchor
    aligned_refusals: float
    """Mean log-likelihood of a token of the refusals under the aligned model; under the fine-tune where it is not."""
    kept: Anchor
    kept_name: str
    """`task data`, or `drift`: the fine-tune's own answers."""


@dataclass(frozen=True)
class Screen:
    """The first stage, from likelihoods alone."""

    progress: float
    """How far refusals have come back: 0 at the fine-tune, 1 at the aligned model."""
    utility: float


class Measuring:
    """A loaded model, the prompts of a search and a judge."""

    def __init__(self, place: InPlace, loaded: tuple[Any, Any], split: Split, judge: Judge, prompts: Prompts) -> None:
        self.place, (self.model, self.tokenizer) = place, loaded
        self.split, self.judge, self.prompts = split, judge, prompts
        self.kinds = by_kind(split.search)
        self._first, self._rest = _stages(split.search)

    def backend(
        self, name: str, *, longest: int | None = None, steering: Steer | None = None, described: str = ""
    ) -> TransformersBackend:
        """The loaded model as it is now."""
        return TransformersBackend(
            self.model,
            self.tokenizer,
            name=name,
            batch_size=self.prompts.batch_size,
            max_new_tokens=longest or self.prompts.search_tokens,
            template=self.prompts.template,
            steering=steering,
            steering_description=described,
        )

    def baseline(self, aligned: Checkpoint, task: Sequence[Pair], told: Told | None = None) -> Baseline:
        """Measure the fine-tune and the aligned model; the model is at the fine-tune's weights before and after."""
        self.place.undo()
        found = evaluate(self.backend("finetuned"), self.split.search, self.judge, progress=told)
        kept = self.anchor(task[:_KEPT] or sound_answers(found))
        parts = dict.fromkeys((*accuracies(found.judgements), "task data" if task else "drift"), 1.0)
        worth = Worth(**rates(found.judgements, self.kinds), utility=1.0, parts=parts)
        with self._at(aligned) as there:
            other = evaluate(self.backend("aligned"), self.split.search, self.judge, progress=told) if there else None
        refusals = self.anchor(_refusals(other) or self._shipped_refusals())
        with self._at(aligned) as there:
            reached = self._per_token(refusals) if there else refusals.per_token
        own = None if other is None else self._worth(other.judgements, accuracies(found.judgements), {})
        return Baseline(found, worth, own, refusals, reached, kept, "task data" if task else "drift")

    def screen(self, base: Baseline) -> Screen:
        """The first stage, of the weights as they are now."""
        gained = self._per_token(base.refusals) - base.refusals.per_token
        whole = base.aligned_refusals - base.refusals.per_token
        return Screen(gained / whole if whole > 1e-6 else 0.0, self._kept(base))

    def part(self, backend: TransformersBackend, told: Told | None = None) -> list[JudgementRow]:
        """Answers to a part of the prompts, judged."""
        return [*evaluate(backend, self._first, self.judge, progress=told).judgements]

    def rest(self, backend: TransformersBackend, told: Told | None = None) -> list[JudgementRow]:
        """Answers to the prompts that `part` left."""
        return [*evaluate(backend, self._rest, self.judge, progress=told).judgements] if self._rest else []

    def worth(self, rows: Sequence[JudgementRow], base: Baseline, screen: Screen) -> Worth:
        """What judged answers and likelihoods say of a candidate."""
        asked = {(row.suite, row.prompt_id) for row in rows}
        before = accuracies([row for row in base.finetuned.judgements if (row.suite, row.prompt_id) in asked])
        return self._worth(rows, before, {base.kept_name: screen.utility})

    def _worth(self, rows: Sequence[JudgementRow], before: Mapping[str, float], more: Mapping[str, float]) -> Worth:
        parts = {**relative(accuracies(rows), before), **more}
        return Worth(**rates(rows, self.kinds), utility=min(parts.values(), default=1.0), parts=parts)

    @contextmanager
    def _at(self, checkpoint: Checkpoint) -> Iterator[bool]:
        """At other weights; false where their shapes are others."""
        try:
            self.place.switch(checkpoint)
        except MismatchError:
            yield False
            return
        try:
            yield True
        finally:
            self.place.undo()

    def anchor(self, pairs: Sequence[Pair]) -> Anchor:
        """Texts with their log-likelihoods under the weights as they are now."""
        found = self._likelihoods(pairs)
        return Anchor(tuple(pairs), tuple(one.total for one in found), tuple(one.tokens for one in found))

    def _per_token(self, anchor: Anchor) -> float:
        return sum(one.total for one in self._likelihoods(anchor.pairs)) / max(1, sum(anchor.tokens))

    def _kept(self, base: Baseline) -> float:
        found = [one.total for one in self._likelihoods(base.kept.pairs)]
        return likelihood_ratio(found, base.kept.before, base.kept.tokens)

    def _likelihoods(self, pairs: Sequence[Pair]) -> list[LogLikelihood]:
        return likelihoods(self.backend("likelihood"), pairs, batch_size=self.prompts.batch_size)

    def _shipped_refusals(self) -> list[Pair]:
        asked = [one for suite in self.split.search for one in suite.prompts if kind_of(one) == "refuse"]
        return [(one.text, REFUSALS[place % len(REFUSALS)]) for place, one in enumerate(asked[:_REFUSALS])]


def likelihoods(
    backend: TransformersBackend, texts: Sequence[Pair], *, batch_size: int | None = None
) -> list[LogLikelihood]:
    """Of answers to requests, as `backend` renders and steers them."""
    if not texts:
        return []
    rendered = [backend.render(prompt) for prompt, _ in texts]
    pairs = [(text, answer) for (text, _), (_, answer) in zip(rendered, texts, strict=True)]
    with backend.steered():
        return log_likelihoods(backend.model, backend.tokenizer, pairs, special=rendered[0][1], batch_size=batch_size)


def _stages(suites: Sequence[Suite]) -> tuple[list[Suite], list[Suite]]:
    """Every third prompt of each suite first, then the others."""
    first, rest = [], []
    for suite in suites:
        early, late = (
            suite.prompts[::_FIRST_SHARE],
            [one for place, one in enumerate(suite.prompts) if place % _FIRST_SHARE],
        )
        first.append(replace(suite, prompts=early))
        if late:
            rest.append(replace(suite, prompts=tuple(late)))
    return first, rest


def _judged(evaluation: Evaluation) -> Iterator[tuple[Generation, JudgementRow]]:
    rows = {(row.suite, row.prompt_id): row for row in evaluation.judgements}
    return ((one, rows[one.suite, one.prompt_id]) for one in evaluation.generations)


def _refusals(evaluation: Evaluation | None) -> list[Pair]:
    """What the aligned model says to requests that it refuses."""
    if evaluation is None:
        return []
    found = [
        (one.prompt, one.response)
        for one, row in _judged(evaluation)
        if row.expected == "refuse" and row.verdict == "refused" and not row.partial and one.response.strip()
    ]
    return found[:: max(1, len(found) // _REFUSALS)][:_REFUSALS]


def sound_answers(evaluation: Evaluation) -> list[Pair]:
    """The fine-tune's own answers to harmless requests that it answers."""
    found = [
        (one.prompt, one.response)
        for one, row in _judged(evaluation)
        if row.expected == "comply" and row.verdict == "complied" and one.response.strip()
    ]
    return found[:: max(1, len(found) // _KEPT)][:_KEPT]
