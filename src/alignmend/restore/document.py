"""What a restore found, as `results.json` holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from alignmend.evaluation.fronts import Match, Point, matched
from alignmend.execution.rounding import Rounding
from alignmend.restore.candidates import Choice
from alignmend.restore.front import Aim, Measured, fitting, front
from alignmend.restore.measuring import LEAST_PROGRESS, Baseline, VectorLook
from alignmend.restore.outcomes import Topic, encoded, point_of, refused_topics
from alignmend.restore.request import Request
from alignmend.restore.rounding import RoundingEffect
from alignmend.restore.scoring import RATES, Worth
from alignmend.restore.search import calibration
from alignmend.restore.slopes import PatchSlopes
from alignmend.restore.suites import Kind, Split, by_kind
from alignmend.restore.trials import Tried, enough

REFERENCE = "resta"
"""The family that all others are held against."""
_KINDS: tuple[Kind, ...] = ("refuse", "comply", "task")


@dataclass(frozen=True)
class Searched:
    """All of a search that is reported."""

    request: Request
    base: Baseline
    choice: Choice
    tried: Sequence[Tried]
    split: Split
    seconds: float
    pass_seconds: float
    """One pass over the loaded weights."""
    vector: VectorLook | None = None
    """The safety vector by itself, where there is one."""
    rounding: RoundingEffect | None = None
    """What rounding loses of the chosen candidate's effect."""

    slopes: PatchSlopes | None = None
    """How SafePatching's patches move refusals, where they were tried."""

    @property
    def unfinished(self) -> bool:
        """Whether the time or a person ended the search."""
        return not enough(self.tried, self.request.trials)

    @property
    def late(self) -> bool:
        """Whether time ended the search."""
        return self.request.budget is not None and self.unfinished

    @property
    def too_weak(self) -> bool:
        """Whether no candidate makes refusing likelier: then no limit is to blame."""
        moved = [one.progress for one in self.tried if one.stage != "failed"]
        return bool(moved) and max(moved) < LEAST_PROGRESS

    @property
    def templated(self) -> bool:
        """Whether the unaligned model answers in a few templates."""
        return self.vector is not None and self.vector.answers.templated

    @property
    def measured(self) -> list[Measured]:
        """Candidates that were measured whole."""
        return [found for one in self.tried if (found := one.measured) is not None]

    @property
    def front(self) -> tuple[Measured, ...]:
        """Those that no other dominates."""
        return front(self.measured)

    @property
    def fitting(self) -> tuple[Measured, ...]:
        """What may be written: the front of those that qualify, the safest first."""
        return fitting(self.measured, self.request.limits, self.base.worth)

    @property
    def nearest(self) -> Measured | None:
        """The safer candidate that misses the limits by least."""
        aim = Aim(self.request.limits, self.base.worth)
        safer = [one for one in self.measured if one.worth.safer_than(self.base.worth)]
        return min(safer, key=lambda one: aim.rank(one.worth, one), default=None)

    def over_refused(self, one: Measured) -> tuple[Topic, ...]:
        """What harmless search prompts have in common that a candidate refuses."""
        keys, kinds = self.base.asked, by_kind(self.split.search)
        prompts = {(suite.name, prompt.id): prompt for suite in self.split.search for prompt in suite.prompts}
        sides = [
            point_of("", outcomes, keys, kinds)
            for outcomes in (encoded(self.base.finetuned.judgements, keys), self.tried[self._place(one)].outcomes)
        ]
        before, after = sides
        if before is None or after is None:
            return ()
        harmless: Kind = "comply" if "comply" in kinds.values() else "task"
        asked = [prompts[key] for key in keys if kinds[key] == harmless]
        return refused_topics(asked, before.refusals, after.refusals)

    def _place(self, one: Measured) -> int:
        return next(place for place, tried in enumerate(self.tried) if tried.number == one.number)

    def against(self) -> tuple[Match, ...]:
        """The front of everything else held against RESTA's own candidates, at the same attack success."""
        keys, kinds = self.base.asked, by_kind(self.split.search)
        points: dict[bool, list[Point]] = {True: [], False: []}
        for one in self.tried:
            point = point_of(str(one.number), one.outcomes, keys, kinds)
            if one.measured and point is not None and not one.repeats:
                points[one.candidate.family == REFERENCE].append(point)
        return matched(points[False], points[True])

    def families(self) -> list[dict[str, Any]]:
        """What each family was given: candidates and seconds."""
        return [
            {
                "family": name,
                "candidates": sum(not one.repeats for one in own),
                "whole": sum(one.stage == "whole" and not one.repeats for one in own),
                "seconds": round(sum(one.seconds for one in own), 2),
            }
            for name in self.choice.families
            if (own := [one for one in self.tried if one.candidate.family == name])
        ]

    def _refused(self, chosen: Measured | None) -> dict[str, Any]:
        told = chosen or self.nearest
        topics = () if told is None else self.over_refused(told)
        if told is None or not topics:
            return {}
        return {"over_refused": {"candidate": told.number, "topics": [one.as_dict() for one in topics]}}

    def block(self, chosen: Measured | None) -> dict[str, Any]:
        """The `search` block."""
        request = self.request
        best = {one.number for one in self.front}
        return {
            "rule": str(request.limits),
            "limits": asdict(request.limits),
            "prompts": {kind: self.split.count(kind) for kind in _KINDS},
            "finetuned": worth_block(self.base.worth),
            **({} if self.base.aligned is None else {"aligned": worth_block(self.base.aligned)}),
            "candidates": [self._row(one, one.number in best) for one in self.tried if not one.repeats],
            "chosen": None if chosen is None else chosen.number,
            "left_out": [asdict(one) for one in self.choice.left_out],
            "switch": self.switch(),
            "screening": calibration(self.base, self.tried, request).as_dict(),
            **({} if self.vector is None else {"vector": self.vector.as_dict()}),
            **({} if self.slopes is None else {"patches": self.slopes.as_dict()}),
            **({} if self.rounding is None else {"rounding": self.rounding.as_dict(self._used)}),
            "seconds": round(self.seconds, 2),
            "families": self.families(),
            "against": {
                "reference": REFERENCE,
                "matches": [
                    {"candidate": int(one.ours.name), "reference": int(one.theirs.name), **one.as_dict()}
                    for one in self.against()
                ],
            },
            **self._refused(chosen),
        }

    @property
    def _used(self) -> Rounding:
        return "stochastic" if self.request.rounding == "stochastic" else "nearest"

    def _row(self, one: Tried, on_front: bool) -> dict[str, Any]:
        # Of a candidate that was not asked the sampler holds what was predicted, which is no measurement.
        worth = one.worth if one.stage in ("part", "whole") else None
        broken = () if worth is None else worth.broken(self.request.limits, self.base.worth)
        return {
            "number": one.number,
            "label": one.candidate.label,
            "family": one.candidate.family,
            "parameters": dict(one.candidate.parameters),
            "stage": one.stage,
            "why": one.why,
            "seconds": round(one.seconds, 3),
            "predicted": None if one.predicted is None else one.predicted.as_dict(),
            "worth": None if worth is None else worth_block(worth),
            "on_front": on_front,
            "within_limits": one.stage == "whole" and not broken,
            "broken": list(broken),
        }

    def switch(self) -> dict[str, float]:
        """What it costs to give the loaded model a candidate's weights, against one pass over them."""
        seconds = sorted(one.switch_seconds for one in self.tried if one.switch_seconds > 0)
        median = seconds[len(seconds) // 2] if seconds else 0.0
        ratio = median / self.pass_seconds if self.pass_seconds > 0 else 0.0
        return {
            "median_seconds": round(median, 6),
            "pass_seconds": round(self.pass_seconds, 6),
            "ratio": round(ratio, 2),
        }


def worth_block(worth: Worth) -> Mapping[str, Any]:
    """Rates with their intervals, utility with what it is the least of, accuracies and drift as they are."""
    return {
        **{name: getattr(worth, name).as_dict() for name in RATES},
        "utility": round(worth.utility, 6),
        "parts": {name: round(value, 6) for name, value in worth.parts.items()},
        "drift": round(worth.drift, 6),
        "accuracy": {suite: rate.as_dict() for suite, rate in worth.accuracy.items()},
    }
