"""How edits went, one by one and in all: efficacy, paraphrase and neighbourhood success."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

from alignmend.editing.measure import Measured, Probe, Said, probe_dict
from alignmend.editing.requests import EditRequest


@dataclass(frozen=True)
class EditOutcome:
    """One edit: what was asked, what was measured right after it, and `at_end`, after the last edit of the sequence.

    `growth` is the update's norm over the matrix's, `steps` those to find the value.
    """

    request: EditRequest
    layer: int
    measured: Measured
    growth: float
    steps: int
    at_end: Said
    warnings: tuple[str, ...]

    @property
    def applied(self) -> bool:
        """Whether the target is likelier than before, right after the edit and after the last one.

        A target that led already and leads still counts too.
        """
        before, after = self.measured.edit.before, self.measured.edit.after
        return all(said.rose_from(before) or (before.leads and said.leads) for said in (after, self.at_end))

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        edit, told, request = self.measured.edit, self.measured.told, self.request
        return {
            "prompt": request.prompt,
            "subject": request.subject,
            "subject_rule": request.rule,
            "target": request.target,
            "topic": request.topic,
            "layer": self.layer,
            "before": edit.before.as_dict(),
            "after": edit.after.as_dict(),
            "at_end": self.at_end.as_dict(),
            "original": edit.rival,
            "original_probability": exp(edit.rival_after),
            "answer_before": told.before,
            "answer_after": told.after,
            "empty_after": not told.after,
            "success": edit.prevails,
            "applied": self.applied,
            "paraphrases": [probe_dict(probe, probe.prevails) for probe in self.measured.paraphrases],
            "neighbourhood": [probe_dict(probe, probe.kept) for probe in self.measured.neighbourhood],
            "growth": self.growth,
            "steps": self.steps,
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class Tally:
    """`count` of `n`."""

    count: int
    n: int

    def __str__(self) -> str:
        return f"{self.count} of {self.n}"

    def as_dict(self) -> dict[str, float | int]:
        """Plain JSON, with the share as `value`."""
        return {"value": self.count / self.n, "count": self.count, "n": self.n}


def tally(outcomes: Sequence[EditOutcome]) -> dict[str, Tally]:
    """Totals over edits and, for paraphrases and neighbourhood, over their prompts; only of what was asked.

    `efficacy`: the target is likelier than what the model said before (or leads). `leads`: greedy decoding says it.
    `applied`: it became likelier. `paraphrase`: as efficacy. `neighbourhood`: the answer beside the edit stayed.
    `empty`: the model says nothing to the edited prompt now.
    """
    paraphrases = [probe for one in outcomes for probe in one.measured.paraphrases]
    beside = [probe for one in outcomes for probe in one.measured.neighbourhood]
    found = {
        "applied": _count(one.applied for one in outcomes),
        "efficacy": _count(one.measured.edit.prevails for one in outcomes),
        "leads": _count(one.measured.edit.after.leads for one in outcomes),
        "paraphrase": _count(map(_prevails, paraphrases)),
        "neighbourhood": _count(probe.kept for probe in beside),
        "empty": _count(not one.measured.told.after for one in outcomes),
    }
    return {name: each for name, each in found.items() if each.n}


def _prevails(probe: Probe) -> bool:
    return probe.prevails


def _count(values: Iterable[bool]) -> Tally:
    every = list(values)
    return Tally(sum(every), len(every))
