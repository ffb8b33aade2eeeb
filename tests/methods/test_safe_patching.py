"""SafePatching beside its equations, and the identities that it must obey."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import reference
from tests.methods.tiny import QUERY, UP, computed, random_tensors, read, write, write_shards
from torch import Tensor

import alignmend as am
from alignmend.algebra.nodes import Scope
from alignmend.errors import ParameterError
from alignmend.io.manifest import Patch, read_manifest

NAME = UP.format(0)
Truth = npt.NDArray[np.bool_]
Kept = Callable[[Truth, Truth], Truth]
KEPT: dict[str, tuple[dict[str, Any], Kept]] = {
    "strict": ({}, lambda own, other: own & ~other),
    "conflict": ({"mode": "conflict"}, lambda own, other: ~(own & other)),
    "intersection": ({"sets": "intersection"}, lambda own, other: own & other),
    "none": ({"sets": "none"}, lambda own, other: np.ones_like(own)),
}
LINEAR = [pattern.format(layer) for layer in range(2) for pattern in (QUERY, UP)]


@dataclass(frozen=True)
class Family:
    """A target, two patched models and their scores, on a coarse grid: sums of float32 are exact."""

    folder: Path
    values: dict[str, dict[str, Tensor]]

    def opened(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for role, tensors in self.values.items():
            place = self.folder / role
            path = place if place.exists() else write(place, tensors)
            found[role] = am.open_scores(path) if role.endswith("scores") else am.open(path)
        return found

    def patched(self, **parameters: Any) -> am.Checkpoint:
        return am.safe_patching(**(self.opened() | parameters))

    def apply(self, **parameters: Any) -> dict[str, Tensor]:
        return computed(self.patched(**parameters), self.folder / "out", overwrite=True)

    @property
    def target(self) -> dict[str, Tensor]:
        return self.values["target"]

    def delta(self, patch: str) -> dict[str, Tensor]:
        """P on the tensors that take part."""
        return {name: self.values[patch][name] - self.target[name] for name in LINEAR}

    def means(self, kept: Kept, rates: tuple[float, float], scope: str = "tensor", **options: Any) -> reference.Arrays:
        patches = ("safety", "over_safety")
        tops = {
            patch: reference.top(
                {name: self.values[f"{patch}_scores"][name].double().numpy() for name in LINEAR}, rate, scope, "down"
            )
            for patch, rate in zip(patches, rates, strict=True)
        }
        return reference.safe_patching(
            reference.numbers(self.target),
            {patch: reference.numbers(self.delta(patch)) for patch in patches},
            tops,
            kept=kept,
            **options,
        )


def family(folder: Path, seed: int = 0, *, size: int = 8) -> Family:
    random = np.random.default_rng(seed)
    shapes = {name: tuple(tensor.shape) for name, tensor in random_tensors(0, size=size).items()}

    def drawn(low: int, high: int) -> dict[str, Tensor]:
        grid = {name: random.integers(low, high, shape).astype(np.float32) / 32 for name, shape in shapes.items()}
        return {name: torch.from_numpy(values) for name, values in grid.items()}

    roles = {role: drawn(-64, 65) for role in ("target", "safety", "over_safety")}
    return Family(folder, roles | {role: drawn(0, 9) for role in ("safety_scores", "over_safety_scores")})


@pytest.fixture
def one(tmp_path: Path) -> Family:
    return family(tmp_path)


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return all(torch.equal(left[name].view(torch.int32), right[name].view(torch.int32)) for name in right)


def test_equation_by_hand(tmp_path: Path) -> None:
    """4 + 2 of 4 weights: S_SE = {0, 1}, S_OSM = {1, 2}, so that weight 1 is in conflict and weight 3 in neither."""
    values = {
        "target": [[10.0, 10.0], [10.0, 10.0]],
        "safety": [[11.0, 12.0], [13.0, 14.0]],
        "over_safety": [[9.0, 8.0], [7.0, 6.0]],
        "safety_scores": [[4.0, 3.0], [2.0, 1.0]],
        "over_safety_scores": [[2.0, 3.0], [4.0, 1.0]],
    }
    tiny = Family(tmp_path, {role: {NAME: torch.tensor(value)} for role, value in values.items()})
    settings = {"density": 1.0, "safety_rate": 0.5, "over_safety_rate": 0.5, "over_safety_coefficient": 0.5}
    expected = {
        "strict": [[11.0, 10.0], [8.5, 10.0]],
        "conflict": [[10.5, 10.0], [11.5, 12.0]],
        "intersection": [[10.0, 11.0], [10.0, 10.0]],
        "none": [[10.5, 11.0], [11.5, 12.0]],
    }
    for name, (switch, _) in KEPT.items():
        assert tiny.apply(**settings, **switch)[NAME].tolist() == expected[name], name
    assert tiny.apply(**settings, use="safety")[NAME].tolist() == [[11.0, 10.0], [10.0, 10.0]]
    assert tiny.apply(**settings, use="over_safety")[NAME].tolist() == [[10.0, 10.0], [8.5, 10.0]]


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 99),
    kept=st.sampled_from(sorted(KEPT)),
    scope=st.sampled_from(["tensor", "row", "model"]),
    rates=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    coefficients=st.tuples(st.sampled_from([0.0, 0.5, 1.0, -2.0]), st.sampled_from([0.25, 1.0])),
    density=st.sampled_from([0.0, 0.3, 1.0]),
    mask_seed=st.integers(0, 2),
)
def test_every_switch_equals_the_oracle(
    *,
    seed: int,
    kept: str,
    scope: Scope,
    rates: tuple[float, float],
    coefficients: tuple[float, float],
    density: float,
    mask_seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    drawn = family(tmp_path_factory.mktemp("p"), seed)
    switch, rule = KEPT[kept]
    found = drawn.apply(
        safety_rate=rates[0],
        over_safety_rate=rates[1],
        safety_coefficient=coefficients[0],
        over_safety_coefficient=coefficients[1],
        density=density,
        scope=scope,
        seed=mask_seed,
        **switch,
    )
    lengths = dict(zip(("safety", "over_safety"), coefficients, strict=True))
    expected = drawn.means(rule, rates, scope, coefficients=lengths, density=density, seed=mask_seed)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name].double().numpy(), values, err_msg=name)


@pytest.mark.parametrize("switch", KEPT)
def test_nothing_added_is_the_target_bit_by_bit(one: Family, switch: str) -> None:
    given_, _ = KEPT[switch]
    assert same(one.apply(safety_coefficient=0.0, over_safety_coefficient=0.0, **given_), one.target)
    assert same(one.apply(density=0.0, **given_), one.target)


@pytest.mark.parametrize("mode", ["strict", "conflict"])
def test_where_everything_conflicts_nothing_changes(one: Family, mode: str) -> None:
    assert same(one.apply(density=1.0, safety_rate=1.0, over_safety_rate=1.0, mode=mode), one.target)


def test_all_of_one_side_and_none_of_the_other_is_that_patch_dropped(one: Family) -> None:
    found = one.apply(safety_rate=1.0, over_safety_rate=0.0, density=0.3, safety_coefficient=0.5, seed=4)
    for name, delta in one.delta("safety").items():
        retained = reference.independent_keep("safety", 0.3, 4, name, tuple(delta.shape))[name]
        assert torch.equal(found[name], one.target[name] + 0.5 * torch.from_numpy(retained) * delta)


def test_conflict_without_top_sets_is_dropped_task_arithmetic(one: Family) -> None:
    nothing = one.apply(mode="conflict", safety_rate=0.0, over_safety_rate=0.0)
    assert same(nothing, one.apply(sets="none", safety_scores=None, over_safety_scores=None))
    opened = one.opened()
    models = [opened["safety"], opened["over_safety"]]
    plain = am.task_arithmetic(base=opened["target"], finetuned=models, weights=[1.0, 0.5])
    expected = computed(plain, one.folder / "plain")
    whole = one.apply(sets="none", density=1.0, over_safety_coefficient=0.5, linear=False)
    assert same(whole, expected)


@settings(max_examples=10, deadline=None)
@given(rates=st.tuples(st.floats(0, 1), st.floats(0, 1)), seed=st.integers(0, 9))
def test_top_sets_split_into_disjoint_differences_and_their_intersection(
    rates: tuple[float, float], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Scores have nine values only: most are tied. Seen through patches of ones and of twos."""
    drawn = family(tmp_path_factory.mktemp("sets"), seed)
    zero = {name: torch.zeros_like(tensor) for name, tensor in drawn.target.items()}
    patches = {role: {name: tensor + value for name, tensor in zero.items()} for role, value in CONSTANT.items()}
    seen = Family(drawn.folder / "seen", drawn.values | {"target": zero} | patches)
    options = {"safety_rate": rates[0], "over_safety_rate": rates[1], "density": 1.0}
    difference, shared = seen.apply(**options), seen.apply(**options, sets="intersection")
    for name in LINEAR:
        assert set(difference[name].flatten().tolist()) <= {0.0, 1.0, 2.0}  # never both: 3
        size = difference[name].numel()
        for value, rate in zip((1.0, 2.0), rates, strict=True):
            own = int((difference[name] == value).sum() + (shared[name] == 3.0).sum())
            assert own == reference.kept_count(rate, size, "down")


