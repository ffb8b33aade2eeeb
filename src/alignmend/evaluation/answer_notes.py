"""What a reader of a run must know of its answers as a whole: answers that never begin, or never end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from alignmend.evaluation.records import Generation

_FEW = 4
"""So many answers that all reach the token limit are no accident."""


def answer_notes(generations: Sequence[Generation]) -> tuple[str, ...]:
    """Notes on what one model wrote; what was chosen among options is no writing."""
    return tuple(_notes([row for row in generations if row.scores is None]))


def _notes(written: Sequence[Generation]) -> Iterator[str]:
    cut = [row for row in written if row.finish_reason == "length"]
    silent = [row for row in written if row.reasoning and not row.response.strip()]
    if silent:
        name, total = silent[0].model, len(written)
        ended = sum(row.finish_reason == "length" for row in silent)
        who = (
            f"no answer of {name!r} begins"
            if len(silent) == total
            else f"{len(silent)} of {total} answers of {name!r} never begin"
        )
        yield f"{who}: there are thoughts alone, which count as empty and incoherent, {_of_silence(ended)}"
    if len(cut) == len(written) >= _FEW and len(silent) < len(written):
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
