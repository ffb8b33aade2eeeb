"""Charts of rows along one number, as SVG."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from xml.sax.saxutils import escape

from studies.rows import Row

QUANTITIES: Mapping[str, tuple[str, Callable[[Row], float]]] = {
    "attack success": ("#b3261e", lambda row: row.attack_success),
    "over-refusal": ("#8a5a00", lambda row: row.over_refusal),
    "utility": ("#1b6e3c", lambda row: row.utility),
    "incoherent": ("#5b5f66", lambda row: row.incoherent),
}
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 460, 270, 46, 34, 12, 40
Curve = Sequence[tuple[float, Row]]


def figure(title: str, axis: str, curve: Curve, dashed: Curve = ()) -> str:
    """A chart of all quantities from 0 to 1 along `axis`; `dashed` is drawn for attack success alone."""
    ends = curve[0][0], curve[-1][0]
    parts = [_frame(title, axis, [value for value, _ in curve], ends)]
    for number, (name, (colour, value_of)) in enumerate(QUANTITIES.items()):
        parts.append(_line([(x, value_of(row)) for x, row in curve], ends, colour))
        parts.append(_legend(number, name, colour))
    if dashed:
        colour, value_of = QUANTITIES["attack success"]
        parts.append(_line([(x, value_of(row)) for x, row in dashed], ends, colour, "stroke-dasharray='5 4'"))
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {_HEIGHT}' width='{_WIDTH}' "
        f"font-family='system-ui, sans-serif' font-size='11' role='img' aria-label='{escape(title)}'>"
        f"<rect width='100%' height='100%' fill='white'/>{''.join(parts)}</svg>\n"
    )


def _x(value: float, ends: tuple[float, float]) -> float:
    return _LEFT + (value - ends[0]) / (ends[1] - ends[0]) * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float) -> float:
    return _HEIGHT - _BOTTOM - value * (_HEIGHT - _TOP - _BOTTOM)


def _frame(title: str, axis: str, values: Sequence[float], ends: tuple[float, float]) -> str:
    parts = [f"<text x='{_LEFT}' y='14' font-weight='600'>{escape(title)}</text>"]
    for level in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f"<line x1='{_LEFT}' x2='{_WIDTH - _RIGHT}' y1='{_y(level)}' y2='{_y(level)}' stroke='#e3e5e8'/>")
        parts.append(f"<text x='{_LEFT - 6}' y='{_y(level) + 4}' text-anchor='end'>{level:g}</text>")
    parts += [
        f"<text x='{_x(value, ends)}' y='{_HEIGHT - 24}' text-anchor='middle'>{value:g}</text>" for value in values
    ]
    parts.append(f"<text x='{(_LEFT + _WIDTH) / 2}' y='{_HEIGHT - 6}' text-anchor='middle'>{escape(axis)}</text>")
    return "".join(parts)


def _line(points: Sequence[tuple[float, float]], ends: tuple[float, float], colour: str, style: str = "") -> str:
    path = " ".join(f"{_x(x, ends):.1f},{_y(y):.1f}" for x, y in points)
    dots = "" if style else "".join(f"<circle cx='{_x(x, ends):.1f}' cy='{_y(y):.1f}' r='2.5'/>" for x, y in points)
    line = f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2' {style}/>"
    return f"<g fill='{colour}'>{line}{dots}</g>"


def _legend(number: int, name: str, colour: str) -> str:
    x = _LEFT + 104 * number
    return (
        f"<rect x='{x}' y='20' width='10' height='3' fill='{colour}'/><text x='{x + 14}' y='25'>{escape(name)}</text>"
    )
