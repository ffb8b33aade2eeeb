"""TIES beside its equations: trim, elect by mass, mean of those that agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import reference
from tests.methods.tiny import QUERY, UP, computed, contents, near, random_tensors, read, write, write_shards

import alignmend as am
from alignmend.algebra.nodes import Scope
from alignmend.errors import MismatchError, ParameterError

NAME = UP.format(0)
BASE = [[1.0, 1.0], [1.0, 1.0]]
FIRST = [[5.0, 1.5], [-2.0, 0.0]]  # tau = [4, 0.5; -3, -1]
SECOND = [[3.0, -1.0], [0.0, 5.0]]  # tau = [2, -2; -1, 4]


def opened(folder: Path, **tensors: list[list[float]]) -> dict[str, am.Checkpoint]:
    return {name: am.open(write(folder / name, {NAME: value})) for name, value in tensors.items()}


def test_equation_by_hand(tmp_path: Path) -> None:
    models = opened(tmp_path, base=BASE, first=FIRST, second=SECOND)
    expression = am.ties(base=models["base"], finetuned=[models["first"], models["second"]], density=0.5)
    # Trimmed to two each: [4, 0; -3, 0] and [2, 0; 0, 4], whose tie of 2 and -2 goes to the first
    assert computed(expression, tmp_path / "half")[NAME].tolist() == [[4.0, 1.0], [-2.0, 5.0]]
    expression = am.ties(
        base=models["base"], finetuned=[models["first"], models["second"]], density=1.0, coefficient=0.5
    )
    # Elected +, -, -, +: means of (4, 2), (-2), (-3, -1), (4), halved
    assert computed(expression, tmp_path / "all")[NAME].tolist() == [[2.5, 0.0], [0.0, 3.0]]


@pytest.mark.parametrize("scope", ["tensor", "row", "model"])
def test_one_model_is_trimmed_task_arithmetic(tmp_path: Path, scope: Scope) -> None:
    tensors = random_tensors(0)
    base, model = am.open(write(tmp_path / "b", tensors)), am.open(write(tmp_path / "m", near(tensors, 1)))
    merged = am.ties(base=base, finetuned=[model], density=0.3, scope=scope, coefficient=0.7)
    plain = am.task_arithmetic(base=base, finetuned=[model], trim=0.3, scope=scope, coefficient=0.7)
    found, expected = computed(merged, tmp_path / "merged"), computed(plain, tmp_path / "plain")
    assert all(torch.equal(found[name], expected[name]) for name in tensors)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 99),
    models=st.integers(2, 5),
    density=st.sampled_from([0.0, 0.1, 0.2, 0.75, 1.0]),
    scope=st.sampled_from(["tensor", "row", "model"]),
)
def test_any_number_of_models(
    seed: int, models: int, density: float, scope: Scope, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("ties")
    tensors = random_tensors(seed, layers=1)
    tuned = [near(tensors, seed + 1 + number) for number in range(models)]
    base = am.open(write(folder / "base", tensors))
    opened = [am.open(write(folder / f"{number}", one)) for number, one in enumerate(tuned)]
    exact = reference.numbers(tensors)
    vectors = [  # as rounded as the streamed differences are, or ties of magnitude could go another way
        {name: (one[name] - tensors[name]).double().numpy() for name in tensors} for one in tuned
    ]
    merged = reference.elect([reference.trim(vector, density, scope) for vector in vectors])
    found = computed(am.ties(base=base, finetuned=opened, density=density, scope=scope, coefficient=0.5), folder / "o")
    for name, values in exact.items():
        np.testing.assert_allclose(
            found[name].double().numpy(), values + 0.5 * merged[name], rtol=1e-6, atol=1e-6, err_msg=name
        )


def test_neither_threads_nor_shards_nor_order_change_a_byte(tmp_path: Path) -> None:
    tensors = random_tensors(0, size=64)
    tuned = [near(tensors, number) for number in (1, 2, 3)]
    found = []
    for threads in (1, 3):
        place = tmp_path / str(threads)
        folders = []
        for number, one in enumerate([tensors, *tuned]):
            names = sorted(one, reverse=threads > 1)
            parts = [{name: one[name] for name in names[start::threads]} for start in range(threads)]
            folders.append(am.open(write_shards(place / str(number), parts)))
        am.save(am.ties(base=folders[0], finetuned=folders[1:]), place / "out", threads=threads)
        found.append(contents(place / "out")["model.safetensors"])
    assert found[0] == found[1]


def test_only_linear_weights_inside_decoder_layers(tmp_path: Path) -> None:
    tensors = random_tensors(0) | {QUERY.format(0).replace("weight", "bias"): torch.ones(8)}
    base, model = am.open(write(tmp_path / "b", tensors)), am.open(write(tmp_path / "m", near(tensors, 1)))
    am.save(am.ties(base=base, finetuned=[model], density=1.0, linear=True), tmp_path / "out")
    moved = {name for name, value in read(tmp_path / "out").items() if not torch.equal(value, tensors[name])}
    assert moved == {pattern.format(layer) for pattern in (UP, QUERY) for layer in range(2)}


def test_mistakes_are_told(tmp_path: Path) -> None:
    base = am.open(write(tmp_path / "b", {NAME: BASE}))
    with pytest.raises(ParameterError, match="finetuned is empty"):
        am.ties(base=base, finetuned=[])
    other = am.open(write(tmp_path / "o", {NAME: [[1.0, 2.0, 3.0]]}))
    with pytest.raises(MismatchError, match=r"shape \[1, 3\], the target \[2, 2\]"):
        am.explain(am.ties(base=base, finetuned=[other]))
    with pytest.raises(ParameterError, match="density"):
        am.ties(base=base, finetuned=[base], density=1.2)
