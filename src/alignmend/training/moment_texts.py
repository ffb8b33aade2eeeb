"""The texts that moments are taken over: prompts with answers from files, or with answers that models give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignmend.errors import ParameterError
from alignmend.io.moments import KINDS, TextKind
from alignmend.training.encoding import encode, encode_prompts, template_for
from alignmend.training.loop import TokenRow
from alignmend.training.moment_settings import MomentSettings
from alignmend.training.pairs import PairsFile, read_pairs

Files = Mapping[TextKind, PairsFile]
Answers = Sequence[tuple[int, ...]]
"""Token ids, of the prompts of one kind that lack an answer, in order."""


@dataclass(frozen=True)
class Texts:
    """Token rows of each kind of text, in the files' order."""

    rows: Mapping[TextKind, tuple[TokenRow, ...]]
    template: str
    notes: tuple[str, ...]


def read_texts(paths: Mapping[TextKind, Path], *, aligned: bool, own: bool) -> Files:
    """The files of each kind; harmful prompts may lack answers where an `aligned` model gives them, others where the
    model's `own` are taken.

    Raises `ParameterError` where answers are missing that nobody gives, `FileFormatError` for what cannot be read.
    """
    found = {kind: read_pairs(paths[kind], safe=True, answered=False) for kind in KINDS if kind in paths}
    for kind, file in found.items():
        lacking = without_answers(file).pairs
        if not lacking or (aligned if kind == "harmful" else own):
            continue
        where = f"{file.path}, line {lacking[0].line}: {len(lacking)} {kind} prompts have no answer"
        if kind == "harmful":
            raise ParameterError(f"{where}", advice="give refusals, or --aligned MODEL, whose answers are taken")
        raise ParameterError(
            f"{where}", advice="give answers, or --own-answers to take those that the model gives itself"
        )
    return found


def without_answers(file: PairsFile) -> PairsFile:
    """The rows of a file that hold a prompt alone."""
    return replace(file, pairs=tuple(pair for pair in file.pairs if not pair.response))


def encode_texts(tokenizer: Any, files: Files, answers: Mapping[TextKind, Answers], settings: MomentSettings) -> Texts:
    """Rows as they are seen: cut after the tokens that count. `answers` are to the prompts that lack one."""
    rows: dict[TextKind, tuple[TokenRow, ...]] = {}
    notes = []
    for kind, file in files.items():
        given = iter(_given(tokenizer, file, settings))
        heads = encode_prompts(tokenizer, without_answers(file), template=settings.template)
        pairs = zip(heads, answers.get(kind, ()), strict=True)
        made = iter([TokenRow((*head, *answer)[: settings.max_length], len(head)) for head, answer in pairs])
        found = [next(given if pair.response else made) for pair in file.pairs]
        if settings.positions == "all" and (cut := sum(len(row.tokens) == settings.max_length for row in found)):
            notes.append(f"{cut} {kind} texts are as long as {settings.max_length} tokens: longer ones were cut")
        rows[kind] = tuple(_cut(row, settings) for row in found)
    return Texts(rows, template_for(settings.template, tokenizer), tuple(notes))


def _given(tokenizer: Any, file: PairsFile, settings: MomentSettings) -> Sequence[TokenRow]:
    """The rows with an answer of the file's own."""
    answered = replace(file, pairs=tuple(pair for pair in file.pairs if pair.response))
    return encode(tokenizer, answered, template=settings.template, max_length=settings.max_length).rows


def _cut(row: TokenRow, settings: MomentSettings) -> TokenRow:
    """What follows the last counted token changes nothing before it."""
    if settings.positions == "all":
        return row
    return replace(row, tokens=row.tokens[: row.answer_start + settings.answer_tokens])
