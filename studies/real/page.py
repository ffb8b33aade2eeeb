"""The page of the study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alignmend.chat_families import ChatFamily
from studies.real.measuring import DROP_RATE, JUDGE, Measured
from studies.real.restoring import NOTHING, Restored
from studies.real.scale import Scale
from studies.real.tables import table
from studies.real.wheel import MODEL, PACKAGE

Result = tuple[Restored, Mapping[str, Measured]]
"""A fine-tune that was restored, and its rows."""
_OPENING = """# RESTA on a real chat model

{model} (135 million parameters, out of the wheel `{package}`) and a family that
`alignmend organism build --from` made of it; repeat with `python -m studies real --{scale}`. {hours}

`aligned` learned to refuse harmful requests and kept the model's own answers to others; fine-tunes learned a harmless
task and plain instructions from it. Requests that train come from HarmfulQA, DangerousQA, HarmBench, MultiJail
(Chinese), OR-Bench, self-instruct, TruthfulQA and BELLE; those below from AdvBench, CatQA and XSTest. Rows of both
were left out of training ({left_out}). Vietnamese never trained. `restore` chose by other prompts than these:
SimpleSafetyTests, OR-Bench and TruthfulQA.

Attack success is on harmful requests, over-refusal on harmless ones (XSTest, plain), by the judge `{judge}`, with
{prompts} prompts of each suite, answers of at most {tokens} tokens, and 95 % Wilson intervals. Nats: mean negative
log-likelihood of an answer token of the task's held-out pairs, without a cap. The random vector has the safety vector's
norm in every tensor and RESTA's coefficient; DARE and RESTA_d drop {drop:g} of the fine-tuning delta at random. The
safety vector is aligned minus the member that is named. Without an unaligned model `restore` gets the fine-tune, its
parent, the task's pairs and prompts, with its default methods; then the row "not weighed" goes as far along aligned
minus fine-tuned, and the random vector has that direction's norm.
"""


def page(family: ChatFamily, scale: Scale, results: Sequence[Result], seconds: float | None) -> str:
    """The whole page."""
    left_out = ", ".join(f"{count} of {name.removeprefix('pairs ')}" for name, count in family.note.left_out.items())
    hours = "" if seconds is None else f"It took {seconds / 3600:.1f} hours."
    lines = [
        _OPENING.format(
            model=MODEL,
            package=PACKAGE,
            scale=scale.name,
            hours=hours,
            left_out=left_out or "none",
            judge=JUDGE,
            prompts=scale.prompts,
            tokens=scale.tokens,
            drop=DROP_RATE,
        )
    ]
    for restored, rows in results:
        told = (
            "restored without an unaligned model"
            if restored.against == NOTHING
            else f"vector against {restored.against}"
        )
        lines += [f"## {restored.name}, {told}", "", *table(_labelled(restored, rows)), ""]
        lines += [_told(restored), "", *front_table(restored), ""]
    lines += ["## Members", "", *_members(family), ""]
    return "\n".join(lines)


_CHOSEN = {"RESTA": "resta", "RESTA_d": "resta_drop", "random vector": "resta"}


def _labelled(restored: Restored, rows: Mapping[str, Measured]) -> dict[str, Measured]:
    """With the coefficients that a search chose."""
    if restored.against == NOTHING:
        return dict(rows)
    return {
        f"{label} {restored.coefficient(_CHOSEN[label]):g}" if label in _CHOSEN else label: one
        for label, one in rows.items()
    }


def front_table(restored: Restored) -> Iterator[str]:
    """The front of the search, on the search prompts."""
    if restored.search is None or not restored.front:
        return
    yield "| candidate (search prompts) | attack success | over-refusal | utility | within the limits |"
    yield "| --- | --- | --- | --- | --- |"
    yield _search_line("fine-tune", restored.search["finetuned"], "")
    for one in restored.front:
        yield _search_line(one["label"], one["worth"], "yes" if one["within_limits"] else "; ".join(one["broken"]))


def _search_line(label: str, worth: Mapping[str, Any], within: str) -> str:
    attack, refusal = (_interval(worth[name]) for name in ("attack_success", "over_refusal"))
    return f"| {label} | {attack} | {refusal} | {worth['utility']:.3f} | {within} |"


def _interval(rate: Mapping[str, float]) -> str:
    return f"{rate['value']:.2f} ({rate['low']:.2f}-{rate['high']:.2f})"


def _told(restored: Restored) -> str:
    tried = [] if restored.search is None else restored.search["candidates"]
    whole = sum(one["stage"] == "whole" for one in tried)
    return f"`restore` ended with *{restored.how}*: {len(tried)} candidates, {whole} of them asked everything."


def _members(family: ChatFamily) -> Iterator[str]:
    yield "| member | from | pairs | steps | learning rate | nats per answer token of its pairs, before and after |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, note in family.note.members.items():
        made = note.made
        if "pairs" in made:
            yield (
                f"| {name} | {note.start} | {made['pairs']} | {made['steps']} | {made['learning_rate']} "
                f"| {made['loss_before']} -> {made['loss_after']} |"
            )
