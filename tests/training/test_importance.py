"""SNIP and Wanda against their definitions, on a tiny model in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from alignmend.errors import FileFormatError, NonFiniteError
from alignmend.io.folder import open_checkpoint_folder
from alignmend.training.importance import rows_for, snip, wanda
from alignmend.training.loop import TokenRow
from alignmend.training.objectives import row_losses
from alignmend.training.score_settings import ScoreSettings
from alignmend.training.scored import Target, groups_of, targets_of

ROWS = (TokenRow((5, 9, 7, 30, 31), 2), TokenRow((8, 6, 4, 40, 41, 42, 43), 3), TokenRow((11, 50), 1))


@pytest.fixture(scope="module")
def network(tiny: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float64).eval()


@pytest.fixture(scope="module")
def targets(tiny: Path, network: Any) -> tuple[Target, ...]:
    return targets_of(network, open_checkpoint_folder(tiny), ScoreSettings())


def loss(network: Any, row: TokenRow) -> torch.Tensor:
    """From its definition: no batch, no padding, no labels."""
    logs = network(torch.tensor([row.tokens])).logits[0].log_softmax(dim=-1)
    found = [-logs[place - 1, row.tokens[place]] for place in range(row.answer_start, len(row.tokens))]
    return torch.stack(found).mean()


def brute_force(network: Any, target: Target, *, absolute: bool) -> torch.Tensor:
    products = [
        target.parameter.detach() * torch.autograd.grad(loss(network, row), target.parameter)[0] for row in ROWS
    ]
    each = torch.stack(products)
    return each.abs().mean(dim=0) if absolute else each.mean(dim=0).abs()


def test_scores_are_those_of_the_definition(network: Any, targets: tuple[Target, ...]) -> None:
    sample, mean = snip(network, ROWS, targets), snip(network, ROWS, targets, order="mean-then-absolute", batch_size=2)
    assert [target.name for target in targets][:2] == [
        "transformer.h.0.attn.c_attn.weight",
        "transformer.h.0.attn.c_proj.weight",
    ]
    for target in targets:
        torch.testing.assert_close(
            sample[target.name], brute_force(network, target, absolute=True), rtol=1e-6, atol=1e-12
        )
        torch.testing.assert_close(
            mean[target.name], brute_force(network, target, absolute=False), rtol=1e-6, atol=1e-12
        )
        assert bool((sample[target.name] >= mean[target.name] * (1 - 1e-9) - 1e-15).all())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_scores_are_those_of_finite_differences(network: Any, targets: tuple[Target, ...]) -> None:
    scores, step = snip(network, ROWS[:1], targets), 1e-5
    for target in targets[:3]:
        flat = target.parameter.detach().view(-1)
        for index in (0, 17, 200):
            before = flat[index].item()
            with torch.no_grad():
                sides = []
                for moved in (before + step, before - step):
                    flat[index] = moved
                    sides.append(loss(network, ROWS[0]).item())
                flat[index] = before
            slope = (sides[0] - sides[1]) / (2 * step)
            assert scores[target.name].view(-1)[index].item() == pytest.approx(abs(before * slope), rel=1e-4, abs=1e-10)


@pytest.mark.parametrize("order", ["absolute-then-mean", "mean-then-absolute"])
def test_neither_batches_nor_padding_nor_groups_change_scores(
    network: Any, targets: tuple[Target, ...], order: Any
) -> None:
    whole = snip(network, ROWS, targets, order=order)
    groups = groups_of(targets, 1)
    assert len(groups) == 2
    for size in (2, 3):
        split: dict[str, torch.Tensor] = {}
        for group in groups:
            split |= snip(network, ROWS, group, order=order, batch_size=size)
        assert list(split) == list(whole)
        for name, scores in whole.items():
            torch.testing.assert_close(split[name], scores, rtol=1e-6, atol=1e-12)


def test_what_stands_in_a_prompt_gives_no_gradient_of_its_own(network: Any) -> None:
    """The loss of every place but the answer's is left out: their logits do not matter."""
    logits = network(torch.tensor([ROWS[0].tokens])).logits.detach().requires_grad_()
    labels = torch.tensor([[-100, -100, *ROWS[0].tokens[2:]]])
    row_losses(logits, labels).sum().backward()  # type: ignore[no-untyped-call]
    used = logits.grad.abs().sum(dim=-1)[0] > 0
    assert used.tolist() == [False, True, True, True, False]


def test_questions_are_scored_without_their_answers(network: Any, targets: tuple[Target, ...]) -> None:
    asked = rows_for(ROWS[:2], "question")
    assert [(row.tokens, row.answer_start) for row in asked] == [((5, 9), 1), ((8, 6, 4), 1)]
    assert rows_for(ROWS, "answer") == ROWS
    name = targets[0].name
    assert not torch.equal(snip(network, asked, targets)[name], snip(network, ROWS[:2], targets)[name])
    with pytest.raises(FileFormatError, match="a question of one token"):
        rows_for(ROWS, "question")


def test_another_weight_takes_the_place_of_the_models(network: Any, targets: tuple[Target, ...]) -> None:
    name = targets[0].name
    own = snip(network, ROWS, targets[:1])[name]
    gradients = snip(network, ROWS, targets[:1], weight=lambda name: torch.ones(()))[name]
    torch.testing.assert_close(own, gradients * targets[0].parameter.detach().abs(), rtol=1e-9, atol=1e-15)


def test_wanda_by_hand(network: Any, targets: tuple[Target, ...]) -> None:
    """|W_ij| times the norm over answer tokens of input j; GPT-2 stores its matrices (in, out)."""
    target = next(one for one in targets if one.name.endswith("mlp.c_fc.weight"))
    seen: list[torch.Tensor] = []
    hook = target.module.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()[0]))
    with torch.no_grad():
        for row in ROWS:
            network(torch.tensor([row.tokens]))
    hook.remove()
    norm = torch.cat([found[row.answer_start :] for found, row in zip(seen, ROWS, strict=True)]).norm(dim=0)
    expected = target.parameter.detach().abs() * norm[:, None]
    for size in (1, 3):
        found = wanda(network, ROWS, targets, batch_size=size)
        torch.testing.assert_close(found[target.name], expected, rtol=1e-9, atol=1e-15)


def test_scores_that_are_no_numbers_are_refused(tiny: Path) -> None:
    network = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    found = targets_of(network, open_checkpoint_folder(tiny), ScoreSettings())
    with torch.no_grad():
        found[-1].parameter[0, 0] = float("nan")
    for taken in (snip, wanda):
        with pytest.raises(NonFiniteError, match=r"the scores of .* hold NaN"):
            taken(network, ROWS, found)
