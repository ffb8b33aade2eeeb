"""What an adapter does to the embedding and to the output head of a base that ties them: one weight, one change."""

from __future__ import annotations

import re
from collections.abc import Mapping

from alignmend.errors import MismatchError
from alignmend.io.adapter_parts import AdapterPart, LowRankPart, ReplacedPart, TokenRowsPart
from alignmend.io.same_values import same_transposed, same_values
from alignmend.io.tensors import TensorEntry

INPUT = re.compile(r"(^|\.)(embed_tokens|wte|word_embeddings|embed_in|tok_embeddings)\.weight$")
OUTPUT = re.compile(r"(^|\.)(lm_head|embed_out|output)\.weight$")
Parts = Mapping[str, tuple[AdapterPart, ...]]


def on_one_weight(location: str, parts: Parts, tensors: Mapping[str, TensorEntry], *, ensured: bool) -> Parts:
    """The parts of an adapter on a base whose head is its embedding, with that weight changed once.

    Copies that were not trained change nothing. Rows of tokens that only the embedding has are the head's too, and so
    is everything where PEFT was told to keep both tied (`ensured`). Raises `MismatchError` where the embedding and the
    head would become two weights.
    """
    stored = next((entry for name, entry in sorted(tensors.items()) if INPUT.search(name) or OUTPUT.search(name)), None)
    changing = {
        name: tuple(part for part in found if stored is None or not _is_copy(part, stored))
        for name, found in parts.items()
        if INPUT.search(name) or OUTPUT.search(name)
    }
    others = {name: found for name, found in parts.items() if name not in changing}
    changes = {name: found for name, found in changing.items() if found}
    if not changes:
        return others
    embedding = {name: found for name, found in changes.items() if INPUT.search(name)}
    head = {name: found for name, found in changes.items() if name not in embedding}
    if len(embedding) > 1 or len(head) > 1 or not _is_one(embedding, head, ensured=ensured):
        raise MismatchError(
            f"{location} changes {' and '.join(changes)}{_rows(changes)}, but the base ties its output head to "
            "its input embedding: one weight would have to take two different values;",
            advice=(
                "save the base with tie_word_embeddings=false and both copies, or train the adapter with "
                "ensure_weight_tying=True"
            ),
        )
    ((name, found),) = (embedding or head).items()
    return {**others, _stored_name(name, tensors): found}


def _is_copy(part: AdapterPart, stored: TensorEntry) -> bool:
    return isinstance(part, ReplacedPart) and same_values(part.saved, stored)


def _is_one(embedding: Parts, head: Parts, *, ensured: bool) -> bool:
    """Whether the adapted embedding and the adapted head are the same weight."""
    if embedding and head:
        (one,), (other,) = embedding.values(), head.values()
        return len(one) == len(other) and all(map(_alike, one, other))
    rows_alone = all(isinstance(part, TokenRowsPart) for found in embedding.values() for part in found)
    return ensured or (bool(embedding) and rows_alone)


def _alike(one: AdapterPart, other: AdapterPart) -> bool:
    match one, other:
        case ReplacedPart(saved), ReplacedPart(same):
            return same_values(saved, same)
        case TokenRowsPart(trained=trained, rows=rows), TokenRowsPart(trained=same, rows=same_rows):
            return rows == same_rows and same_values(trained, same)
        case LowRankPart(a, b, scale, embedding=True), LowRankPart(same_a, same_b, same_scale, embedding=False):
            return scale == same_scale and same_transposed(a, same_b) and same_transposed(b, same_a)
        case _:
            return False


def _rows(changes: Parts) -> str:
    """Which rows are trained, where rows are."""
    told = [
        f"rows {', '.join(map(str, part.rows[:8]))} of {name}"
        for name, found in changes.items()
        for part in found
        if isinstance(part, TokenRowsPart)
    ]
    return f" ({'; '.join(told)})" if told else ""


def _stored_name(name: str, tensors: Mapping[str, TensorEntry]) -> str:
    """The parameter's own name; the partner's, where the base stores the one weight under that alone."""
    kind, partner = (INPUT, OUTPUT) if INPUT.search(name) else (OUTPUT, INPUT)
    if any(map(kind.search, tensors)):
        return name
    return next((stored for stored in sorted(tensors) if partner.search(stored)), name)
