"""Importance of each weight for the answers of a data set: SNIP (gradients) and Wanda (activations).

SNIP: Lee et al., arXiv 1810.02340, as used by Wei et al., arXiv 2402.05162; Wanda: Sun et al., arXiv 2306.11695.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from alignmend.errors import FileFormatError, MismatchError, NonFiniteError
from alignmend.training.encoding import collate
from alignmend.training.loop import TokenRow
from alignmend.training.objectives import row_losses
from alignmend.training.score_settings import Order, Tokens
from alignmend.training.scored import Target

WeightOf = Callable[[str], Tensor]
"""The weight that a gradient is multiplied with, by its name on disk."""
Tick = Callable[[], None]


def snip(
    network: Any,
    rows: Sequence[TokenRow],
    targets: Sequence[Target],
    *,
    order: Order = "absolute-then-mean",
    batch_size: int = 1,
    weight: WeightOf | None = None,
    tick: Tick = lambda: None,
) -> dict[str, Tensor]:
    """Score by name: `mean over rows of |W * dL/dW|`, or with `mean-then-absolute` the absolute value of the mean.

    L is the mean negative log-likelihood of one row's counted tokens, in nats, so that every row counts the same. W is
    the weight itself unless `weight` gives another. An absolute value of each row needs a backward pass of each row:
    then rows pass one by one, whatever `batch_size`. Sums are float32 (float64 for a float64 model) on the CPU.
    Raises `NonFiniteError`.
    """
    size = 1 if order == "absolute-then-mean" else batch_size
    sums = {target.name: torch.zeros(target.parameter.shape, dtype=_wide(target.parameter)) for target in targets}
    with _gradients_of(network, targets), ExitStack() as hooks:
        for target in targets:
            factor = target.parameter.detach() if weight is None else weight(target.name)
            factor = factor.to(target.parameter.device, _wide(target.parameter))
            add = _adding(sums[target.name], factor, absolute=order == "absolute-then-mean")
            hook = target.parameter.register_post_accumulate_grad_hook(add)  # type: ignore[no-untyped-call]
            hooks.callback(hook.remove)
        for batch in _batches(network, rows, size):
            labels = batch.pop("labels")
            row_losses(network(**batch, use_cache=False).logits, labels).sum().backward()  # type: ignore[no-untyped-call]
            for _ in range(len(labels)):
                tick()
    return {name: _finite(name, total.abs_().div_(len(rows))) for name, total in sums.items()}


def wanda(
    network: Any, rows: Sequence[TokenRow], targets: Sequence[Target], *, batch_size: int = 1, tick: Tick = lambda: None
) -> dict[str, Tensor]:
    """Score by name: `|W_ij| * ||X_j||`, X_j what enters column j at all counted tokens of all rows, L2 norm.

    The norm is over the tokens themselves, answer or question, not over the places that predict them. Raises
    `MismatchError` for layers that do not see all tokens (experts), `NonFiniteError`.
    """
    squares: dict[str, Tensor] = {}
    counted: list[Tensor] = []
    with torch.no_grad(), ExitStack() as hooks:
        for target in targets:
            hooks.callback(target.module.register_forward_pre_hook(_observing(target.name, squares, counted)).remove)
        for batch in _batches(network, rows, batch_size):
            counted[:] = [batch.pop("labels") != -100]
            network(**batch, use_cache=False)
            for _ in range(len(counted[0])):
                tick()
        found = {}
        for target in targets:
            if target.name not in squares:
                raise MismatchError(f"{target.name} took no part in the forward pass: wanda cannot score it")
            weight = target.parameter.detach().to("cpu", _wide(target.parameter))
            norm = squares[target.name].sqrt().to(weight.dtype)
            found[target.name] = _finite(target.name, weight.abs() * (norm[:, None] if target.transposed else norm))
    return found


def rows_for(rows: Sequence[TokenRow], tokens: Tokens) -> tuple[TokenRow, ...]:
    """The rows with the loss where `tokens` says: on the answers, or on the questions alone, without their answers.

    Raises `FileFormatError` where a question is one token, which nothing predicts.
    """
    if tokens == "answer":
        return tuple(rows)
    if any(row.answer_start < 2 for row in rows):
        raise FileFormatError(
            "a question of one token has no token that another predicts", advice="use tokens 'answer'"
        )
    return tuple(replace(row, tokens=row.tokens[: row.answer_start], answer_start=1) for row in rows)


def _batches(network: Any, rows: Sequence[TokenRow], size: int) -> Iterator[dict[str, Tensor]]:
    device = next(network.parameters()).device
    for start in range(0, len(rows), size):
        yield {name: tensor.to(device) for name, tensor in collate(rows[start : start + size]).items()}


def _adding(total: Tensor, factor: Tensor, *, absolute: bool) -> Callable[[Tensor], None]:
    def add(parameter: Tensor) -> None:
        if parameter.grad is None:
            raise TypeError("parameter.grad is None")
        product = parameter.grad.to(total.dtype).mul_(factor)
        total.add_((product.abs_() if absolute else product).to("cpu"))
        parameter.grad = None

    return add


def _observing(name: str, squares: dict[str, Tensor], counted: Sequence[Tensor]) -> Callable[[Any, Any], None]:
    def observe(module: Any, given: tuple[Tensor, ...]) -> None:
        entering, places = given[0], counted[0]
        if entering.shape[:2] != places.shape:
            raise MismatchError(
                f"{name} sees {list(entering.shape)}, not every token in its place: wanda cannot score it"
            )
        found = entering[places].double().square().sum(dim=0).to("cpu")
        squares[name] = squares[name] + found if name in squares else found

    return observe


@contextmanager
def _gradients_of(network: Any, targets: Sequence[Target]) -> Iterator[None]:
    """Only the targets get gradients, and nothing stays changed afterwards."""
    before: Mapping[Any, bool] = {parameter: parameter.requires_grad for parameter in network.parameters()}
    was_training = network.training
    network.requires_grad_(False)
    for target in targets:
        target.parameter.requires_grad_(True)
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
        for parameter, wanted in before.items():
            parameter.requires_grad_(wanted)
            parameter.grad = None


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _finite(name: str, scores: Tensor) -> Tensor:
    if not bool(torch.isfinite(scores).all()):
        raise NonFiniteError(f"the scores of {name} hold NaN or infinity: is the model broken? (look at its loss)")
    return scores
