"""Pairs as tokens: the chat template or a plain one, and where the answer begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from alignmend.errors import FileFormatError, ParameterError
from alignmend.io.pretrained import one_line
from alignmend.nearest import nearest
from alignmend.training.loop import TokenRow
from alignmend.training.pairs import PairsFile, TrainingPair

AUTO = "auto"
CHAT = "chat"
PLACE = "{prompt}"
PLAIN: Mapping[str, str] = MappingProxyType(
    {
        "raw": PLACE,
        "question-answer": f"Question: {PLACE}\nAnswer: ",
    }
)
"""Plain-text templates: what stands before the answer."""


@dataclass(frozen=True)
class Encoded:
    """Token rows, one per pair, in the file's order."""

    rows: tuple[TokenRow, ...]
    template: str
    """The template that was used, never `auto`."""
    shortened: int
    """How many answers were cut at the longest allowed length."""

    @property
    def answer_tokens(self) -> int:
        """How many tokens carry loss."""
        return sum(len(row.tokens) - row.answer_start for row in self.rows)


def template_for(name: str, tokenizer: Any) -> str:
    """What `name` means for a tokenizer: `auto` is its chat template, or `raw` where it has none.

    A text with `{prompt}` in it is a template by itself. Raises `ParameterError` for anything unknown.
    """
    has_chat = bool(getattr(tokenizer, "chat_template", None))
    if name == AUTO:
        return CHAT if has_chat else "raw"
    if name == CHAT and not has_chat:
        raise ParameterError(
            "the tokenizer has no chat template", advice="use template 'auto', 'raw' or 'question-answer'"
        )
    if name != CHAT and name not in PLAIN and PLACE not in name:
        known = (AUTO, CHAT, *PLAIN)
        near = nearest(name, known) or f"; known: {', '.join(known)}"
        raise ParameterError(f"unknown template {name!r}{near} (a text with {PLACE} in it is a template too)")
    return name


def encode(tokenizer: Any, file: PairsFile, *, template: str = AUTO, max_length: int = 1024) -> Encoded:
    """Token rows of all pairs of `file`, at most `max_length` tokens each.

    Prompt and answer are tokenized apart, as when a model answers. The answer ends with whatever the template puts
    after it, at the least with the end token, so that ending is learned too, unless the pair is not finished. Answers
    that are too long are cut and counted. Raises `FileFormatError` where a prompt alone leaves no room,
    `ParameterError` for a template.
    """
    chosen = template_for(template, tokenizer)
    rows, shortened = [], 0
    for pair in file.pairs:
        head, tail = _halves(tokenizer, pair, chosen, file.path)
        if len(head) >= max_length or not head:
            raise FileFormatError(
                f"{file.path}, line {pair.line}: the prompt has {len(head)} tokens, and a row may have {max_length}",
                advice="shorten it, or raise the maximal length (where the model allows it)",
            )
        shortened += len(head) + len(tail) > max_length
        rows.append(TokenRow((*head, *tail)[:max_length], len(head)))
    return Encoded(tuple(rows), chosen, shortened)


def encode_prompts(tokenizer: Any, file: PairsFile, *, template: str = AUTO) -> tuple[tuple[int, ...], ...]:
    """The tokens of every pair up to where its answer begins, whether it has one or not."""
    chosen = template_for(template, tokenizer)
    stand_in = (replace(pair, response=pair.response or ".") for pair in file.pairs)  # some templates refuse none
    return tuple(tuple(_halves(tokenizer, pair, chosen, file.path)[0]) for pair in stand_in)


def _halves(tokenizer: Any, pair: TrainingPair, template: str, path: Path) -> tuple[list[int], list[int]]:
    if template == CHAT:
        head, tail = _chat(tokenizer, pair, path)
        return _ids(tokenizer, head), _ids(tokenizer, tail if pair.finished else pair.response)
    if not pair.is_single:
        raise FileFormatError(
            f"{path}, line {pair.line}: a conversation of several turns does not fit template {template!r}",
            advice="use a tokenizer with a chat template",
        )
    before, _, after = PLAIN.get(template, template).partition(PLACE)
    begun = before + pair.context[0].content + after
    stripped = begun.rstrip(" ")  # most tokenizers join a space to the word that follows it
    head_ids = list(tokenizer(stripped)["input_ids"])
    if head_ids and head_ids[-1] == tokenizer.eos_token_id:
        del head_ids[-1]
    gap = begun[len(stripped) :]
    return head_ids, _ids(tokenizer, gap + pair.response) + (_end(tokenizer) if pair.finished else [])


def _chat(tokenizer: Any, pair: TrainingPair, path: Path) -> tuple[str, str]:
    """The text up to the answer, and the answer with what the template puts after it."""
    asked = [asdict(message) for message in pair.context]
    answered = [*asked, {"role": "assistant", "content": pair.response}]
    try:
        head = str(tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True))
        whole = str(tokenizer.apply_chat_template(answered, tokenize=False))
    except Exception as error:
        raise FileFormatError(f"{path}, line {pair.line}: the chat template refuses it: {one_line(error)}") from error
    end = tokenizer.eos_token or ""
    tail = whole.removeprefix(head).rstrip() if whole.startswith(head) else ""
    if not tail.startswith(pair.response.rstrip()):  # a template that writes finished turns otherwise than begun ones
        return head, pair.response + end
    closed = tail != pair.response.rstrip()
    return head, tail if closed else pair.response + end


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _end(tokenizer: Any) -> list[int]:
    return [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]


@dataclass(frozen=True)
class GuidedRow(TokenRow):
    """A row with what an objective needs beside it."""

    reference: float | None = None
    """Negative log-likelihood of its whole answer by the untrained model, nats."""
    retain: TokenRow | None = None
    """A row whose answer must stay likely."""


def collate(rows: Sequence[TokenRow]) -> dict[str, Any]:
    """A batch, padded on the right: `input_ids`, `attention_mask`, and `labels` that are -100 outside answers.

    Guided rows add `reference`, or their retained partners as a second half, whose answers are `retain_labels` alone.
    """
    import torch

    guided = [row for row in rows if isinstance(row, GuidedRow)]
    retained = [row.retain for row in guided if row.retain is not None]
    batch = _padded([*rows, *retained])
    if retained:
        labels, second = batch["labels"], torch.full_like(batch["labels"], -100)
        second[len(rows) :] = labels[len(rows) :]
        labels[len(rows) :] = -100
        batch["retain_labels"] = second
    if references := [row.reference for row in guided if row.reference is not None]:
        batch["reference"] = torch.tensor(references)
    return batch


def _padded(rows: Sequence[TokenRow]) -> dict[str, Any]:
    import torch

    shape = (len(rows), max(len(row.tokens) for row in rows))
    tokens, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, -100, dtype=torch.long)
    for index, row in enumerate(rows):
        length = len(row.tokens)
        tokens[index, :length] = torch.tensor(row.tokens)
        mask[index, :length] = 1
        labels[index, row.answer_start : length] = torch.tensor(row.tokens[row.answer_start :])
    return {"input_ids": tokens, "attention_mask": mask, "labels": labels}
