"""Losses against their definition."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignmend.errors import ParameterError
from alignmend.training.encoding import GuidedRow, collate
from alignmend.training.learning import rate_share
from alignmend.training.loop import TokenRow
from alignmend.training.objectives import OBJECTIVES, Beside, answer_losses, objective_named
from alignmend.training.settings import TrainSettings


def test_two_tokens_by_hand() -> None:
    """A prompt token 0 and an answer token 1: the loss is that of the answer, predicted at the prompt's place."""
    logits = torch.tensor([[[0.0, math.log(3.0)], [5.0, -5.0]]], requires_grad=True)
    labels = collate([TokenRow((0, 1), 1)])["labels"]
    loss = OBJECTIVES["descent"](SimpleNamespace(logits=logits), labels)
    assert loss.item() == pytest.approx(-math.log(3 / 4))
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad[0, 0].tolist() == pytest.approx([1 / 4, -1 / 4])
    assert logits.grad[0, 1].tolist() == [0.0, 0.0]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 99))
def test_the_split_into_parts_and_the_padding_change_nothing(lengths: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    rows = [TokenRow(tuple(torch.randint(0, 9, (length + 1,)).tolist()), 1) for length in lengths]
    table = torch.randn(9, 9)
    whole, total = collate(rows), sum(lengths)
    together = OBJECTIVES["ascent"](SimpleNamespace(logits=table[whole["input_ids"]]), whole["labels"], total)
    parts = [collate([row]) for row in rows]
    each = [
        OBJECTIVES["ascent"](SimpleNamespace(logits=table[one["input_ids"]]), one["labels"], total) for one in parts
    ]
    assert together.item() == pytest.approx(sum(one.item() for one in each), rel=1e-5)
    losses = answer_losses(table[whole["input_ids"]], whole["labels"])
    assert together.item() == pytest.approx(-losses.mean().item(), rel=1e-5)


def guided_batch(rows: list[TokenRow], partners: list[TokenRow]) -> dict[str, torch.Tensor]:
    return collate([GuidedRow(row.tokens, row.answer_start, 1.5, one) for row, one in zip(rows, partners, strict=True)])


def test_preference_against_the_reference_by_hand() -> None:
    """p = 3/4, reference 1/2, beta 2: -(2/2) log sigmoid(-2 log(3/2)) = log(1 + (3/2)^2) for one answer token."""
    logits = torch.tensor([[[0.0, math.log(3.0)], [5.0, -5.0]]], requires_grad=True)
    labels = collate([TokenRow((0, 1), 1)])["labels"]
    beside = Beside(reference=torch.tensor([math.log(2.0)]), beta=2.0)
    loss = OBJECTIVES["npo"](SimpleNamespace(logits=logits), labels, None, beside)
    assert loss.item() == pytest.approx(math.log(13 / 4))
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    weight = 2 * (9 / 4) / (1 + 9 / 4)  # 2 p^beta / (p^beta + p_reference^beta), of the paper's gradient
    assert logits.grad[0, 0].tolist() == pytest.approx([-weight / 4, weight / 4])


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 99))
def test_preference_tends_to_ascent_and_is_never_below_zero(lengths: list[int], seed: int) -> None:
    """As beta falls, 2/beta log 2 for each answer apart, it is the ascent plus what the reference says."""
    torch.manual_seed(seed)
    rows = [TokenRow(tuple(torch.randint(0, 9, (length + 1,)).tolist()), 1) for length in lengths]
    batch, references = collate(rows), torch.rand(len(rows), dtype=torch.float64)
    table = torch.randn(9, 9, dtype=torch.float64, requires_grad=True)
    outputs = SimpleNamespace(logits=table[batch["input_ids"]])
    beta = 1e-6
    npo = OBJECTIVES["npo"](outputs, batch["labels"], None, Beside(reference=references, beta=beta))
    ascent = OBJECTIVES["ascent"](outputs, batch["labels"])
    assert npo.item() >= 0
    total = sum(lengths)
    constant = (2 / beta * math.log(2) * len(rows) + references.sum().item()) / total
    assert npo.item() - constant == pytest.approx(ascent.item(), rel=1e-4, abs=1e-4)
    (one,) = torch.autograd.grad(npo, table, retain_graph=True)
    (other,) = torch.autograd.grad(ascent, table)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_farther_below_its_reference_the_less_an_answer_is_pushed() -> None:
    logits = torch.zeros(1, 2, 2, requires_grad=True)
    labels = collate([TokenRow((0, 1), 1)])["labels"]
    pushes = []
    for reference in (0.1, 0.7, 40.0):
        beside = Beside(reference=torch.tensor([reference]), beta=1.0)
        loss = OBJECTIVES["npo"](SimpleNamespace(logits=logits), labels, None, beside)
        (found,) = torch.autograd.grad(loss, logits)
        pushes.append(found[0, 0, 1].item())
    assert 0 < pushes[0] < pushes[1] < pushes[2] <= 1.0


