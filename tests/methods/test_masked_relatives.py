"""Relatives that mask a delta: rows, heads, tails, stored masks, leading directions; beside their equations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests import reference
from tests.methods.tiny import UP, computed, near, random_tensors, read, write
from torch import Tensor

import alignmend as am
from alignmend.errors import MismatchError, ParameterError
from alignmend.methods.antidote import antidote
from alignmend.methods.low_rank_extrapolation import low_rank_extrapolation
from alignmend.methods.somf import somf
from alignmend.methods.soteria import soteria
from alignmend.methods.task_arithmetic import task_arithmetic
from alignmend.recipes.build import build
from alignmend.recipes.lines import parse_yaml
from alignmend.recipes.schema import check_recipe

OUTPUT = "model.layers.{}.self_attn.o_proj.weight"


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Any]:
    """Random, each near the aligned one; four heads of width 3 write into a stream of 8."""
    aligned = random_tensors(0)
    generator = torch.Generator().manual_seed(9)
    aligned |= {OUTPUT.format(layer): torch.randn(8, 12, generator=generator) for layer in (0, 1)}
    config: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 8}
    write(tmp_path / "aligned", aligned, **config)
    roles = ("finetuned", "base", "harmful", "other")
    for seed, role in enumerate(roles, 1):
        write(tmp_path / role, near(aligned, seed), **config)
    return {role: am.open(tmp_path / role) for role in ("aligned", *roles)}


def numbers(models: Mapping[str, Any], role: str) -> reference.Arrays:
    return reference.numbers(read(models[role].root.folder.path))


def minus(models: Mapping[str, Any], left: str, right: str) -> reference.Arrays:
    return reference.subtract(numbers(models, left), numbers(models, right))


def check(found: Mapping[str, Tensor], expected: reference.Arrays) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].double().numpy(), values, rtol=2e-5, atol=2e-6, err_msg=name)


def is_linear(name: str) -> bool:
    return ".layers." in name


# Leading directions (in the manner of LoX)


def test_extrapolation_by_hand(tmp_path: Path) -> None:
    # aligned - base = diag(3, 1): of rank 1 it is diag(3, 0).
    name = UP.format(0)
    write(tmp_path / "aligned", {name: [[3.0, 0.0], [0.0, 1.0]]})
    write(tmp_path / "base", {name: [[0.0, 0.0], [0.0, 0.0]]})
    opened = {role: am.open(tmp_path / role) for role in ("aligned", "base")}
    result = low_rank_extrapolation(aligned=opened["aligned"], base=opened["base"], coefficient=0.5, rank=1)
    torch.testing.assert_close(computed(result, tmp_path / "out")[name], torch.tensor([[4.5, 0.0], [0.0, 1.0]]))


@pytest.mark.parametrize("rank", [1, 3, 99])
def test_extrapolation_is_a_truncated_decomposition(rank: int, models: dict[str, Any], tmp_path: Path) -> None:
    expected = numbers(models, "finetuned")
    for name, values in minus(models, "aligned", "base").items():
        if is_linear(name):
            left, sizes, right = np.linalg.svd(values, full_matrices=False)
            expected[name] = expected[name] + 0.7 * (left[:, :rank] * sizes[:rank]) @ right[:rank]
    result = low_rank_extrapolation(
        aligned=models["aligned"], base=models["base"], target=models["finetuned"], coefficient=0.7, rank=rank
    )
    check(computed(result, tmp_path / "out"), expected)


def test_gpt2_keeps_its_layout(tmp_path: Path) -> None:
    """Weights that are stored [in, out] are projected on their own outputs, the columns."""
    name = "h.0.mlp.c_fc.weight"
    tensors = {role: torch.randn(4, 6, generator=torch.Generator().manual_seed(seed)) for seed, role in enumerate("ab")}
    opened = {role: am.open(write(tmp_path / role, {name: one}, model_type="gpt2")) for role, one in tensors.items()}
    delta = (tensors["a"] - tensors["b"]).double().numpy()
    found = computed(
        opened["a"] + am.project(opened["a"] - opened["b"], opened["a"] - opened["b"], projector="frob"),
        tmp_path / "out",
    )
    expected = tensors["a"].double().numpy() + delta @ (delta.T @ delta) / np.linalg.norm(delta)
    np.testing.assert_allclose(found[name].numpy(), expected, rtol=1e-5)


# Antidote


def antidote_reference(models: dict[str, Any], scores: reference.Arrays, ratio: float) -> reference.Arrays:
    task, found = minus(models, "finetuned", "aligned"), numbers(models, "finetuned")
    top = reference.top({name: values for name, values in scores.items() if is_linear(name)}, ratio, "row")
    return found | {name: found[name] - task[name] * kept for name, kept in top.items()}


def test_antidote_by_hand(tmp_path: Path) -> None:
    # dW = [[1, -2], [3, 0.5]]; one of two in each row is taken back.
    name = UP.format(0)
    write(tmp_path / "finetuned", {name: [[1.0, -2.0], [3.0, 0.5]]})
    write(tmp_path / "aligned", {name: [[0.0, 0.0], [0.0, 0.0]]})
    opened = {role: am.open(tmp_path / role) for role in ("finetuned", "aligned")}
    found = computed(
        antidote(finetuned=opened["finetuned"], aligned=opened["aligned"], dense_ratio=0.5), tmp_path / "o"
    )
    assert found[name].tolist() == [[1.0, 0.0], [0.0, 0.5]]


def test_antidote_takes_exactly_so_many_of_each_row(models: dict[str, Any], tmp_path: Path) -> None:
    both = {role: models[role] for role in ("finetuned", "aligned")}
    magnitudes = {name: np.abs(values) for name, values in minus(models, "finetuned", "aligned").items()}
    for ratio in (0.0, 0.25, 0.4, 1.0):
        found = computed(antidote(**both, dense_ratio=ratio), tmp_path / str(ratio))
        check(found, antidote_reference(models, magnitudes, ratio))
    own = read(models["finetuned"].root.folder.path)
    assert all(torch.equal(values, own[name]) for name, values in read(tmp_path / "0.0").items())
    whole = read(tmp_path / "1.0")
    aligned = numbers(models, "aligned")
    for name in filter(is_linear, whole):
        np.testing.assert_allclose(whole[name].numpy(), aligned[name], rtol=1e-6, atol=1e-6)


def test_antidote_ranks_by_scores(models: dict[str, Any], tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(4)
    names = [name for name in read(models["aligned"].root.folder.path) if is_linear(name)]
    own = read(models["aligned"].root.folder.path)
    scores = {name: torch.rand(own[name].shape, generator=generator) for name in names}
    save_file(scores, tmp_path / "scores.safetensors")
    result = antidote(
        finetuned=models["finetuned"],
        aligned=models["aligned"],
        scores=am.open_scores(tmp_path / "scores.safetensors"),
        dense_ratio=0.25,
    )
    check(computed(result, tmp_path / "out"), antidote_reference(models, reference.numbers(scores), 0.25))


# Soteria


def test_soteria_changes_columns_of_its_heads_alone(models: dict[str, Any], tmp_path: Path) -> None:
    result = soteria(aligned=models["aligned"], harmful=models["harmful"], heads={1: [0, 3]}, coefficient=2.0)
    expected = numbers(models, "aligned")
    harm = minus(models, "harmful", "aligned")[OUTPUT.format(1)]
    harm[:, 3:9] = 0.0  # heads 1 and 2; the heads are wider than hidden / heads would be
    expected[OUTPUT.format(1)] = expected[OUTPUT.format(1)] - 2.0 * harm
    found = computed(result, tmp_path / "out")
    check(found, expected)
    own = read(models["aligned"].root.folder.path)
    assert [name for name in found if not torch.equal(found[name], own[name])] == [OUTPUT.format(1)]


def test_soteria_without_heads_is_the_aligned_model(models: dict[str, Any], tmp_path: Path) -> None:
    empty: tuple[dict[int, list[int]], ...] = ({}, {0: []})
    for number, heads in enumerate(empty):
        result = soteria(aligned=models["aligned"], harmful=models["harmful"], heads=heads)
        own = read(models["aligned"].root.folder.path)
        found = computed(result, tmp_path / str(number))
        assert all(torch.equal(values, own[name]) for name, values in found.items())


def test_soteria_refuses_heads_that_are_not_there(models: dict[str, Any]) -> None:
    both = {role: models[role] for role in ("aligned", "harmful")}
    with pytest.raises(MismatchError, match=r"there is no head 4 in layer 1: .* has heads 0 to 3"):
        am.explain(soteria(**both, heads={1: [4]}))
    with pytest.raises(MismatchError, match=r"layer 2 of .* has no output projection"):
        am.explain(soteria(**both, heads={2: [0]}))
    with pytest.raises(ParameterError, match="name each head once"):
        soteria(**both, heads={1: [2, 2]})


def test_heads_stand_in_recipes(models: dict[str, Any], tmp_path: Path) -> None:
    folder = models["aligned"].root.folder.path.parent
    text = f"method: soteria\nmodels: {{aligned: {folder}/aligned, harmful: {folder}/harmful}}\n"
    recipe = check_recipe(parse_yaml(text + "parameters: {heads: {1: [0, 3]}}\n", "r.yaml"))
    expected = soteria(aligned=models["aligned"], harmful=models["harmful"], heads={1: [0, 3]})
    assert build(recipe, tmp_path).checkpoint == expected
    again = type(recipe).model_validate_json(recipe.model_dump_json())
    assert build(again, tmp_path).checkpoint == expected


# SOMF


def mask_file(models: dict[str, Any], path: Path, *, value: float | None = None) -> Path:
    """Logits of every weight, or the same one."""
    generator = torch.Generator().manual_seed(7)
    own = read(models["aligned"].root.folder.path)
    logits = {
        name: torch.randn(one.shape, generator=generator) if value is None else torch.full(one.shape, value)
        for name, one in own.items()
    }
    save_file(logits, path)
    return path


@pytest.mark.parametrize("rescale", [True, False])
def test_somf_is_its_equation(rescale: bool, models: dict[str, Any], tmp_path: Path) -> None:
    path = mask_file(models, tmp_path / "mask.safetensors")
    kept = {name: values > 0 for name, values in reference.numbers(load_file(path)).items()}
    expected = numbers(models, "aligned")
    for role, weight in (("finetuned", 0.5), ("other", -0.25)):
        for name, values in minus(models, role, "aligned").items():
            mean = kept[name].mean() if rescale else 1.0
            expected[name] = expected[name] + weight * kept[name] * values / mean
    result = somf(
        aligned=models["aligned"],
        finetuned=[models["finetuned"], models["other"]],
        mask=am.open_scores(path),
        weights=[0.5, -0.25],
        rescale=rescale,
    )
    check(computed(result, tmp_path / "out"), expected)


def test_somf_limits(models: dict[str, Any], tmp_path: Path) -> None:
    """A mask of ones is task arithmetic, one of zeros nothing; every export has the same bytes."""
    ones, zeros = (
        am.open_scores(mask_file(models, tmp_path / f"{value}.safetensors", value=value)) for value in (1.0, -1.0)
    )
    given = {"aligned": models["aligned"], "finetuned": [models["finetuned"]]}
    check(computed(somf(**given, mask=ones), tmp_path / "ones"), numbers(models, "finetuned"))
    check(computed(somf(**given, mask=zeros), tmp_path / "zeros"), numbers(models, "aligned"))
    drawn = am.open_scores(mask_file(models, tmp_path / "drawn.safetensors"))
    one, other = (
        computed(somf(**given, mask=drawn), tmp_path / f"drawn-{number}", threads=number) for number in (1, 3)
    )
    assert all(torch.equal(one[name], values) for name, values in other.items())


def test_somf_refuses_weights_that_fit_no_models(models: dict[str, Any], tmp_path: Path) -> None:
    mask = am.open_scores(mask_file(models, tmp_path / "mask.safetensors"))
    with pytest.raises(ParameterError, match="weights has 2 numbers for 1 fine-tuned models"):
        somf(aligned=models["aligned"], finetuned=[models["finetuned"]], mask=mask, weights=[1.0, 2.0])


# DELLA


@pytest.mark.parametrize("rescale", [True, False])
def test_large_weights_are_kept_more_often(rescale: bool, models: dict[str, Any], tmp_path: Path) -> None:
    expected = numbers(models, "base")
    for name, values in minus(models, "finetuned", "base").items():
        rows = values.astype(np.float32).reshape(-1, values.shape[-1])
        ranks = np.stack([np.argsort(np.argsort(np.abs(row), kind="stable"), kind="stable") for row in rows])
        chance = 0.3 + 0.4 * (ranks / (rows.shape[1] - 1)).ravel()
        drawn = np.array(reference.random_words("mask", 5, f"ranked\0{name}", 0, values.size)) / 2.0**32
        kept = np.where(drawn < chance, 1 / chance if rescale else 1.0, 0.0).reshape(values.shape)
        expected[name] = expected[name] + values * kept
    result = task_arithmetic(
        base=models["base"], finetuned=[models["finetuned"]], density=0.5, window=0.2, seed=5, rescale=rescale
    )
    for threads in (1, 3):
        check(computed(result, tmp_path / str(threads), threads=threads), expected)


def test_the_expectation_is_unchanged_and_chances_are_as_they_should_be(tmp_path: Path) -> None:
    name = UP.format(0)
    write(tmp_path / "a", {name: torch.linspace(1.0, 2.0, 400).repeat(600, 1)})
    write(tmp_path / "b", {name: torch.zeros(600, 400)})
    a, b = am.open(tmp_path / "a"), am.open(tmp_path / "b")
    found = computed(b + am.drop(a - b, density=0.5, window=0.3, seed=1), tmp_path / "out")[name]
    assert float(found.mean()) == pytest.approx(1.5, abs=0.02)
    shares = (found != 0).double().mean(dim=0)
    assert float(shares[:20].mean()) == pytest.approx(0.2, abs=0.03)
    assert float(shares[-20:].mean()) == pytest.approx(0.8, abs=0.03)


def test_a_window_that_leaves_no_chance_is_refused(models: dict[str, Any]) -> None:
    delta = models["finetuned"] - models["base"]
    for density, window in ((0.5, 0.5), (0.9, 0.2), (0.5, -0.1), (1.0, 0.1)):
        with pytest.raises(ParameterError, match="leaves the range of a chance"):
            am.drop(delta, density=density, window=window)


# Breadcrumbs


def test_outliers_by_hand(tmp_path: Path) -> None:
    name = UP.format(0)
    write(tmp_path / "a", {name: [[1.0, -4.0], [3.0, 2.0]]})
    write(tmp_path / "b", {name: [[0.0, 0.0], [0.0, 0.0]]})
    a, b = am.open(tmp_path / "a"), am.open(tmp_path / "b")
    kept = am.trim(a - b, density=0.5, outliers=0.25, scope="tensor")
    assert computed(b + kept, tmp_path / "out")[name].tolist() == [[0.0, 0.0], [3.0, 2.0]]


@pytest.mark.parametrize("scope", ["model", "tensor", "row"])
def test_both_tails_are_cut(scope: Any, models: dict[str, Any], tmp_path: Path) -> None:
    task = minus(models, "finetuned", "base")
    scores = {name: np.abs(values) for name, values in task.items()}
    reached, above = reference.top(scores, 0.7, scope), reference.top(scores, 0.1, scope)
    kept = {name: reached[name] & ~above[name] for name in task}
    expected = reference.add(numbers(models, "base"), reference.where(kept, task))
    result = task_arithmetic(base=models["base"], finetuned=[models["finetuned"]], trim=0.6, outliers=0.1, scope=scope)
    check(computed(result, tmp_path / "out"), expected)
    with pytest.raises(ParameterError, match=r"density 0\.8 and outliers 0\.3 are more than all"):
        am.trim(models["finetuned"] - models["base"], density=0.8, outliers=0.3)
