"""Masks combine as sets do; norms and cosines are numpy's."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import reference
from tests.checkpoints import EMBEDDING, HEAD, Tensors, computed, llama_shapes, near, normal, write

import alignmend as am
from alignmend.algebra.nodes import Top
from alignmend.errors import MismatchError, NonFiniteError, ParameterError

SHAPES = {"model.layers.0.mlp.w": (20, 9), "model.layers.1.mlp.w": (66_000,), "model.norm.weight": (5,)}
Truth: TypeAlias = npt.NDArray[np.bool_]


@pytest.fixture
def ones(tmp_path: Path) -> tuple[am.Checkpoint, am.Delta]:
    zero = am.open(write(tmp_path / "zero", {name: torch.zeros(shape) for name, shape in SHAPES.items()}))
    return zero, am.open(write(tmp_path / "one", {name: torch.ones(shape) for name, shape in SHAPES.items()})) - zero


@pytest.fixture
def scores(tmp_path: Path) -> am.Scores:
    return am.open_scores(write(tmp_path / "scores", {name: t.abs() for name, t in normal(8, SHAPES).items()}))


def truth(ones: tuple[am.Checkpoint, am.Delta], mask: am.Mask, folder: Path) -> dict[str, Truth]:
    """Where a mask is true, seen through a delta of ones."""
    zero, one = ones
    found = computed(zero + am.where(mask, one), Path(tempfile.mkdtemp(dir=folder)) / "out")
    assert all(set(values.flatten().tolist()) <= {0.0, 1.0} for values in found.values())
    return {name: values.numpy() > 0 for name, values in found.items()}


def assert_same(left: dict[str, Truth], right: dict[str, Truth]) -> None:
    for name, values in left.items():
        np.testing.assert_array_equal(values, right[name], err_msg=name)


def test_every_row_of_the_truth_tables(ones: tuple[am.Checkpoint, am.Delta], scores: am.Scores, tmp_path: Path) -> None:
    a, b = am.top(scores, density=0.5, scope="tensor"), am.random_mask(density=0.5, seed=1)
    left, right = truth(ones, a, tmp_path), truth(ones, b, tmp_path)
    for name in SHAPES:
        assert len({(bool(x), bool(y)) for x, y in zip(left[name].flat, right[name].flat, strict=True)}) >= 3
    assert_same(truth(ones, a & b, tmp_path), {n: left[n] & right[n] for n in left})
    assert_same(truth(ones, a | b, tmp_path), {n: left[n] | right[n] for n in left})
    assert_same(truth(ones, a - b, tmp_path), {n: left[n] & ~right[n] for n in left})
    assert_same(truth(ones, ~a, tmp_path), {n: ~left[n] for n in left})


def test_masks_obey_the_laws_of_sets(ones: tuple[am.Checkpoint, am.Delta], scores: am.Scores, tmp_path: Path) -> None:
    a = am.top(scores, density=0.4)
    b, c = am.random_mask(density=0.5, seed=1), am.random_mask(density=0.3, seed=2)
    pairs = {
        "De Morgan": (~(a & b), ~a | ~b),
        "distribution": (a & (b | c), (a & b) | (a & c)),
        "difference": (a - b, a & ~b),
        "absorption": (a | (a & b), a),
        "double negation": (~~a, a),
        "order": (a & b & c, c & b & a),
    }
    for left, right in pairs.values():
        assert_same(truth(ones, left, tmp_path), truth(ones, right, tmp_path))


def test_constant_masks_fold(ones: tuple[am.Checkpoint, am.Delta], scores: am.Scores, tmp_path: Path) -> None:
    zero, one = ones
    a = am.top(scores, density=0.4)
    everything, nothing = am.random_mask(density=1.0, seed=0), am.random_mask(density=0.0, seed=0)
    for same in (a & everything, everything & a, a | nothing, nothing | a, a - nothing):
        assert_same(truth(ones, same, tmp_path), truth(ones, a, tmp_path))
    for empty in (a & nothing, nothing & a, a - everything, ~everything):
        assert am.explain(zero + am.where(empty, one)).changed == 0
    for full in (a | everything, everything | a, ~nothing):
        assert all(values.all() for values in truth(ones, full, tmp_path).values())


@pytest.mark.parametrize("scope", ["model", "tensor"])
def test_top_of_stored_scores(
    scope: reference.Scope, ones: tuple[am.Checkpoint, am.Delta], scores: am.Scores, tmp_path: Path
) -> None:
    expected = reference.top(reference.numbers({n: t.abs() for n, t in normal(8, SHAPES).items()}), 0.2, scope)
    assert_same(truth(ones, am.top(scores, density=0.2, scope=scope), tmp_path), expected)


def test_scores_may_cover_some_tensors_only(ones: tuple[am.Checkpoint, am.Delta], tmp_path: Path) -> None:
    name = "model.layers.0.mlp.w"
    some = am.open_scores(write(tmp_path / "some", {name: normal(1, SHAPES)[name].abs()}))
    found = truth(ones, am.top(some, density=0.5), tmp_path)
    assert found[name].sum() == 90
    assert not any(values.any() for other, values in found.items() if other != name)
    rest = truth(ones, ~am.top(some, density=0.5), tmp_path)
    assert all(values.all() for other, values in rest.items() if other != name)


def test_scores_of_unknown_tensors_are_refused(ones: tuple[am.Checkpoint, am.Delta], tmp_path: Path) -> None:
    zero, one = ones
    wrong = am.open_scores(write(tmp_path / "wrong", {"model.layers.7.w": torch.ones(3)}))
    with pytest.raises(MismatchError, match=r"model\.layers\.7\.w is in .*wrong but not in .*zero"):
        am.explain(zero + am.where(am.top(wrong, density=0.5), one))
    unfit = am.open_scores(write(tmp_path / "unfit", {"model.norm.weight": torch.ones(6)}))
    with pytest.raises(MismatchError, match=r"model\.norm\.weight: .*unfit has shape \[6\], the target \[5\]"):
        am.explain(zero + am.where(am.top(unfit, density=0.5), one))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 99), factor=st.floats(-3, 3).filter(lambda x: abs(x) > 0.01))
def test_norm_and_cosine_are_numpys(seed: int, factor: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("norm")
    a, b, c = (am.open(write(folder / role, normal(seed + i, SHAPES))) for i, role in enumerate("abc"))
    flat = [np.concatenate([t.double().numpy().ravel() for t in normal(seed + i, SHAPES).values()]) for i in range(3)]
    left, right = flat[0] - flat[1], flat[2] - flat[1]
    assert am.norm(factor * (a - b)) == pytest.approx(abs(factor) * np.linalg.norm(left), rel=1e-6)
    expected = left @ right / np.linalg.norm(left) / np.linalg.norm(right)
    assert am.cosine(a - b, c - b) == pytest.approx(expected, abs=1e-7)
    assert am.cosine(a - b, factor * (a - b)) == pytest.approx(np.sign(factor), abs=1e-7)
    masked = am.trim(a - b, density=0.1)
    assert am.norm(masked) == pytest.approx(
        np.linalg.norm(np.concatenate([v.ravel() for v in reference.trim({"all": left}, 0.1, "model").values()])),
        rel=1e-6,
    )


def test_tied_copies_have_one_norm(tmp_path: Path) -> None:
    values = normal(1, llama_shapes())
    values[HEAD] = values[EMBEDDING].clone()
    zero = am.open(write(tmp_path / "z", {n: 0 * t for n, t in values.items()}, tie_word_embeddings=True))
    delta = am.open(write(tmp_path / "v", values, tie_word_embeddings=True)) - zero
    squares = sum(float(t.double().square().sum()) for name, t in values.items() if name != HEAD)
    assert am.norm(delta) == pytest.approx(squares**0.5, rel=1e-6)


def test_the_norm_of_nothing_is_zero_and_has_no_angle(tmp_path: Path) -> None:
    a, b = (am.open(write(tmp_path / role, normal(i, SHAPES))) for i, role in enumerate("ab"))
    assert am.norm(a - a) == 0.0
    assert am.norm(0.0 * (a - b)) == 0.0
    for nothing in (a - a, 0.0 * (a - b)):
        with pytest.raises(ParameterError, match="the cosine with a delta that is zero everywhere"):
            am.cosine(nothing, a - b)


def test_a_norm_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    broken = normal(0, SHAPES)
    broken["model.norm.weight"][2] = float("nan")
    a, b = am.open(write(tmp_path / "a", broken)), am.open(write(tmp_path / "b", normal(1, SHAPES)))
    with pytest.raises(NonFiniteError, match=r"model\.norm\.weight: the delta holds NaN or infinity"):
        am.norm(a - b)


@pytest.mark.parametrize("target_rows", [12, 10, 8])
def test_common_rows_changes_the_rows_that_all_share(target_rows: int, tmp_path: Path) -> None:
    def model(seed: int, rows: int) -> Tensors:
        return normal(seed, llama_shapes(vocabulary=rows, width=4))

    tensors = {"f": model(0, target_rows), "a": model(1, 10), "u": model(2, 11)}
    f, a, u = (am.open(write(tmp_path / role, tensors[role])) for role in "fau")
    with pytest.raises(MismatchError, match="a resized vocabulary: common_rows"):
        am.explain(f + (a - u))
    expression = f + am.common_rows(am.drop(f - a, density=1.0) + 0.5 * (a - u) - 0.25 * (f - a))
    plan = am.explain(expression)
    assert any("rows beyond the common ones are left as in the target" in note for note in plan.notes)
    found = computed(expression, tmp_path / "out")
    exact = {role: reference.numbers(values) for role, values in tensors.items()}
    for name, values in reference.numbers(found).items():
        rows = slice(None) if "layers" in name or "norm" in name else slice(min(10, target_rows))
        first, second, third = (exact[role][name] for role in "fau")
        expected = first.copy()
        expected[rows] += 0.75 * (first[rows] - second[rows]) + 0.5 * (second[rows] - third[rows])
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)
        if rows != slice(None):
            np.testing.assert_array_equal(values[10:], first[10:])


def test_common_rows_inside_a_trim_counts_the_targets_rows(tmp_path: Path) -> None:
    tensors = {"f": normal(0, {EMBEDDING: (9, 3)}), "a": normal(1, {EMBEDDING: (7, 3)})}
    f, a = (am.open(write(tmp_path / role, tensors[role])) for role in "fa")
    found = computed(f + am.trim(am.common_rows(a - f), density=0.25), tmp_path / "out")[EMBEDDING]
    assert int((found != tensors["f"][EMBEDDING]).sum()) == round(0.25 * 27)


@pytest.mark.parametrize("names", ["*.norm.weight", ["*.norm.weight", "*layers.0*"]])
def test_select_keeps_only_what_fits(
    names: str | list[str], ones: tuple[am.Checkpoint, am.Delta], tmp_path: Path
) -> None:
    zero, one = ones
    found = computed(zero + am.select(one, names=names), tmp_path / "out")
    assert bool(found["model.norm.weight"].all())
    assert bool(found["model.layers.0.mlp.w"].any()) == (not isinstance(names, str))
    assert not found["model.layers.1.mlp.w"].any()


def test_conditions_of_a_selection_all_hold(ones: tuple[am.Checkpoint, am.Delta], tmp_path: Path) -> None:
    zero, one = ones
    found = computed(zero + am.select(one, layers=range(1, 2), kinds="mlp", names="model.*"), tmp_path / "out")
    assert [name for name, values in found.items() if values.any()] == ["model.layers.1.mlp.w"]


def test_an_unknown_kind_is_refused(ones: tuple[am.Checkpoint, am.Delta]) -> None:
    with pytest.raises(ParameterError, match="unknown kind 'experts': choose from attention, mlp, norm"):
        am.select(ones[1], kinds="experts")  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"layers": range(0)}, {"names": []}, {"kinds": ()}])
def test_a_condition_that_names_nothing_is_refused(
    options: dict[str, object], ones: tuple[am.Checkpoint, am.Delta]
) -> None:
    with pytest.raises(ParameterError, match="is given but empty: name some"):
        am.select(ones[1], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": "model.layrs.*"}, r"no tensor of .* fits the pattern 'model\.layrs\.\*'"),
        ({"layers": [0, 9]}, "there is no layer 9: .* has layers 0 to 1"),
        ({"kinds": "attention"}, "no tensor of .* is of the kind 'attention'"),
        ({"kinds": "norm", "layers": [0]}, "fits all of names, layers and kinds together"),
    ],
)
def test_a_condition_that_nothing_fits_is_refused(
    options: dict[str, object], message: str, ones: tuple[am.Checkpoint, am.Delta]
) -> None:
    zero, one = ones
    with pytest.raises(MismatchError, match=message):
        am.explain(zero + am.select(one, **options))  # type: ignore[arg-type]


def test_per_layer_coefficients_reach_their_layers(ones: tuple[am.Checkpoint, am.Delta], tmp_path: Path) -> None:
    zero, one = ones
    found = computed(zero + 2.0 * am.per_layer(one, {0: 0.5, 1: -3.0}, default=4.0), tmp_path / "out")
    assert {name: float(values.flatten()[0]) for name, values in found.items()} == {
        "model.layers.0.mlp.w": 1.0,
        "model.layers.1.mlp.w": -6.0,
        "model.norm.weight": 8.0,
    }
    with pytest.raises(MismatchError, match="there is no layer 2"):
        am.explain(zero + am.per_layer(one, {2: 1.0}))
    with pytest.raises(ParameterError, match="the coefficient of layer 1 must be finite"):
        am.per_layer(one, {1: float("inf")})


def test_nothing_is_near_by(tmp_path: Path) -> None:
    """The cosine of unrelated fine-tunes of one base is near zero, that of one fine-tune with itself is one."""
    base = normal(0, SHAPES)
    root, left, right = (
        am.open(write(tmp_path / role, tensors))
        for role, tensors in (("b", base), ("l", near(base, 1)), ("r", near(base, 2)))
    )
    assert abs(am.cosine(left - root, right - root)) < 0.05
    assert am.cosine(left - root, left - root) == pytest.approx(1.0)


@pytest.mark.parametrize(("density", "total", "kept"), [(0.29, 100, 29), (0.57, 100, 57), (0.1, 30, 3), (0.5, 7, 3)])
def test_rounded_down_a_density_counts_as_the_decimal_that_it_was_written(
    scores: am.Scores, density: float, total: int, kept: int
) -> None:
    """0.29 * 100 is 28.999999999999996 in double precision."""
    rule = am.top(scores, density=density, counting="down").node
    assert isinstance(rule, Top)
    assert rule.count(total) == kept
