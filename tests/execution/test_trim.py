"""A ranking keeps exactly what a full stable sort would keep, however it finds the cut."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import reference
from tests.checkpoints import EMBEDDING, HEAD, Tensors, computed, llama_shapes, near, normal, write

import alignmend as am
from alignmend.algebra.nodes import Scope
from alignmend.errors import FileFormatError, MismatchError, NonFiniteError, ParameterError
from alignmend.execution import ranking
from alignmend.execution.blocks import BLOCK

SHAPES = {"model.layers.2.w": (301, 300), "model.layers.10.w": (40, 3), "model.layers.10.v": (7,), "model.z": (66_000,)}
"""One tensor of several blocks, and names whose natural order is not the alphabet's."""


def random_values(seed: int) -> Tensors:
    return normal(seed, SHAPES)


def tied_values(seed: int) -> Tensors:
    random = np.random.default_rng(seed)
    return {name: torch.from_numpy(random.integers(-3, 4, shape).astype(np.float32)) for name, shape in SHAPES.items()}


def mostly_zero(seed: int) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: values * (torch.rand(values.shape, generator=generator) < 0.01)
        for name, values in normal(seed, SHAPES).items()
    }


def all_zero(_: int) -> Tensors:
    return {name: torch.zeros(shape) for name, shape in SHAPES.items()}


def one_value(_: int) -> Tensors:
    return {name: torch.full(shape, 0.5) for name, shape in SHAPES.items()}


def wide_range(seed: int) -> Tensors:
    return {name: values**21 for name, values in normal(seed, SHAPES).items()}


KINDS: list[Callable[[int], Tensors]] = [random_values, tied_values, mostly_zero, all_zero, one_value, wide_range]
counter = itertools.count()


def open_delta(folder: Path, values: Tensors) -> tuple[am.Checkpoint, am.Delta]:
    """A checkpoint of zeros, and the delta that leads from it to `values`."""
    zero = am.open(write(folder / f"zero{next(counter)}", {name: torch.zeros_like(t) for name, t in values.items()}))
    return zero, am.open(write(folder / f"values{next(counter)}", values, shards=2)) - zero


def trimmed(folder: Path, values: Tensors, **options: Any) -> Tensors:
    zero, delta = open_delta(folder, values)
    return computed(zero + am.trim(delta, **options), folder / f"out{next(counter)}")


def expect_trim(found: Tensors, values: Tensors, density: float, scope: str) -> None:
    meant = reference.trim(reference.numbers(values), density, scope)
    for name, expected in meant.items():
        np.testing.assert_array_equal(found[name].double().numpy(), expected, err_msg=name)


@pytest.mark.parametrize("scope", ["model", "tensor"])
@pytest.mark.parametrize("density", [0.0, 1e-6, 0.1, 0.5, 0.995, 1.0])
@pytest.mark.parametrize("values", KINDS)
def test_trim_equals_the_sort(values: Callable[[int], Tensors], density: float, scope: Scope, tmp_path: Path) -> None:
    drawn = values(3)
    expect_trim(trimmed(tmp_path, drawn, density=density, scope=scope), drawn, density, scope)


@pytest.mark.parametrize("remembered", [0, 50, 4_000_000])
@pytest.mark.parametrize("values", KINDS)
def test_a_sampled_bracket_changes_nothing(
    values: Callable[[int], Tensors], remembered: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "SAMPLE_SIZE", 2_000)
    monkeypatch.setattr(ranking, "REMEMBERED", remembered)
    drawn = values(5)
    for density in (0.001, 0.3, 0.9):
        expect_trim(trimmed(tmp_path, drawn, density=density, scope="model"), drawn, density, "model")


