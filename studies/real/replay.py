"""Whether the search's first stage predicts what asking finds: a search without it, replayed with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignmend.restore.screening import Curve, Screening, Seen, calibrate, rank_correlation
from studies.real.restoring import Restored

_CURVES = Screening(Curve(0.0, 1.0), Curve(0.0, 1.0))
"""That there are any; what they predict was recorded."""
_OPENING = """# Does the first stage of `restore` predict what asking finds?

`restore` on the real family ({model}) with every candidate asked (`--no-screening`), then replayed: what the first
stage would have left out, in the same order, and whether the front of the whole search had it. Target: rank
correlation of predicted and measured attack success at least {target:g}, and nothing of the front left out. {prompts}
search prompts of each suite. Repeat with `python -m studies real-screening --{scale}`.
"""
TARGET = 0.8


@dataclass(frozen=True)
class Replayed:
    """A search without the first stage, and what the stage would have done."""

    asked: int
    correlation: float | None
    """Spearman's, of predicted and measured attack success."""
    left_out: tuple[str, ...]
    """Candidates that would not have been asked."""
    lost: tuple[str, ...]
    """Those of them that are on the front."""


def replay(candidates: Sequence[Mapping[str, Any]]) -> Replayed:
    """Of the candidates of a search block, in order; those that were not asked everything do not count."""
    every = [one for one in candidates if one["stage"] == "whole" and one["predicted"] is not None]
    seen: list[Seen] = []
    measured: list[Mapping[str, Any]] = []
    left_out = []
    for one in every:
        known = calibrate(_CURVES, seen)
        if known.on and any(_surely_behind(one, other, known.margins) for other in measured):
            left_out.append(one)
            continue
        seen.append(_seen(one))
        measured.append(one)
    pairs = [_seen(one) for one in every]
    return Replayed(
        len(every),
        rank_correlation([one.predicted[0] for one in pairs], [one.measured[0] for one in pairs]),
        tuple(one["label"] for one in left_out),
        tuple(one["label"] for one in left_out if one["on_front"]),
    )


def _seen(one: Mapping[str, Any]) -> Seen:
    told, worth = one["predicted"], one["worth"]
    return Seen(
        (told["attack_success"], told["over_refusal"]),
        (worth["attack_success"]["value"], worth["over_refusal"]["value"]),
    )


def _surely_behind(one: Mapping[str, Any], other: Mapping[str, Any], margins: tuple[float, float]) -> bool:
    told, worth, better = one["predicted"], one["worth"], other["worth"]
    return bool(
        better["attack_success"]["value"] + better["noise"]["value"] <= told["attack_success"] - margins[0]
        and better["over_refusal"]["value"] <= told["over_refusal"] - margins[1]
        and better["utility"] >= worth["utility"]
    )


def page(found: Mapping[str, Restored], *, model: str, prompts: int, scale: str) -> str:
    """A row for each fine-tune, then every candidate's prediction beside its measurement."""
    lines = [_OPENING.format(model=model, target=TARGET, prompts=prompts, scale=scale)]
    lines += [
        "| fine-tune | candidates asked | rank correlation | would be left out | of these on the front | target |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, restored in found.items():
        one = replay(_candidates(restored))
        known = "none" if one.correlation is None else f"{one.correlation:.2f}"
        met = "met" if one.correlation is not None and one.correlation >= TARGET and not one.lost else "**missed**"
        lines.append(f"| {name} | {one.asked} | {known} | {len(one.left_out)} | {len(one.lost)} | {met} |")
    for name, restored in found.items():
        lines += ["", f"## {name}", "", *_table(_candidates(restored))]
    return "\n".join([*lines, ""])


def _candidates(restored: Restored) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = () if restored.search is None else restored.search["candidates"]
    return found


def _table(candidates: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "| candidate | attack success: predicted, measured | over-refusal: predicted, measured | on the front |"
    yield "| --- | --- | --- | --- |"
    for one in candidates:
        if one["stage"] == "whole" and one["predicted"] is not None:
            seen = _seen(one)
            cells = (f"{seen.predicted[place]:.2f}, {seen.measured[place]:.2f}" for place in (0, 1))
            yield f"| {one['label']} | {' | '.join(cells)} | {'yes' if one['on_front'] else ''} |"
