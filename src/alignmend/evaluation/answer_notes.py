"""What a reader of a run must know of its answers as a whole: answers that never begin, or never end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from alignmend.evaluation.records import Generation

_FEW = 4
"""So many answers that all reach the token limit are no accident."""


def answer_notes(generations: Sequence[Generation]) -> tuple[str, ...]:
    """Notes on what one model wrote; what was chosen among options is no writing."""
    written = _written(generations)
    return (*_withheld(written), *silence_notes(generations), *_endless(written))


def _withheld(written: Sequence[Generation]) -> Iterator[str]:
    for withheld, told in (("filter", "withheld by the server's filter"), ("rejected", "rejected by the server")):
        if without := [row for row in written if row.withheld == withheld]:
            yield (
                f"{len(without)} of {len(written)} prompts were {told}: they count as unclear and in "
                "withheld_rate, and say nothing of the model; the server's words are in the records"
            )


def silence_notes(generations: Sequence[Generation]) -> tuple[str, ...]:
    """Of answers that are thoughts alone."""
    written = _written(generations)
    silent = [row for row in written if row.reasoning and not row.response.strip() and not row.withheld]
    if not silent:
        return ()
    name = silent[0].model
    ended = sum(row.finish_reason == "length" for row in silent)
    who = f"{len(silent)} of {len(written)} answers of {name!r} never begin"
    if len(silent) == len(written):
        who = f"no answer of {name!r} begins"
    return (f"{who}: there are thoughts alone, which count as empty and incoherent, {_of_silence(ended)}",)


def _written(generations: Sequence[Generation]) -> list[Generation]:
    return [row for row in generations if row.scores is None]


def _endless(written: Sequence[Generation]) -> Iterator[str]:
    cut = [row for row in written if row.finish_reason == "length"]
    if len(cut) == len(written) >= _FEW and any(row.response.strip() for row in cut):
        yield (
            f"every answer of {cut[0].model!r} reaches the token limit: raise --max-new-tokens, or see whether its "
            "generation configuration names the right end token (eos_token_id)"
        )


def _of_silence(cut: int) -> str:
    """What it says of the model, and what to set."""
    if cut == 0:
        return (
            "and all of them end by themselves: the model does not close the thought that its chat template opens. Try "
            "--thinking off where the template has a switch, another --template, or --reasoning-tags where thoughts "
            "end in a tag of the model's own"
        )
    return (
        f"and {cut} of them are cut off at the token limit, which says nothing of what the model would answer: set "
        "--max-thinking-tokens higher (for a server also --max-new-tokens), or --thinking off where the chat template "
        "has a switch; where thoughts end in a tag of the model's own, name it with --reasoning-tags"
    )
