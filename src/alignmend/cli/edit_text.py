"""What `alignmend edit` prints for people."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

_LONGEST = 48


def edit_lines(told: Mapping[str, Any], *, model: bool) -> Iterator[str]:
    """Lines about every edit, the totals and notes of a document of `edits.json` with `out`."""
    count = len(told["edits"])
    if told["out"] is None:
        yield f"{count} edits, not written"
    elif model:
        yield f"{told['out']}: {count} edits; what changed: alignmend diff ORIGINAL {shlex.quote(told['out'])}"
    else:
        yield f"{told['out']}/edits.json: {count} edits, each alone on the original"
    for edit in told["edits"]:
        yield from _edit(edit)
    yield f"  in all: {', '.join(_total(name, each) for name, each in told['totals'].items())}"
    if count > 1:
        yield from _shifts(told.get("safety", ()), "  ")
    for note in told["notes"]:
        yield f"  note  {note}"


def _edit(edit: Mapping[str, Any]) -> Iterator[str]:
    before, after = edit["before"], edit["after"]
    leads = ", leads" if after["leads"] else ""
    yield (
        f"  {edit['subject']} -> {_short(edit['target'])}: {before['probability']:.2g} -> {after['probability']:.2g}"
        f"{leads} (layer {edit['layer']}, growth {edit['growth']:.2f})"
    )
    yield f"    said before: {_short(edit['answer_before'])}"
    yield f"    says now:    {_short(edit['answer_after']) or '(nothing)'}"
    for name, label in (("paraphrases", "paraphrases follow"), ("neighbourhood", "neighbours stay")):
        if edit[name]:
            yield f"    {label}: {sum(probe['success'] for probe in edit[name])} of {len(edit[name])}"
    yield from _shifts(edit.get("safety", ()), "    ")


def _shifts(changes: Any, indent: str) -> Iterator[str]:
    for change in changes:
        before, after = change["before"]["value"], change["after"]["value"]
        moved = change["metric"] == "attack_success_rate" or before != after
        if moved:
            p_value = "" if change["p_value"] is None else f", p {change['p_value']:.2g}"
            yield (
                f"{indent}{change['suite']}, {change['metric'].replace('_', ' ')}: {before:.3f} -> {after:.3f} "
                f"({change['difference']:+.3f}, 95 % {change['low']:+.3f} to {change['high']:+.3f}, "
                f"n {change['n']}{p_value})"
            )


def _total(name: str, each: Mapping[str, Any]) -> str:
    return f"{name} {each['count']} of {each['n']}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