CONSTANT = {"safety": 1.0, "over_safety": 2.0}


@pytest.mark.parametrize(("rate", "expected"), [(0.29, 29), (0.07, 7), (0.999, 99), (0.015, 1), (1e-9, 0)])
def test_rates_round_down_as_they_are_written(tmp_path: Path, rate: float, expected: int) -> None:
    values = {"target": torch.zeros(10, 10), "safety": torch.ones(10, 10), "over_safety": torch.zeros(10, 10)}
    scores = {"safety_scores": torch.ones(10, 10), "over_safety_scores": torch.ones(10, 10)}
    tiny = Family(tmp_path, {role: {NAME: tensor} for role, tensor in (values | scores).items()})
    found = tiny.apply(safety_rate=rate, over_safety_rate=0.0, density=1.0)[NAME]
    assert torch.equal(found.flatten()[:expected], torch.ones(expected)), "ties in order of index"
    assert int(found.sum()) == expected


def test_random_retention_keeps_its_share_and_is_independent(tmp_path: Path) -> None:
    size = 400
    ones, zero = {NAME: torch.ones(size, size)}, {NAME: torch.zeros(size, size)}
    model = Family(tmp_path, {"target": zero, "safety": ones, "over_safety": {NAME: 2 * ones[NAME]}})
    found = model.apply(sets="none", density=0.3, seed=1)[NAME]
    count = size * size
    for values, share in (((1.0, 3.0), 0.3), ((2.0, 3.0), 0.3), ((3.0,), 0.09)):  # independent: p times p in both
        kept = sum(int((found == value).sum()) for value in values)
        assert abs(kept - share * count) < 5 * (count * share * (1 - share)) ** 0.5
    assert same(model.apply(sets="none", density=0.3, seed=1), {NAME: found})
    assert not torch.equal(model.apply(sets="none", density=0.3, seed=2)[NAME], found)


