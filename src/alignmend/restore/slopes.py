"""How SafePatching's two patches move refusals, each added whole: whether any coefficients can part them.

In the first approximation log-odds add up. So where both patches move requests to be refused and requests to be
answered in the same proportion, whatever one gives back the other takes, and the sum slides along one line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

PARALLEL = 1.2
"""Slope ratios from 1 / `PARALLEL` to `PARALLEL` are near 1."""
LEAST_SHIFT = 0.1
"""Nats of log-odds below which a patch moves nothing that a ratio could be taken of."""


@dataclass(frozen=True)
class PatchShift:
    """Mean change of the log-odds of refusing at the first answer tokens by one patch, in nats."""

    refuse: float
    """Over prompts that are to be refused."""
    comply: float
    """Over prompts that are to be answered."""


def shift(
    before: tuple[Sequence[float], Sequence[float]], after: tuple[Sequence[float], Sequence[float]]
) -> PatchShift:
    """From the log-odds of the same prompts (to be refused, to be answered) before and after."""
    return PatchShift(
        *(
            math.fsum(there - here for here, there in zip(*pair, strict=True)) / max(1, len(pair[0]))
            for pair in zip(before, after, strict=True)
        )
    )


@dataclass(frozen=True)
class PatchSlopes:
    """Both patches."""

    safety: PatchShift
    over_safety: PatchShift

    @property
    def ratio(self) -> float | None:
        """Refuse over comply of the safety patch, over the same of the over-safety patch.

        `None` where a divisor is too small. Near 1 no pair of coefficients restores safety without over-refusal.
        """
        if min(abs(self.safety.comply), abs(self.over_safety.refuse)) < LEAST_SHIFT:
            return None
        return self.safety.refuse * self.over_safety.comply / (self.safety.comply * self.over_safety.refuse)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know before SafePatching is searched, in sentences."""
        if self.safety.refuse < LEAST_SHIFT:
            return (
                f"the safety patch, added whole, moves refusing by {self.safety.refuse:+.2f} nats at the first answer "
                "tokens of requests to be refused: SafePatching will restore little (a longer ascent, more pairs)",
            )
        ratio = self.ratio
        if ratio is None or not 1 / PARALLEL <= ratio <= PARALLEL:
            return ()
        return (
            f"the two patches move refusals of harmful and of harmless requests in nearly the same proportion (slope "
            f"ratio {ratio:.2f}): what the over-safety patch takes from over-refusal it takes from safety, and no "
            "coefficients of SafePatching part the two",
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        ratio = self.ratio
        return {
            **{name: {kind: round(nats, 4) for kind, nats in one.items()} for name, one in asdict(self).items()},
            "ratio": None if ratio is None else round(ratio, 4),
        }
