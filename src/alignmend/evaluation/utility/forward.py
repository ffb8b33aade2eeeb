"""One pass of a causal model over rows of tokens: padded on the right, in batches that fit the memory."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from alignmend.errors import ParameterError, RecipeError
from alignmend.evaluation.batching import if_it_fits
from alignmend.evaluation.devices import automatic_batch_size

if TYPE_CHECKING:
    import torch

Tokens = Sequence[int]
Item = TypeVar("Item")
Result = TypeVar("Result")

LARGEST_LOGITS = 64_000_000
"""Logits of one batch, at most (256 MB in float32), unless a single row needs more."""


def in_batches(
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], Result],
    *,
    model: Any,
    batch_size: int | None,
    positions: Callable[[Sequence[Item]], int],
) -> Iterator[Result]:
    """`work` on consecutive parts of `items`, which should be sorted, longest first.

    `positions` counts the positions (rows x length) of a part whose logits are computed. Without a `batch_size` it is
    found by the model's size. It is halved where memory is too small, and `NoMemoryError` where one item is too much.
    """
    if batch_size is not None and batch_size < 1:
        raise ParameterError(f"batch_size must be at least 1, not {batch_size}")
    start, size = 0, batch_size or automatic_batch_size(model)
    room = LARGEST_LOGITS // max(1, int(getattr(model.config, "vocab_size", 1)))
    while start < len(items):
        part = items[start : start + size]
        while len(part) > 1 and positions(part) > room:
            part = part[: (len(part) + 1) // 2]
        result = if_it_fits(work, part)
        if result is None:
            size = len(part) // 2
        else:
            yield result
            start += len(part)


def logits_from(model: Any, rows: Sequence[Tokens], first: int = 0) -> torch.Tensor:
    """Logits (rows, longest - first, vocabulary) of position `first` and all later ones; padding's are meaningless."""
    import torch

    ids, mask = right_padded(rows, next(model.parameters()).device)
    options: dict[str, Any] = {}
    if first and "logits_to_keep" in inspect.signature(model.forward).parameters:
        options["logits_to_keep"] = torch.arange(first, ids.shape[1], device=ids.device)
    logits: torch.Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False, **options).logits
    return logits if options else logits[:, first:]


def right_padded(rows: Sequence[Tokens], device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask (rows, longest), zeros behind each row's end."""
    import torch

    length = max(map(len, rows))
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros(len(rows), length, dtype=torch.long)
    for place, tokens in enumerate(rows):
        ids[place, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
        mask[place, : len(tokens)] = 1
    return ids.to(device), mask.to(device)


def check_length(model: Any, length: int, what: str) -> None:
    """`RecipeError` where `length` tokens are more than the model has positions."""
    limit = getattr(model.config, "max_position_embeddings", None)
    if isinstance(limit, int) and length > limit:
        raise RecipeError(
            f"{what} has {length} tokens and the model {limit} positions", advice="shorten it or leave it out"
        )
