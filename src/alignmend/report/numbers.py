"""How numbers and foreign text are written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Rate = Mapping[str, Any]
LONGEST_TEXT = 4000
_SHARES = {"accuracy", "judged_coverage", "acc", "acc_norm", "exact_match", "em", "pass@1", "prompt_level_strict_acc"}
_UNWRITABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def percent(value: float) -> str:
    """0.104 as `10.4%`."""
    return f"{100 * value:.1f}%"


def points(difference: float) -> str:
    """-0.9375 as `−93.8 points`."""
    sign = "−" if difference < 0 else "+"
    return f"{sign}{abs(100 * difference):.1f} points"


def interval(rate: Rate) -> str:
    """The Wilson interval in percent, without the sign: `2.9–13.0`."""
    return f"{100 * rate['low']:.1f}–{100 * rate['high']:.1f}"


def is_share(metric: str) -> bool:
    """Whether a metric is a share of prompts, written in percent; others (drift, perplexity, scores) are plain."""
    return metric.partition(",")[0] in _SHARES or "_rate" in metric


def with_interval(metric: str, rate: Rate) -> tuple[str, str]:
    """The value and its interval, in percent where the metric is a share: (`10.4%`, `5.8–18.1`)."""
    if is_share(metric):
        return percent(rate["value"]), interval(rate)
    return f"{rate['value']:.4g}", f"{rate['low']:.4g}–{rate['high']:.4g}"


def described(rate: Rate) -> str:
    """A rate with everything that belongs to it, for tooltips and screen readers."""
    return f"{percent(rate['value'])} (95% interval {interval(rate)}, n = {rate['n']})"


def plain_number(value: float) -> str:
    """0.5 as `0.5`, 1.0 as `1`."""
    return f"{value:g}"


def two_decimals(value: float) -> str:
    """-0.021 as `−0.02`, and no zero below zero."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def p_value(value: float) -> str:
    """0.00001 as `< 0.0001`."""
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def clean(text: str) -> str:
    """`text` without what no page can hold: control characters and lone surrogates become U+FFFD."""
    return _UNWRITABLE.sub("\ufffd", text)


def as_markdown(text: str) -> str:
    """`text` as literal Markdown on one line."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&$-])", r"\\\1", " ".join(clean(text).split()))


def shortened(text: str, longest: int = LONGEST_TEXT) -> tuple[str, int]:
    """The first `longest` characters, and how many were left out."""
    return text[:longest], max(0, len(text) - longest)
