"""The Pareto plane of a search as inline SVG: attack success (up) against over-refusal, utility as size and colour."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from alignmend.report.axes import TOP, Frame, as_percent, grid, svg
from alignmend.report.numbers import described, plain_number
from alignmend.report.search_view import WHOLE, Row, Search, SearchView, harm, most_over_refusal

_WIDEST = (0.1, 0.2, 0.25, 0.5, 1.0)
_HATCH = 9.0
_SIZES = (3.2, 4.6, 6.2)
_LABEL_PLACES = (
    (0, -12),
    (0, 20),
    (12, 4),
    (-12, 4),
    (14, -10),
    (-14, -10),
    (14, 18),
    (-14, 18),
    (0, -26),
    (0, 34),
    (18, -24),
    (26, 4),
    (40, 4),
)
_LINE, _LETTER = 13.0, 6.3


@dataclass(frozen=True)
class SearchPlane:
    """The chart, and how many candidates lie further right than it goes."""

    chart: str
    beyond: int


def search_plane(view: SearchView) -> SearchPlane:
    """The candidates that were asked all prompts, the fine-tune and the aligned model."""
    measured = [row for row in view.tried if row.worth is not None and row.stage == WHOLE]
    frame, ticks = _frame(view)
    drawn = [row for row in measured if row.worth and row.worth["over_refusal"]["value"] <= frame.high]
    ordered = sorted(drawn, key=lambda row: (row.chosen, row.on_front))
    parts = [
        _forbidden(frame, most_over_refusal(view.block)),
        grid(frame, ticks, "over-refusal", as_percent),
        _curve(frame, view.curve),
        _front_line(frame, view.front),
        *(_candidate(frame, row, view.block) for row in ordered),
        *_named(frame, view, drawn),
    ]
    said = f"Attack success against over-refusal of {len(drawn)} candidates. {_told(view)}"
    return SearchPlane(svg(said, parts), len(measured) - len(drawn))


def size_of(utility: float, limit: float) -> int:
    """Which of three sizes: below the limit, above it, or in the upper half of what is above it."""
    return 0 if utility < limit - 1e-9 else 1 if utility < (1 + limit) / 2 else 2


def size_words(limit: float) -> tuple[tuple[float, str], ...]:
    """The radius of each size and what it says, the largest first."""
    middle = plain_number(round((1 + limit) / 2, 4))
    words = (f"below {plain_number(limit)}", f"from {plain_number(limit)}", f"{middle} or more")
    return tuple(reversed([*zip(_SIZES, words, strict=True)]))


def _place(worth: Mapping[str, Any], frame: Frame) -> tuple[float, float]:
    return frame.x(worth["over_refusal"]["value"]), frame.y(harm(worth))


def _frame(view: SearchView) -> tuple[Frame, list[float]]:
    """As wide as the front and the models are, and somewhat wider than the limit."""
    worths = [worth for _, worth in view.models] + [row.worth for row in _shown_rows(view) if row.worth is not None]
    needed = max([worth["over_refusal"]["value"] for worth in worths] + [1.5 * most_over_refusal(view.block)])
    widest = next((each for each in _WIDEST if each >= needed), 1.0)
    return Frame(0.0, widest), [round(widest * quarter / 4, 4) for quarter in range(5)]


def _shown_rows(view: SearchView) -> tuple[Row, ...]:
    return (*view.front, *([view.chosen] if view.chosen is not None else []))


def _forbidden(frame: Frame, limit: float) -> str:
    """Shaded and hatched, so that it shows without colour."""
    if limit >= frame.high:
        return ""
    left, right, top, bottom = frame.x(limit), _right(frame), frame.y(1.0), frame.y(0.0)
    lines = "".join(_hatch(left, right, top, bottom))
    shade = f'<path class="over-limit" d="M{left} {top}H{right}V{bottom}H{left}Z"/>'
    text = f'<text class="limit-label" x="{right - 4}" y="{TOP - 8}" text-anchor="end">beyond the limit</text>'
    return f'{shade}<path class="hatch" d="{lines}"/><path class="limit" d="M{left} {top}V{bottom}"/>{text}'


def _hatch(left: float, right: float, top: float, bottom: float) -> Iterator[str]:
    """Lines upwards to the right, cut at the sides."""
    offset = left + _HATCH
    while offset < right + bottom - top:
        x1, y1 = (offset, top) if offset <= right else (right, top + offset - right)
        x2, y2 = (offset - (bottom - top), bottom)
        if x2 < left:
            x2, y2 = left, top + offset - left
        yield f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"
        offset += _HATCH


def _front_line(frame: Frame, front: Sequence[Row]) -> str:
    """Through those of the front that no other beats in both of the axes; the safest first, so over-refusal falls."""
    kept: list[tuple[float, float]] = []
    for row in front:
        if row.worth is not None:
            x, y = _place(row.worth, frame)
            if not kept or x < kept[-1][0]:
                kept.append((x, y))
    if len(kept) < 2:
        return ""
    return f'<path class="front" d="M{"L".join(f"{x} {y}" for x, y in kept)}"/>'


def _curve(frame: Frame, curve: Sequence[Row]) -> str:
    """Through the reference's own candidates, as far as the frame goes."""
    found = [_place(row.worth, frame) for row in curve if row.worth]
    kept = [(x, y) for x, y in found if x <= frame.x(frame.high)]
    return f'<path class="own-curve" d="M{"L".join(f"{x} {y}" for x, y in kept)}"/>' if len(kept) > 1 else ""