def test_rescaling_keeps_the_expectation_and_none_shrinks_it(tmp_path: Path) -> None:
    size = 300
    values = {
        "target": torch.zeros(size, size),
        "safety": torch.ones(size, size),
        "over_safety": torch.zeros(size, size),
    }
    model = Family(tmp_path, {role: {NAME: tensor} for role, tensor in values.items()})
    for rescale, mean in ((False, 0.25), (True, 1.0)):
        found = [model.apply(sets="none", density=0.25, rescale=rescale, seed=seed)[NAME].mean() for seed in range(4)]
        error = mean / 0.25 * (0.25 * 0.75 / (4 * size * size)) ** 0.5
        assert float(sum(found) / 4) == pytest.approx(mean, abs=5 * error)


@pytest.mark.parametrize("scope", ["tensor", "row", "model"])
def test_neither_threads_nor_shards_nor_order_change_a_byte(tmp_path: Path, scope: Scope) -> None:
    drawn = family(tmp_path, size=96)
    found = []
    for threads in (1, 3):
        opened: dict[str, Any] = {}
        for role, tensors in drawn.values.items():
            names = sorted(tensors, reverse=threads > 1)
            parts = [{name: tensors[name] for name in names[start::threads]} for start in range(threads)]
            path = write_shards(tmp_path / str(threads) / role, parts)
            opened[role] = am.open_scores(path) if role.endswith("scores") else am.open(path)
        out = tmp_path / f"out{threads}"
        am.save(am.safe_patching(**opened, scope=scope), out, threads=threads, hash=False)
        found.append((out / "model.safetensors").read_bytes())
    assert found[0] == found[1]


