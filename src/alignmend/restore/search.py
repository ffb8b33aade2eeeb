"""The search: one candidate after another on the loaded model, staged, until trials or time run out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from alignmend.errors import AlignmendError, NoMemoryError
from alignmend.recipes.build import build
from alignmend.restore.candidates import Operands, recipe_of
from alignmend.restore.families import Candidate
from alignmend.restore.front import Measured, Standing, pick, standing
from alignmend.restore.interrupts import Interrupts
from alignmend.restore.measuring import Baseline, Measuring, Screen
from alignmend.restore.request import Request
from alignmend.restore.scoring import Worth
from alignmend.restore.trials import Stage, Trials, Tried

if TYPE_CHECKING:
    from alignmend.activations.pairs import ContrastPair
    from alignmend.activations.safe_align import SafeAlign

LEAST_PROGRESS = 0.1
"""Of the way to the aligned model's refusals: below it no answers are made."""
UTILITY_MARGIN = 0.1
"""Below the limit by more than this, no answers are made."""


class Watch(Protocol):
    """What a person sees of a search."""

    def tried(self, one: Tried, done: int, total: int, seconds_left: float | None, best: Measured | None) -> None:
        """A trial has ended."""

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
        self._turn = len(trials.tried())
        self._interrupts = Interrupts()

    def run(self, watch: Watch) -> list[Measured]:
        """Every candidate that was measured whole."""
        with self._interrupts.caught():
            while len(self.trials.tried()) < self.request.trials and not self._late():
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
        every = self.trials.tried()
        left = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
        best = pick(self.measured(), self.request.limits, self.base.worth)
        watch.tried(one, len(every), self.request.trials, left, best)

    def _next(self) -> Tried:
        """Every second trial halves a gap between what passes the limits and what does not; the sampler does others."""
        if self._turn % 2:
            self.trials.bisect(lambda one: one.qualifies(self.request.limits, self.base.worth))
        self._turn += 1
        trial, candidate = self.trials.ask()
        try:
            known = self.trials.known(candidate)
            with self._interrupts.measuring():
                tried = self._again(known, trial.number) if known is not None else self._try(trial.number, candidate)
        except NoMemoryError as error:  # the machine's trouble, not the candidate's: it is to be tried again
            self.trials.fail(trial)
            raise NoMemoryError(f"{error}; what was measured is kept, and --resume goes on") from error
        except AlignmendError as error:
            tried = Tried(trial.number, candidate, "failed", str(error), None, 0.0, 0.0, 0.0)
        except BaseException:
            self.trials.fail(trial)
            raise
        if tried.worth is None:
            self.trials.fail(trial, tried)
        else:
            self.trials.tell(trial, tried, tried.worth.objectives, self._violations(tried.worth))
        return tried

    def _again(self, known: Tried, number: int) -> Tried:
        """The same candidate once more: what is known of it, for the sampler."""
        return replace(
            known, number=number, why=f"the same as candidate {known.number + 1}", seconds=0.0, switch_seconds=0.0
        )

    def _try(self, number: int, candidate: Candidate) -> Tried:
        began = time.monotonic()
        built = build(recipe_of(candidate, self.operands, self.request), Path())
        switched = self.measuring.place.switch(built.checkpoint)
        steered = self._steered(built.stage)
        with self._steering(steered):
            screen = self.measuring.screen(self.base)
        stage, why, worth = self._staged(screen, steered)
        seconds = time.monotonic() - began
        return Tried(number, candidate, stage, why, worth, screen.progress, seconds, switched.seconds)

    def _staged(self, screen: Screen, steered: _Steered | None) -> tuple[Stage, str, Worth]:
        """As far as it is worth going."""
        if (why := self._hopeless(screen)) is not None:
            before = self.base.worth
            known = Worth(
                before.attack_success, before.over_refusal, before.incoherent, before.noise, screen.utility,
                {self.base.kept_name: screen.utility},
            )  # fmt: skip
            return "likelihood", why, known
        backend = self.measuring.backend(
            "candidate",
            steering=None if steered is None else lambda model: steered.vector.steer(model, steered.how),
            described="" if steered is None else steered.described,
        )
        rows = self.measuring.part(backend)
        worth = self.measuring.worth(rows, self.base, screen)
        if (better := self._beaten(worth)) is not None:
            return "part", f"behind {better.candidate.label}", worth
        rows += self.measuring.rest(backend)
        return "whole", "", self.measuring.worth(rows, self.base, screen)

    def _hopeless(self, screen: Screen) -> str | None:
        if screen.progress < LEAST_PROGRESS:
            return f"refusals have come back by {max(0.0, screen.progress):.0%} only"
        if screen.utility < self.request.limits.utility - UTILITY_MARGIN:
            return f"utility {screen.utility:.2f}"
        return None

    def _beaten(self, worth: Worth) -> Measured | None:
        """A candidate within the limits that has less attack success than this one can have, and no less utility."""
        best = pick(self.measured(), self.request.limits, self.base.worth)
        if best is None or worth.utility > best.worth.utility:
            return None
        return best if best.worth.objectives[0] < worth.attack_success.low else None

    def _violations(self, worth: Worth) -> dict[str, float]:
        limits, before = self.request.limits, self.base.worth
        return {
            "over_refusal": worth.over_refusal.value - before.over_refusal.value - limits.over_refusal,
            "utility": limits.utility - worth.utility,
            "incoherent": worth.incoherent.value - limits.incoherent,
        }

    def _steered(self, stage: SafeAlign | None) -> _Steered | None:
        """The vector of a second stage, fitted on the weights as they are now."""
        if stage is None:
            return None
        from alignmend.activations.attached import describe

        vector = stage.fit(self.measuring.model, self.measuring.tokenizer, self.pairs)
        return _Steered(vector, stage.steering, describe(vector, stage.steering))

    def _steering(self, steered: _Steered | None) -> AbstractContextManager[object]:
        if steered is None:
            return nullcontext()
        found: AbstractContextManager[object] = steered.vector.steer(self.measuring.model, steered.how)
        return found
