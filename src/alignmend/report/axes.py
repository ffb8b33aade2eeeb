"""The drawing area of a chart: scales, grid, labels; plain SVG without colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

WIDTH, HEIGHT = 340, 264
_LEFT, _RIGHT, TOP, _BOTTOM = 42, 14, 24, 42


@dataclass(frozen=True)
class Frame:
    """Maps x in [`low`, `high`] and y in [0, 1] to the drawing area, `padding` pixels in from its sides."""

    low: float
    high: float
    padding: int = 8

    def x(self, value: float) -> float:
        """Pixels from the left."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        left, right = _LEFT + self.padding, WIDTH - _RIGHT - self.padding
        return round(left + share * (right - left), 2)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        return round(TOP + (1 - value) * (HEIGHT - TOP - _BOTTOM), 2)


def svg(label: str, parts: Sequence[str]) -> str:
    """The chart of `parts` in the order of drawing; `label` is for screen readers."""
    attributes = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label={quoteattr(label)}'
    return f'<svg class="chart" {attributes}>{"".join(parts)}</svg>'


def as_percent(value: float) -> str:
    """0.25 as `25%`."""
    return f"{100 * value:g}%"


def grid(frame: Frame, ticks: Sequence[float], axis: str, write: Callable[[float], str]) -> str:
    """Horizontal lines for rates from 0 to 1, ticks and the name of the x axis."""
    left, right, bottom = _LEFT, WIDTH - _RIGHT, frame.y(0)
    lines = []
    for value in (0, 0.25, 0.5, 0.75, 1):
        y = frame.y(value)
        lines.append(f'<path class="grid" d="M{left} {y}H{right}"/>')
        lines.append(f'<text class="tick" x="{left - 6}" y="{y + 4}" text-anchor="end">{as_percent(value)}</text>')
    for value in ticks:
        x = frame.x(value)
        lines.append(f'<path class="grid" d="M{x} {bottom}v4"/>')
        lines.append(f'<text class="tick" x="{x}" y="{bottom + 17}" text-anchor="middle">{write(value)}</text>')
    middle = (left + right) / 2
    lines.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(axis)}</text>')
    return "".join(lines)