def test_random_top_sets_are_a_control_of_the_same_density(one: Family, tmp_path: Path) -> None:
    size = 300
    values = {
        "target": torch.zeros(size, size),
        "safety": torch.ones(size, size),
        "over_safety": torch.zeros(size, size),
    }
    model = Family(tmp_path / "big", {role: {NAME: tensor} for role, tensor in values.items()})
    options = {"importance": "random", "safety_rate": 0.2, "over_safety_rate": 0.5, "density": 1.0}
    kept, expected = int(model.apply(**options)[NAME].sum()), 0.2 * 0.5 * size**2
    assert abs(kept - expected) < 5 * (expected * 0.9) ** 0.5
    assert not same(one.apply(importance="random", density=1.0), one.apply(density=1.0))


def test_what_takes_part_is_linear_weights_unless_said_otherwise(one: Family) -> None:
    settings = {"sets": "none", "density": 1.0, "use": "safety"}
    for switch, expected in (
        ({}, set(LINEAR)),
        ({"layers": [1]}, {name for name in LINEAR if ".1." in name}),
        ({"kinds": ["attention"]}, {name for name in LINEAR if "q_proj" in name}),
        ({"linear": False}, set(one.target)),
    ):
        found = one.apply(**settings, **switch)
        assert {name for name, values in found.items() if not torch.equal(values, one.target[name])} == expected


def test_the_manifest_tells_what_each_patch_kept(one: Family) -> None:
    one.apply(mode="conflict", safety_rate=0.5, over_safety_rate=0.4, density=0.5, seed=3)
    patches = {patch.label: patch for patch in read_manifest(one.folder / "out").patches}
    assert list(patches) == ["safety", "over_safety"]
    kept = {}
    for label, patch in patches.items():
        tops = one.means(
            KEPT["conflict"][1],
            (0.5, 0.4),
            coefficients={"safety": float(label == "safety"), "over_safety": float(label == "over_safety")},
            density=0.5,
            seed=3,
        )
        kept[label] = {name: tops[name] - reference.numbers(one.target)[name] for name in LINEAR}
        assert patch.norm == pytest.approx(_norm(kept[label]), rel=1e-5)
        assert (patch.kept, patch.weights) == (
            sum(t.kept for t in patch.tensors),
            sum(t.weights for t in patch.tensors),
        )
        for tensor in patch.tensors:
            assert tensor.norm == pytest.approx(_norm({"": kept[label][tensor.name]}), rel=1e-5)
            assert int(np.count_nonzero(kept[label][tensor.name])) <= tensor.kept < tensor.weights
    product = sum(float((kept["safety"][name] * kept["over_safety"][name]).sum()) for name in LINEAR)
    expected = product / _norm(kept["safety"]) / _norm(kept["over_safety"])
    assert patches["over_safety"].cosines["safety"] == pytest.approx(expected, rel=1e-4)


