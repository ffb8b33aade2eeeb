"""What an audit says: facts about a change, and signs that somebody should look at before the weights are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from alignmend.algebra.names import Kind
from alignmend.editing.differences import TensorChange
from alignmend.errors import ParameterError
from alignmend.nearest import nearest

Check = Literal[
    "unrelated", "ablated-direction", "edit", "baked-bias", "token-rows", "code", "against-safety",
    "concentrated", "large", "unlike-own", "benign-change",
]  # fmt: skip
CHECKS: tuple[Check, ...] = get_args(Check)
WARNING = (
    "Weights cannot prove that a model or vector is harmless. Known attacks come through merging: BADTV hides a "
    "backdoor in a task vector that survives addition, subtraction and analogy (arXiv 2501.02373); BadMerging plants "
    "one in a model that is to be merged (arXiv 2408.07362); Merger-as-a-Stealer has a merged expert leak what the "
    "others know (arXiv 2502.16094). Take vectors from those whom you trust, prefer one that you made yourself, and "
    "evaluate the result: harmful, benign and task prompts, before and after."
)
"""Shown with every audit of what is to be added to a model."""


@dataclass(frozen=True)
class Finding:
    """One sign: which check, what was seen, and in which layers."""

    check: Check
    told: str
    layers: tuple[int, ...] = ()


@dataclass(frozen=True)
class PartChange:
    """How far one kind of tensor in one layer (`None`: outside layers) moved.

    `share` is the norm of the change over that of the parent's weights; `rank` is `one`, `low` or `high`, of matrices
    that changed. `cosine` is with the safety vector that was given, `None` where there is none or nothing changed.
    """

    layer: int | None
    kind: Kind
    norm: float
    share: float
    rank: Literal["one", "low", "high"] | None
    cosine: float | None = None


@dataclass(frozen=True)
class Audit:
    """What was found about `subject`, beside `parent` where one was given."""

    subject: str
    what: Literal["checkpoint", "adapter", "delta", "steering vector"]
    parent: str | None
    facts: tuple[str, ...]
    findings: tuple[Finding, ...]
    parts: tuple[PartChange, ...] = ()
    tensors: tuple[TensorChange, ...] = ()
    numbers: Mapping[str, float] | None = None
    """Single measurements by name, such as the cosine with the safety vector over all weights."""

    @property
    def is_vector(self) -> bool:
        """Whether it is something to be added to a model."""
        return self.what != "checkpoint"

    def against(self, allowed: Sequence[str]) -> tuple[Finding, ...]:
        """The signs that are not among `allowed` checks; `ParameterError` names the nearest to an unknown one."""
        for name in allowed:
            if name not in CHECKS:
                raise ParameterError(f"there is no check {name!r}{nearest(name, CHECKS)}; known: {', '.join(CHECKS)}")
        return tuple(one for one in self.findings if one.check not in allowed)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "subject": self.subject,
            "what": self.what,
            "parent": self.parent,
            "facts": list(self.facts),
            "signs": [{"check": one.check, "told": one.told, "layers": list(one.layers)} for one in self.findings],
            "parts": [vars(one) for one in self.parts],
            "numbers": dict(self.numbers or {}),
            "warning": WARNING if self.is_vector else None,
        }
