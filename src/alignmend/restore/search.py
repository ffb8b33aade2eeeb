"""The search: one candidate after another on the loaded model, staged, until trials or time run out.

Only what another candidate surely dominates ends early: nothing that the front would have held is left out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from alignmend.errors import AlignmendError, NoMemoryError
from alignmend.evaluation.generation import TransformersBackend
from alignmend.evaluation.records import JudgementRow
from alignmend.recipes.build import build
from alignmend.restore.candidates import Operands, recipe_of
from alignmend.restore.families import Candidate
from alignmend.restore.front import Aim, Measured, Standing, below, pick, standing, surely_dominated
from alignmend.restore.interrupts import Interrupts
from alignmend.restore.measuring import Baseline, Measuring, Screen
from alignmend.restore.outcomes import encoded
from alignmend.restore.request import Request
from alignmend.restore.scoring import Worth
from alignmend.restore.screening import FIRST_ASKED, Calibration, calibrate
from alignmend.restore.trials import SAME, Stage, Trials, Tried, enough

if TYPE_CHECKING:
    from alignmend.activations.pairs import ContrastPair
    from alignmend.activations.safe_align import SafeAlign


class Watch(Protocol):
    """What a person sees of a search."""

    def tried(self, one: Tried, done: int, total: int, seconds_left: float | None, best: Measured | None) -> None:
        """A trial has ended."""

    def noted(self, text: str) -> None:
        """Something to know of the search."""

    def interrupted(self, standing: Standing) -> bool:
        """Ctrl-C: whether to go on searching."""


@dataclass(frozen=True)
class _Steered:
    """How the loaded model is steered while a candidate is measured."""

    vector: Any
    how: Any
    described: str


class Search:
    """Measures candidates of `trials` on `measuring`'s model, which is the fine-tune again afterwards."""

    def __init__(
        self,
        measuring: Measuring,
        base: Baseline,
        trials: Trials,
        operands: Operands,
        request: Request,
        *,
        pairs: Sequence[ContrastPair] = (),
        deadline: float | None = None,
    ) -> None:
        self.measuring, self.base, self.trials = measuring, base, trials
        self.operands, self.request = operands, request
        self.pairs, self.deadline = pairs, deadline
        self.aim = Aim(request.limits, base.worth)
        self._told_off = ""
        self._interrupts = Interrupts()

    def run(self, watch: Watch) -> list[Measured]:
        """Every candidate that was measured whole."""
        with self._interrupts.caught():
            while not enough(self.trials.tried(), self.request.trials) and not self._late():
                try:
                    self._told(self._next(), watch)
                except KeyboardInterrupt:
                    if not watch.interrupted(standing(self.measured(), self.request.limits, self.base.worth)):
                        break
        self.measuring.place.undo()
        return self.measured()

    def measured(self) -> list[Measured]:
        """So far, by all processes."""
        return [found for one in self.trials.tried() if (found := one.measured) is not None]

    def _late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _told(self, one: Tried, watch: Watch) -> None:
        done = sum(not each.repeats for each in self.trials.tried())
        left = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
        best = pick(self.measured(), self.request.limits, self.base.worth)
        watch.tried(one, done, self.request.trials, left, best)
        self._note_screening(watch)

    def _note_screening(self, watch: Watch) -> None:
        """Say when the first stage is found wrong for this model, once."""
        found = self.calibration()
        if self.request.screening and not found.on and found.asked >= FIRST_ASKED and found.why != self._told_off:
            self._told_off = found.why
            watch.noted(f"the first stage is off, every candidate is asked: {found.why}")

    def _next(self) -> Tried:
        trial, candidate = self.trials.ask(self.aim)
        try:
            known = self.trials.known(candidate)
            with self._interrupts.measuring():
                tried = self._again(known, trial.number) if known is not None else self._try(trial.number, candidate)
        except NoMemoryError as error:  # the machine's trouble, not the candidate's: it is to be tried again
            self.trials.put_back(trial)
            raise NoMemoryError(f"{error}; what was measured is kept, and --resume goes on") from error
        except AlignmendError as error:
            tried = Tried(trial.number, candidate, "failed", str(error), None, 0.0, 0.0, 0.0, advice=error.advice)
        except BaseException:
            self.trials.put_back(trial)
            raise
        self.trials.tell(trial, tried, {} if tried.worth is None else self.aim.excess(tried.worth))
        return tried

    def _again(self, known: Tried, number: int) -> Tried:
        """The same candidate once more: what is known of it, for the sampler."""
        return replace(known, number=number, why=f"{SAME} {known.number + 1}", seconds=0.0, switch_seconds=0.0)

    def _try(self, number: int, candidate: Candidate) -> Tried:
        began = time.monotonic()
        built = build(recipe_of(candidate, self.operands, self.request), Path())
        switched = self.measuring.place.switch(built.checkpoint)
        steered = self._steered(built.stage)
        screen = self.measuring.screen(self.base, self._backend(steered))
        stage, why, worth, rows = self._staged(screen, steered)
        return Tried(
            number,
            candidate,
            stage,
            why,
            worth,
            screen.progress,
            time.monotonic() - began,
            switched.seconds,
            screen.prediction,
            encoded(rows, self.base.asked) if rows else "",
        )

    def _backend(self, steered: _Steered | None, longest: int | None = None) -> TransformersBackend:
        return self.measuring.backend(
            "candidate",
            longest=longest,
            steering=None if steered is None else lambda model: steered.vector.steer(model, steered.how),
            described="" if steered is None else steered.described,
        )

    def _staged(self, screen: Screen, steered: _Steered | None) -> tuple[Stage, str, Worth, Sequence[JudgementRow]]:
        """As far as it is worth going."""
        measured = self.measured()
        rows: list[JudgementRow] = []
        if (better := self._hopeless(screen, measured)) is not None:
            return "likelihood", f"behind {better.candidate.label}", self._predicted(screen), rows
        for answered in self.measuring.stages(lambda longest: self._backend(steered, longest), self.base):
            rows += answered
            worth = self.measuring.worth(rows, self.base, screen)
            whole = len(rows) == len(self.base.finetuned.judgements)
            if not whole and (better := surely_dominated(worth, measured)) is not None:
                return "part", f"behind {better.candidate.label}", worth, rows
        return "whole", "", worth, rows

    def calibration(self) -> Calibration:
        """How far predictions can be trusted, by what was asked so far."""
        return calibration(self.base, self.trials.tried(), self.request)

    def _hopeless(self, screen: Screen, measured: Sequence[Measured]) -> Measured | None:
        """A candidate that dominates this one even if all predictions are off by as much as any was before."""
        known = self.calibration()
        if screen.prediction is None or not known.on:
            return None
        attack, refusal = (
            value - margin
            for value, margin in zip(
                (screen.prediction.attack_success, screen.prediction.over_refusal), known.margins, strict=True
            )
        )
        return below((attack, refusal, min(1.0, screen.utility)), measured)

    def _predicted(self, screen: Screen) -> Worth:
        """What the sampler is told of a candidate that was not asked."""
        before, found = self.base.worth, screen.prediction
        if found is None:
            raise TypeError("found is None")
        return replace(
            before,
            attack_success=replace(before.attack_success, value=found.attack_success),
            over_refusal=replace(before.over_refusal, value=found.over_refusal),
            noise=replace(before.noise, value=0.0),
            utility=min(1.0, screen.utility),
            parts={self.base.kept_name: screen.utility},
            drift=screen.drift,
            accuracy={},
        )

    def _steered(self, stage: SafeAlign | None) -> _Steered | None:
        """The vector of a second stage, fitted on the weights as they are now."""
        if stage is None:
            return None
        from alignmend.activations.attached import describe

        vector = stage.fit(self.measuring.model, self.measuring.tokenizer, self.pairs)
        return _Steered(vector, stage.steering, describe(vector, stage.steering))


def calibration(base: Baseline, tried: Sequence[Tried], request: Request) -> Calibration:
    """Of the first stage, by the candidates that were asked."""
    found = calibrate(base.screening, [seen for one in tried if (seen := one.seen) is not None])
    return found if request.screening else replace(found, on=False, why="switched off (--no-screening)")