def _candidate(frame: Frame, row: Row, block: Search) -> str:
    if row.worth is None:
        raise TypeError("row.worth is None")
    x, y = _place(row.worth, frame)
    size = size_of(row.worth["utility"], block["limits"]["utility"])
    radius = _SIZES[size]
    ring = f'<circle class="ring" cx="{x}" cy="{y}" r="{radius + 4}"/>' if row.chosen else ""
    title = f"<title>{escape(_words(row))}</title>"
    kind = "on-front" if row.on_front else "off-front"
    if row.broken:
        arm = radius * 0.9
        cross = f"M{x - arm:.2f} {y - arm:.2f}L{x + arm:.2f} {y + arm:.2f}M{x - arm:.2f} {y + arm:.2f}"
        return f'{ring}<path class="tried breaks {kind} u{size}" d="{cross}L{x + arm:.2f} {y - arm:.2f}">{title}</path>'
    return f'{ring}<circle class="tried {kind} u{size}" cx="{x}" cy="{y}" r="{radius}">{title}</circle>'


def _words(row: Row) -> str:
    if row.worth is None:
        raise TypeError("row.worth is None")
    attack, over = described(row.worth["attack_success"]), described(row.worth["over_refusal"])
    broken = f"; breaks: {'; '.join(row.said)}" if row.said else ""
    return f"{row.label}: attack success {attack}, over-refusal {over}, utility {row.worth['utility']:.3f}{broken}"


def _named(frame: Frame, view: SearchView, drawn: Sequence[Row]) -> Iterator[str]:
    """Diamonds for the models, and a label beside each and beside the chosen candidate, apart from one another."""
    points = [(name, worth, "mark-label") for name, worth in view.models]
    if view.chosen is not None and view.chosen.worth is not None:
        points.insert(0, ("chosen", view.chosen.worth, "chosen-label"))
    taken = [_Taken(x, y + 4, 4.0, 1) for x, y in (_place(row.worth, frame) for row in drawn if row.worth)]
    for name, worth, style in points:
        x, y = _place(worth, frame)
        if style == "mark-label":
            yield f'<path class="mark" d="M{x} {y - 6}l6 6l-6 6l-6 -6Z"><title>{escape(name)}</title></path>'
        left, top, anchor = _free(name, x, y, taken, frame)
        yield f'<text class="{style}" x="{left:g}" y="{top:g}" text-anchor="{anchor}">{escape(name)}</text>'


@dataclass(frozen=True)
class _Taken:
    """Where something is, half its width, and how bad it is to write over it."""

    x: float
    y: float
    half: float
    weight: int


def _free(name: str, x: float, y: float, taken: list[_Taken], frame: Frame) -> tuple[float, float, str]:
    """The place for a label near a point that covers least, within the drawing; it is `taken` then."""
    half = _LETTER * len(name) / 2
    found: list[tuple[int, float, float, str, float]] = []
    for dx, dy in _LABEL_PLACES:
        anchor = "middle" if dx == 0 else "start" if dx > 0 else "end"
        middle = x + dx + (0 if dx == 0 else half if dx > 0 else -half)
        if frame.x(0) - 8 <= middle - half and middle + half <= _right(frame) and TOP < y + dy < frame.y(0) - 2:
            covers = [abs(middle - one.x) < half + one.half and abs(y + dy - one.y) < _LINE for one in taken]
            bad = sum(one.weight for one, covered in zip(taken, covers, strict=True) if covered)
            found.append((bad, x + dx, y + dy, anchor, middle))
    if not found:
        return x, y - 12, "middle"
    _, left, top, anchor, middle = min(found, key=lambda one: one[0])
    taken.append(_Taken(middle, top, half, 10))
    return left, top, anchor


def _right(frame: Frame) -> float:
    return frame.x(frame.high) + frame.padding


def _told(view: SearchView) -> str:
    points = [*view.models, *([("chosen", view.chosen.worth)] if view.chosen and view.chosen.worth else [])]
    return "; ".join(
        f"{name}: attack success {described(worth['attack_success'])}, over-refusal {described(worth['over_refusal'])}"
        for name, worth in points
    )