def _norm(values: reference.Arrays) -> float:
    return float(sum(np.square(one).sum() for one in values.values()) ** 0.5)


def test_kept_counts_are_exact_without_retention(one: Family) -> None:
    one.apply(safety_rate=0.1, over_safety_rate=0.0, density=1.0)
    (patch,) = (patch for patch in read_manifest(one.folder / "out").patches if patch.label == "safety")
    assert {tensor.name: tensor.kept for tensor in patch.tensors} == {
        name: reference.kept_count(0.1, one.target[name].numel(), "down") for name in LINEAR
    }


def test_a_resumed_run_counts_the_same(tmp_path: Path) -> None:
    drawn = family(tmp_path, size=32)
    expression = drawn.patched()

    def interrupt(what: str, done: int, total: int) -> None:
        if what == "write" and done > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        am.save(expression, tmp_path / "out", threads=1, progress=interrupt)
    am.save(expression, tmp_path / "out", resume=True)
    am.save(expression, tmp_path / "plain")
    left, right = read_manifest(tmp_path / "out").patches, read_manifest(tmp_path / "plain").patches
    assert left == right
    assert all(isinstance(patch, Patch) and patch.kept for patch in left)


@pytest.mark.parametrize("copied", [True, False])
def test_equal_scores_are_told_of(one: Family, copied: bool) -> None:
    """The same file twice, or two files of the same numbers: the sets are nested."""
    scores = one.opened()["safety_scores"]
    if copied:
        scores = am.open_scores(write(one.folder / "copy", one.values["safety_scores"]))
    expression = one.patched(over_safety_scores=scores, safety_rate=0.1, over_safety_rate=0.1)
    saved = am.save(expression, one.folder / "out")
    assert any("are the same: their top sets lie within one another" in text for text in saved.warnings)
    assert any("are the same" in note for note in read_manifest(one.folder / "out").notes)
    assert any("are the same" in note for note in am.explain(expression).notes) is not copied
    assert same(read(one.folder / "out"), one.target)


def test_different_scores_are_not(one: Family) -> None:
    saved = am.save(one.patched(), one.folder / "out")
    assert not any("are the same" in text for text in (*saved.warnings, *saved.manifest.notes))


def test_missing_scores_are_told_of(one: Family) -> None:
    del one.values["safety_scores"][LINEAR[0]]
    plan = am.explain(one.patched())
    with pytest.raises(ParameterError, match="over_safety_scores is missing: make it with  alignmend scores"):
        one.patched(over_safety_scores=None)
    assert any(f"has no scores of 1 tensors that it decides over, such as {LINEAR[0]}" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"sets": "union"}, "sets is one of difference, intersection, none, not 'union'"),
        ({"mode": "loose"}, "mode is one of strict, conflict"),
        ({"importance": "snip"}, "importance is one of scores, random"),
        ({"use": "none"}, "use is one of both, safety, over_safety"),
        ({"density": 1.1}, "density is the fraction kept"),
        ({"density": 0.0, "rescale": True}, "not 0 to be rescaled"),
        ({"safety_rate": -0.1}, "density is the fraction kept, between 0 and 1, not -0.1"),
        ({"scope": "layer"}, "scope is 'tensor', 'row' or 'model'"),
    ],
)
def test_mistakes_are_told(one: Family, parameters: dict[str, Any], problem: str) -> None:
    with pytest.raises(ParameterError, match=problem):
        one.patched(**parameters)


def test_a_plain_step_up_and_down_gives_opposite_patches_that_cancel(one: Family) -> None:
    """P_SE = -P_OSM, and scores of the target itself are equal: the sum of the intersection is nothing."""
    opposite = {name: 2 * one.target[name] - values for name, values in one.values["safety"].items()}
    model = Family(one.folder / "opposite", one.values | {"over_safety": opposite})
    scores = model.opened()["safety_scores"]
    options = {"over_safety_scores": scores, "over_safety_rate": 0.03, "density": 1.0}
    assert same(model.apply(sets="intersection", **options), model.target)
