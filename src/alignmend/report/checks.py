"""One limit on one suite, and whether what was measured keeps it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from alignmend.errors import ParameterError
from alignmend.evaluation.metrics import LOWER_IS_BETTER
from alignmend.report.prompts_needed import by_rate, by_width

Kind = Literal["rate", "rise", "utility"]
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Limit:
    """`metric` must be at most `value`, or at least where higher is better; of a `rise`, its failures may rise so much;
    of `utility`, so large a share of the fine-tune's must stay.

    An `implied` limit was not asked for, and looks at rates without their intervals.
    """

    metric: str
    value: float
    kind: Kind = "rate"
    implied: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and 0 <= self.value <= 1):
            raise ParameterError(f"the limit of {self.metric} is a share between 0 and 1, not {self.value}")

    @property
    def is_ceiling(self) -> bool:
        """Whether what is measured must stay below."""
        return self.kind == "rise" or (self.kind == "rate" and LOWER_IS_BETTER[self.metric])


@dataclass(frozen=True)
class Check:
    """One limit on one suite of one model: `worst` is the interval's worse end, held against the limit if `confident`.

    Of utility, `value` is the share of the fine-tune's.
    """

    model: str
    suite: str
    limit: Limit
    value: float
    worst: float
    n: int
    confident: bool

    @property
    def bound(self) -> float:
        """What is held against the limit."""
        return self.worst if self.confident else self.value

    @property
    def passed(self) -> bool:
        """Whether the bound keeps the limit."""
        over = self.bound - self.limit.value
        return (over if self.limit.is_ceiling else -over) <= _ROUNDING

    @property
    def prompts_needed(self) -> int | None:
        """So many prompts, at the present value, for the interval's worse end to keep the limit; `None`: no number.

        Of a rise and of utility it is about so many, by an interval that narrows with the root of n.
        """
        limit, ceiling = self.limit.value, self.limit.is_ceiling
        if self.limit.kind == "rate":
            return by_rate(self.value, limit, ceiling=ceiling)
        return by_width(self.value, self.worst, limit, self.n, ceiling=ceiling)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        needed = {"prompts_needed": self.prompts_needed} if self.confident else {}
        return {
            "model": self.model,
            "suite": self.suite,
            "metric": self.limit.metric,
            "kind": self.limit.kind,
            "implied": self.limit.implied,
            "limit": self.limit.value,
            "value": self.value,
            "worst": self.worst,
            "bound": self.bound,
            "n": self.n,
            "passed": self.passed,
            **needed,
        }
