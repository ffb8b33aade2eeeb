"""Electing a sign and averaging what agrees with it is what the slow oracle says it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import reference
from tests.checkpoints import computed, write

import alignmend as am
from alignmend.algebra.operations import elect
from alignmend.errors import ParameterError

NAME = "model.layers.0.w"


@settings(max_examples=40, deadline=None)
@given(
    values=st.integers(1, 6).flatmap(
        lambda size: st.lists(
            st.lists(st.integers(-3, 3), min_size=size, max_size=size).map(tuple), min_size=1, max_size=5
        )
    )
)
def test_any_number_of_deltas(values: list[tuple[int, ...]], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("elect")
    zero = am.open(write(folder / "zero", {NAME: torch.zeros(len(values[0]))}))
    deltas = [
        am.open(write(folder / str(number), {NAME: torch.tensor(one, dtype=torch.float32)})) - zero
        for number, one in enumerate(values)
    ]
    found = computed(zero + elect(deltas), folder / "out")[NAME].double().numpy()
    expected = reference.elect([{NAME: np.array(one, dtype=np.float64)} for one in values])[NAME]
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_equal_mass_elects_nothing_and_zeros_do_not_vote(tmp_path: Path) -> None:
    zero = am.open(write(tmp_path / "zero", {NAME: torch.zeros(4)}))
    votes = ([3.0, 1.0, 0.0, 2.0], [-3.0, 1.0, 5.0, -1.0], [0.0, -1.5, 0.0, -3.0])
    deltas = [am.open(write(tmp_path / f"{i}", {NAME: torch.tensor(one)})) - zero for i, one in enumerate(votes)]
    # +3 against -3; +2 against -1.5: mean of 1 and 1; 5 alone; +2 against -4: mean of -1 and -3
    assert computed(zero + elect(deltas), tmp_path / "out")[NAME].tolist() == [0.0, 1.0, 5.0, -2.0]
    with pytest.raises(ParameterError, match="nothing to elect from"):
        elect([])


def test_an_infinity_is_not_voted_away(tmp_path: Path) -> None:
    zero = am.open(write(tmp_path / "zero", {NAME: torch.zeros(2)}))
    deltas = [
        am.open(write(tmp_path / f"{i}", {NAME: torch.tensor(one)})) - zero
        for i, one in enumerate(([1.0, float("nan")], [2.0, 1.0]))
    ]
    with pytest.raises(am.AlignmendError, match="holds NaN or infinity"):
        am.save(zero + elect(deltas), tmp_path / "out")
