"""How many prompts a limit asks for, at the value that was measured."""

from __future__ import annotations

import math

from alignmend.evaluation.statistics import Z_95


def by_rate(value: float, limit: float, *, ceiling: bool) -> int | None:
    """The least n at which Wilson's interval of the rate `value` keeps `limit` with its worse end; `None` where none.

    Wilson's interval is all p with (value - p)^2 <= z^2 p (1 - p) / n, so its end reaches the limit L at
    n = z^2 L (1 - L) / (value - L)^2.
    """
    if limit == (1.0 if ceiling else 0.0):
        return 1
    slack = limit - value if ceiling else value - limit
    return _whole(Z_95**2 * limit * (1 - limit) / slack**2) if slack > 0 else None


def by_width(value: float, worst: float, limit: float, n: int, *, ceiling: bool) -> int | None:
    """About so many prompts, where `n` gave an interval from `value` to `worst` and its width goes with 1 / sqrt(n)."""
    slack = limit - value if ceiling else value - limit
    if slack <= 0:
        return 1 if worst == value == limit else None
    return _whole(n * ((worst - value) / slack) ** 2)


def _whole(prompts: float) -> int:
    """The next whole number; what is above one by rounding alone counts as that one."""
    return max(1, math.ceil(prompts * (1 - 1e-9)))