def test_ascent_with_retained_answers_by_hand() -> None:
    """Unlearned: one token at 3/4; retained: one at 1/4, weight 2: log(3/4) - 2 log(1/4)."""
    one = math.log(3.0)
    logits = torch.tensor([[[0.0, one], [0.0, 0.0]], [[0.0, -one], [0.0, 0.0]]], requires_grad=True)
    batch = guided_batch([TokenRow((0, 1), 1)], [TokenRow((0, 1), 1)])
    assert batch["labels"].tolist() == [[-100, 1], [-100, -100]]
    beside = Beside(retain_labels=batch["retain_labels"], retain_weight=2.0)
    loss = OBJECTIVES["ascent-retain"](SimpleNamespace(logits=logits), batch["labels"], 1, beside)
    assert loss.item() == pytest.approx(math.log(3 / 4) - 2 * math.log(1 / 4))
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad[0, 0, 1] > 0 > logits.grad[1, 0, 1], "less of one, more of the other"


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=4), st.integers(0, 99))
def test_the_split_changes_neither_of_the_guided_objectives(lengths: list[tuple[int, int]], seed: int) -> None:
    torch.manual_seed(seed)
    drawn = [[TokenRow(tuple(torch.randint(0, 9, (n + 1,)).tolist()), 1) for n in pair] for pair in lengths]
    rows, partners = [one for one, _ in drawn], [other for _, other in drawn]
    table, total = torch.randn(9, 9, dtype=torch.float64), sum(length for length, _ in lengths)

    def value(name: str, some: slice) -> float:
        batch = guided_batch(rows[some], partners[some])
        beside = Beside(batch["reference"], batch["retain_labels"], 0.5)
        if name == "npo":  # its batches have no partners
            beside, batch = Beside(batch["reference"]), collate(rows[some])
        outputs = SimpleNamespace(logits=table[batch["input_ids"]])
        return OBJECTIVES[name](outputs, batch["labels"], total, beside).item()

    for name in ("ascent-retain", "npo"):
        each = [value(name, slice(index, index + 1)) for index in range(len(rows))]
        assert value(name, slice(None)) == pytest.approx(sum(each), rel=1e-9)


def test_unknown_objectives_are_told_their_neighbour() -> None:
    with pytest.raises(ParameterError, match="unknown objective 'decent': did you mean 'descent'"):
        objective_named("decent")


@given(st.integers(1, 200))
def test_every_step_has_a_rate_above_zero_and_one_has_the_peak(steps: int) -> None:
    shares = [rate_share(step, steps) for step in range(steps)]
    assert max(shares) == 1.0
    assert min(shares) > 0.0
    assert shares[shares.index(1.0) :] == sorted(shares[shares.index(1.0) :], reverse=True)


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"lora_rank": 0}, "lora_rank is 0"),
        ({"max_steps": -1}, "max_steps is -1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"epochs": 0.0}, "epochs is 0.0"),
        ({"max_length": 1}, "max_length is 1"),
        ({"stop_loss": 3.0}, "stop_loss bounds an ascent"),
        ({"beta": 0.0}, "beta is 0.0"),
        ({"retain_weight": -1.0}, "retain_weight is -1.0"),
        ({"lora_rank": 4, "dtype": "bfloat16"}, "dtype bfloat16 is for checkpoints"),
        ({"lora_targets": ("q_proj",)}, "lora_targets need a lora_rank"),
    ],
)
def test_settings_that_cannot_be_meant(given_settings: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        TrainSettings("descent", **given_settings)  # type: ignore[arg-type]


def test_defaults_depend_on_the_kind_of_run() -> None:
    assert (TrainSettings("descent").rate, TrainSettings("descent", lora_rank=8).rate) == (1e-5, 1e-4)
    assert (TrainSettings("descent").bound, TrainSettings("ascent").bound) == (None, 10.0)
    assert (TrainSettings("ascent-retain").bound, TrainSettings("npo").bound) == (10.0, None)
    assert TrainSettings("npo", stop_loss=4.0).bound == 4.0