@pytest.mark.parametrize("density", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("upside_down", [False, True])
def test_a_bracket_that_misses_is_mended(
    density: float, upside_down: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sample sees the first run of each part only, and there the values are unlike the rest."""
    monkeypatch.setattr(ranking, "SAMPLE_SIZE", 600)
    monkeypatch.setattr(ranking, "MARGIN", 0.5)
    values = normal(0, {"w": (150_000,), "x": (80_000,)})
    for tensor in values.values():
        tensor[:4_000] = tensor[:4_000].abs() * (1e-6 if upside_down else 1e6)
    expect_trim(trimmed(tmp_path, values, density=density, scope="model"), values, density, "model")


def test_the_cut_is_the_kth_value(tmp_path: Path) -> None:
    values = random_values(1)
    zero, delta = open_delta(tmp_path, values)
    saved = am.save(zero + am.trim(delta, density=0.2), tmp_path / "out")
    (cuts,) = saved.thresholds.values()
    everything = torch.cat([tensor.flatten().abs() for tensor in values.values()])
    kept = round(0.2 * everything.numel())
    kth = torch.kthvalue(everything, everything.numel() - kept + 1).values
    assert np.uint32(cuts[None].bits).view(np.float32) == kth
    assert (cuts[None].kept, cuts[None].total) == (kept, everything.numel())


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(st.lists(st.integers(-2, 2), min_size=1, max_size=9), min_size=1, max_size=4),
    density=st.floats(0, 1),
    scope=st.sampled_from(["model", "tensor"]),
)
def test_ties_are_granted_in_order(
    values: list[list[int]], density: float, scope: Scope, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tensors = {f"layers.{7 * index}.w": torch.tensor(part, dtype=torch.float32) for index, part in enumerate(values)}
    expect_trim(trimmed(tmp_path_factory.mktemp("t"), tensors, density=density, scope=scope), tensors, density, scope)


def test_names_that_differ_in_leading_zeros_have_an_order(tmp_path: Path) -> None:
    tensors = {name: torch.ones(5) for name in ("h.1", "h.01", "h.001", "h.2²", "²", "٣")}
    found = trimmed(tmp_path, tensors, density=0.5, scope="model")
    assert sum(int(values.sum()) for values in found.values()) == 15


@pytest.mark.parametrize("scope", ["model", "tensor"])
def test_tied_copies_count_once_and_stay_equal(scope: Scope, tmp_path: Path) -> None:
    values = normal(4, llama_shapes())
    values[HEAD] = values[EMBEDDING].clone()
    zero = am.open(write(tmp_path / "z", {n: torch.zeros_like(t) for n, t in values.items()}, tie_word_embeddings=True))
    delta = am.open(write(tmp_path / "v", values, tie_word_embeddings=True)) - zero
    found = computed(zero + am.trim(delta, density=0.3, scope=scope), tmp_path / "out")
    assert torch.equal(found[HEAD], found[EMBEDDING])
    single = {name: tensor for name, tensor in values.items() if name != HEAD}
    expect_trim(found, single, 0.3, scope)


def test_trims_and_drops_nest(tmp_path: Path) -> None:
    values = random_values(9)
    zero, delta = open_delta(tmp_path, values)
    meant = reference.numbers(values)
    some = am.select(delta, layers=[10])
    chosen = {name: numbers for name, numbers in meant.items() if ".10." in name}
    masks = {name: np.zeros(numbers.shape, bool) for name, numbers in meant.items()}
    masks |= {name: reference.random_keep(0.5, 3, name, numbers.shape) for name, numbers in chosen.items()}
    dropped = reference.where(masks, meant)
    cases: dict[str, tuple[am.Delta, reference.Arrays]] = {
        "trim of a drop": (
            am.trim(am.drop(some, density=0.5, seed=3, rescale=False), density=0.2),
            reference.trim({name: dropped[name] for name in chosen}, 0.2, "model"),
        ),
        "drop of a trim": (
            am.drop(am.trim(some, density=0.6), density=0.5, seed=3, rescale=False),
            reference.where(masks, reference.trim(chosen, 0.6, "model")),
        ),
        "trim of a trim": (
            am.trim(am.trim(delta, density=0.5), density=0.1, scope="tensor"),
            reference.trim(reference.trim(meant, 0.5, "model"), 0.1, "tensor"),
        ),
        "trim of a select": (am.trim(some, density=0.5), reference.trim(chosen, 0.5, "model")),
        "select of a trim": (
            am.select(am.trim(delta, density=0.5), layers=[10]),
            {name: reference.trim(meant, 0.5, "model")[name] for name in chosen},
        ),
    }
    for name, (expression, expected) in cases.items():
        found = computed(zero + expression, tmp_path / name.replace(" ", "-"))
        for tensor, numbers in found.items():
            np.testing.assert_array_equal(numbers.numpy(), expected.get(tensor, np.zeros(numbers.shape)), err_msg=name)


def test_provably_zero_tensors_still_count(tmp_path: Path) -> None:
    base = normal(0, {"a": (10,), "b": (30,)})
    root = am.open(write(tmp_path / "a", base))
    moved = am.open(write(tmp_path / "b", near(base, 1)))
    delta = am.select(moved - root, names="a") + 0.0 * (moved - root)
    found = computed(root + am.trim(delta, density=0.2), tmp_path / "out")
    assert (found["a"] != base["a"]).sum() == 8
    assert torch.equal(found["b"], base["b"])


def test_a_ranking_over_nothing_is_refused(tmp_path: Path) -> None:
    zero, delta = open_delta(tmp_path, random_values(0))
    nothing = am.select(am.select(delta, layers=[2]), layers=[10])
    with pytest.raises(MismatchError, match="nothing to rank"):
        am.save(zero + am.trim(nothing, density=0.5), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_cannot_be_ranked_is_named(bad: float, tmp_path: Path) -> None:
    values = random_values(0)
    values["model.z"][65_999] = bad
    zero, delta = open_delta(tmp_path, values)
    with pytest.raises(NonFiniteError, match=r"model\.z in values\d+/model-0000\d-of-00002\.safetensors holds NaN"):
        am.save(zero + am.trim(delta, density=0.5), tmp_path / "out", allow_nonfinite=True)


def test_a_score_that_overflows_is_named(tmp_path: Path) -> None:
    zero, delta = open_delta(tmp_path, {"w": torch.full((3,), 3e38)})
    with pytest.raises(NonFiniteError, match="a score of w overflows float32"):
        am.save(zero + am.trim(2.0 * delta, density=0.5), tmp_path / "out")


def test_negative_scores_are_refused(tmp_path: Path) -> None:
    zero, delta = open_delta(tmp_path, {"w": torch.ones(4)})
    scores = am.open_scores(write(tmp_path / "scores", {"w": torch.tensor([1.0, -0.0, -0.25, 2.0])}))
    with pytest.raises(ParameterError, match=r"a score of w is negative \(-0.25\)"):
        am.save(zero + am.where(am.top(scores, density=0.5), delta), tmp_path / "out")


@pytest.mark.parametrize("density", [-0.1, 1.1, float("nan")])
def test_a_density_is_a_fraction(density: float, tmp_path: Path) -> None:
    _, delta = open_delta(tmp_path, {"w": torch.ones(4)})
    with pytest.raises(ParameterError, match="density is the fraction kept, between 0 and 1"):
        am.trim(delta, density=density)


def test_a_scope_is_tensor_or_model(tmp_path: Path) -> None:
    _, delta = open_delta(tmp_path, {"w": torch.ones(4)})
    for density in (0.5, 1.0):
        with pytest.raises(ParameterError, match="scope is 'tensor', 'row' or 'model', not 'layer'"):
            am.trim(delta, density=density, scope="layer")  # type: ignore[arg-type]


@pytest.mark.parametrize("remembered", [0, 4_000_000])
def test_ties_among_provably_zero_tensors(remembered: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cut lies at zero, inside tensors that are never read, and zeros are chosen in order all the same."""
    monkeypatch.setattr(ranking, "REMEMBERED", remembered)
    root = am.open(write(tmp_path / "root", {name: torch.zeros(70_000) for name in "abc"}))
    moved = am.open(write(tmp_path / "moved", {name: torch.ones(70_000) for name in "abc"}))
    step = moved - root
    only_a = am.select(step, names="a") + 0.0 * step
    mask = am.top(am.magnitude(only_a), density=0.5)
    found = computed(root + am.where(mask, step), tmp_path / "out")
    assert [int(found[name].sum()) for name in "abc"] == [70_000, 35_000, 0]
    assert bool(found["b"][:35_000].all())


def test_an_input_that_changes_during_a_ranking_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "REMEMBERED", 0)
    values = {"w": torch.ones(200_000)}
    zero, delta = open_delta(tmp_path, values)
    path = next(path for path in tmp_path.glob("values*/*.safetensors") if path.stat().st_size > 1000)
    whole, reads, read = path.read_bytes(), itertools.count(1), os.preadv
    blocks = -(-200_000 // BLOCK)

    def changing(*arguments: Any) -> int:
        if next(reads) == 4 * blocks + 1:  # two passes over two files have ended, the ties are to be located
            path.write_bytes(whole[:-800_000] + bytes(800_000))
        return read(*arguments)

    monkeypatch.setattr(os, "preadv", changing)
    with pytest.raises(FileFormatError, match="an input changed while w was ranked"):
        am.save(zero + am.trim(delta, density=0.5), tmp_path / "out")


def test_small_tensors_unlike_the_rest_do_not_mislead_the_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layer norms often do not move at all: a bracket that they bend would cost a further pass over the model."""
    monkeypatch.setattr(ranking, "SAMPLE_SIZE", 300_000)
    shapes = {f"layers.{layer}.w": (1_000, 400) for layer in range(3)}
    values = normal(0, shapes) | {f"layers.{layer}.norm": torch.zeros(500) for layer in range(60)}
    zero, delta = open_delta(tmp_path, values)
    seen, read = 0, os.preadv

    def counted(*arguments: Any) -> int:
        nonlocal seen
        count = read(*arguments)
        seen += count
        return count

    monkeypatch.setattr(os, "preadv", counted)
    am.save(zero + am.trim(delta, density=0.1), tmp_path / "out", hash=False)
    model = 4 * sum(tensor.numel() for tensor in values.values())
    assert seen < 4.6 * model, "a pass to rank and one to write, two operands each, and the sample"


@pytest.mark.parametrize("margin", [12.0, 0.01])
@pytest.mark.parametrize("values", KINDS)
def test_scores_in_bfloat16_have_fewer_patterns_and_the_same_cut(
    values: Callable[[int], Tensors], margin: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brackets that miss on either side must begin at a pattern that bfloat16 has."""
    monkeypatch.setattr(ranking, "SAMPLE_SIZE", 600)
    monkeypatch.setattr(ranking, "MARGIN", margin)
    drawn = {name: tensor.abs().to(torch.bfloat16) for name, tensor in values(7).items()}
    zero, one = (
        am.open(write(tmp_path / str(value), {name: torch.full_like(tensor, value) for name, tensor in drawn.items()}))
        for value in (0.0, 1.0)
    )
    scores = am.open_scores(write(tmp_path / "scores", drawn))
    for density in (0.0005, 0.02, 0.5, 0.97):
        truths = reference.top(reference.numbers(drawn), density, "model")
        mask = am.top(scores, density=density)
        found = computed(zero + am.where(mask, one - zero), tmp_path / "out", overwrite=True)
        for name, truth in truths.items():
            np.testing.assert_array_equal(found[name].float().numpy() > 0, truth, err_msg=name)
