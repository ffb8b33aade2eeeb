"""Cheap relatives of RESTA beside their equations: limits, hand-computed examples, streams, adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests import reference
from tests.io.adapter_files import write as write_adapter
from tests.methods.tiny import QUERY, UP, computed, contents, near, random_tensors, read, write
from torch import Tensor

import alignmend as am
from alignmend.algebra.nodes import Unit
from alignmend.cli import main
from alignmend.errors import MismatchError, ParameterError
from alignmend.execution.adapter_output import save_adapter
from alignmend.methods.closed_form import closed_form
from alignmend.methods.conflict_mask import conflict_mask
from alignmend.methods.lata import lata
from alignmend.methods.pre_post_merge import pre_post_merge
from alignmend.methods.safe_lora import safe_lora
from alignmend.methods.safe_merge import safe_merge

NAMES = [pattern.format(layer) for layer in (0, 1) for pattern in (QUERY, UP)]
HAND = QUERY.format(0)


@pytest.fixture
def models(tmp_path: Path) -> dict[str, am.Checkpoint]:
    """Random, each near the aligned one."""
    aligned = random_tensors(0)
    write(tmp_path / "aligned", aligned)
    roles = ("finetuned", "unaligned", "base", "safety")
    for seed, role in enumerate(roles, 1):
        write(tmp_path / role, near(aligned, seed))
    return {role: am.open(tmp_path / role) for role in ("aligned", *roles)}


def numbers(models: Mapping[str, am.Checkpoint], role: str) -> reference.Arrays:
    return reference.numbers(read(models[role].root.folder.path))


def vectors(models: Mapping[str, am.Checkpoint]) -> tuple[reference.Arrays, reference.Arrays]:
    """Task delta and safety vector."""
    finetuned, aligned, unaligned = (numbers(models, role) for role in ("finetuned", "aligned", "unaligned"))
    return reference.subtract(finetuned, aligned), reference.subtract(aligned, unaligned)


def roles(models: Mapping[str, am.Checkpoint], *names: str) -> dict[str, Any]:
    return {name: models[name] for name in names}


def check(found: Mapping[str, Tensor], expected: reference.Arrays) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].double().numpy(), values, rtol=2e-5, atol=2e-6, err_msg=name)


def hand(folder: Path, **tensors: list[list[float]]) -> dict[str, Any]:
    """Models of one 2x2 matrix each."""
    return {role: am.open(write(folder / role, {HAND: values})) for role, values in tensors.items()}


TRIO = ("finetuned", "aligned", "unaligned")


def dot(left: reference.Array, right: reference.Array) -> float:
    return float((left * right).sum())


# Closed form


def test_closed_form_by_hand(tmp_path: Path) -> None:
    # T = [[-2, 0], [0, 1]], S = [[1, 0], [0, 1]]: <T, S> = -1, <S, S> = 2, gamma = 1/2.
    zero = [[0.0, 0.0], [0.0, 0.0]]
    models = hand(tmp_path, finetuned=[[-2, 0], [0, 1]], aligned=zero, unaligned=[[-1, 0], [0, -1]])
    result = closed_form(**models)
    assert computed(result, tmp_path / "out")[HAND].tolist() == [[-1.5, 0.0], [0.0, 1.5]]
    ((found,),) = [list(one.values()) for one in am.coefficients(result)]
    assert (found.name, found.value) == (HAND, 0.5)
    assert found.cosine == pytest.approx(-1 / 10**0.5) and found.ratio == pytest.approx(2.5**0.5)


@pytest.mark.parametrize("unit", ["tensor", "layer", "model"])
def test_closed_form_is_its_equation(unit: Any, models: dict[str, am.Checkpoint], tmp_path: Path) -> None:
    task, safety = vectors(models)
    groups: dict[str, list[str]] = {}
    for name in safety:
        layer = name.split(".")[2] if ".layers." in name else None
        if unit != "layer" or layer is not None:
            groups.setdefault({"tensor": name, "layer": str(layer), "model": "all"}[unit], []).append(name)
    expected = numbers(models, "finetuned")
    for names in groups.values():
        along = sum(dot(task[name], safety[name]) for name in names)
        gamma = max(0.0, -along / sum(dot(safety[name], safety[name]) for name in names))
        for name in names:
            expected[name] = expected[name] + gamma * safety[name]
    check(computed(closed_form(**roles(models, *TRIO), unit=unit), tmp_path / "out"), expected)


def test_closed_form_limits(tmp_path: Path) -> None:
    """T = -g S gives the aligned model, T orthogonal to S and T = g S change nothing."""
    aligned, unaligned = random_tensors(0), random_tensors(1)
    safety = {name: values - unaligned[name] for name, values in aligned.items()}
    generator = torch.Generator().manual_seed(2)
    orthogonal = {}
    for name, values in safety.items():
        free = torch.randn(values.shape, generator=generator, dtype=torch.float64)
        free -= float((free * values).sum() / (values.double() ** 2).sum()) * values
        # Where rounding leaves a little of S against it, a step along S makes it exactly not so.
        orthogonal[name] = (free + 1e-6 * values).float()
    write(tmp_path / "aligned", aligned)
    write(tmp_path / "unaligned", unaligned)
    for role, task in (
        ("against", {name: -0.25 * values for name, values in safety.items()}),
        ("orthogonal", orthogonal),
        ("along", {name: 2.0 * values for name, values in safety.items()}),
    ):
        finetuned = {name: values + task[name] for name, values in aligned.items()}
        models: dict[str, Any] = {"finetuned": am.open(write(tmp_path / role, finetuned))}
        models |= {one: am.open(tmp_path / one) for one in ("aligned", "unaligned")}
        found = computed(closed_form(**models), tmp_path / f"out-{role}")
        for name, values in found.items():
            if role == "against":
                torch.testing.assert_close(values, aligned[name], rtol=1e-5, atol=1e-5)
            else:
                assert torch.equal(values, finetuned[name]), (role, name)


def test_the_result_is_orthogonal_to_the_safety_vector(models: dict[str, am.Checkpoint], tmp_path: Path) -> None:
    _, safety = vectors(models)
    found = reference.numbers(computed(closed_form(**roles(models, *TRIO)), tmp_path / "out"))
    left = reference.subtract(found, numbers(models, "aligned"))
    for name, values in left.items():
        assert dot(values, safety[name]) >= -1e-5 * np.linalg.norm(values) * np.linalg.norm(safety[name])


# Conflict mask


def test_conflict_mask_by_hand(tmp_path: Path) -> None:
    # T = [[1, -1], [0, 0]], S = [[1, 1], [1, 0]]: conflicts are where T is -1, and, as a zero, where T is 0 and S is 1.
    zero = [[0.0, 0.0], [0.0, 0.0]]
    models = hand(tmp_path, finetuned=[[1, -1], [0, 0]], aligned=zero, unaligned=[[-1, -1], [-1, 0]])
    found = computed(conflict_mask(**models, coefficient=0.5), tmp_path / "zeros")[HAND].tolist()
    assert found == [[1.0, -0.5], [0.5, 0.0]]
    found = computed(conflict_mask(**models, coefficient=0.5, zeros=False), tmp_path / "signs")[HAND].tolist()
    assert found == [[1.0, -0.5], [0.0, 0.0]]


@pytest.mark.parametrize("zeros", [True, False])
def test_conflict_mask_is_its_equation(zeros: bool, models: dict[str, am.Checkpoint], tmp_path: Path) -> None:
    task, safety = vectors(models)
    expected = {
        name: values + 0.6 * safety[name] * (np.sign(task[name]) != np.sign(safety[name]))
        for name, values in numbers(models, "finetuned").items()
    }
    check(computed(conflict_mask(**roles(models, *TRIO), zeros=zeros), tmp_path / "out"), expected)


def test_conflict_mask_limits(models: dict[str, am.Checkpoint], tmp_path: Path) -> None:
    """T = S: nothing; T = -S: all of S; where both are zero, nothing."""
    aligned, unaligned = models["aligned"], models["unaligned"]
    safety = aligned - unaligned
    same = computed(aligned + safety + am.where(am.conflict(safety, safety), safety), tmp_path / "same")
    check(same, reference.numbers(computed(aligned + safety, tmp_path / "moved")))
    opposed = computed(aligned + am.where(am.conflict(-safety, safety), safety), tmp_path / "opposed")
    check(opposed, reference.numbers(computed(aligned + safety, tmp_path / "whole")))
    nothing = am.conflict(aligned - aligned, aligned - aligned)
    check(computed(aligned + am.where(nothing, safety), tmp_path / "none"), numbers(models, "aligned"))
    agreeing = computed(aligned + am.where(~am.conflict(safety, safety), safety), tmp_path / "not")
    check(agreeing, reference.numbers(computed(aligned + safety, tmp_path / "whole-2")))


# Pre/post merge


def test_pre_post_merge(models: dict[str, am.Checkpoint], tmp_path: Path) -> None:
    both = roles(models, "finetuned", "aligned")
    expected = reference.add(
        reference.scale(0.25, numbers(models, "finetuned")), reference.scale(0.75, numbers(models, "aligned"))
    )
    check(computed(pre_post_merge(**both, weight=0.75), tmp_path / "out"), expected)
    check(computed(pre_post_merge(**both, weight=0.0), tmp_path / "none"), numbers(models, "finetuned"))
    check(computed(pre_post_merge(**both, weight=1.0), tmp_path / "all"), numbers(models, "aligned"))
    by_hand = hand(tmp_path / "hand", finetuned=[[1, 2], [3, 4]], aligned=[[3, 2], [1, 0]])
    assert computed(pre_post_merge(**by_hand), tmp_path / "half")[HAND].tolist() == [[2, 2], [2, 2]]


# SafeLoRA


def projection(name: str, rank: int, basis: reference.Array) -> reference.Array:
    """C, explicitly."""
    if name == "orthogonal":
        left = np.linalg.svd(basis)[0][:, :rank]
        return np.asarray(left @ left.T)
    by = {
        "frob": np.linalg.norm(basis),
        "frob_sq": np.linalg.norm(basis) ** 2,
        "spectral": np.linalg.norm(basis, 2) ** 2,
    }
    return np.asarray(basis @ basis.T / by[name])


def cosine(left: reference.Array, right: reference.Array) -> float:
    return dot(left, right) / float(np.linalg.norm(left) * np.linalg.norm(right))


SAFE_LORA = ("finetuned", "aligned", "base")


def safe_lora_reference(
    models: dict[str, am.Checkpoint], low: Callable[[dict[str, float]], set[str]], **options: Any
) -> reference.Arrays:
    task, _ = vectors(models)
    basis = reference.subtract(numbers(models, "aligned"), numbers(models, "base"))
    name, rank = options.get("projector", "frob"), options.get("rank", 0)
    moved = {one: projection(name, rank, basis[one]) @ task[one] for one in NAMES}
    chosen = low({one: cosine(moved[one], task[one]) for one in NAMES})
    finetuned = numbers(models, "finetuned")
    return finetuned | {one: finetuned[one] + moved[one] - task[one] for one in chosen}


def test_safe_lora_by_hand(tmp_path: Path) -> None:
    # V = diag(3, 4), |V| = 5, C = diag(1.8, 3.2); dW = [[1, 0], [0, 0]], C dW = 1.8 dW, cosine 1.
    eye = [[0.0, 0.0], [0.0, 0.0]]
    models = hand(tmp_path, finetuned=[[4, 0], [0, 4]], aligned=[[3, 0], [0, 4]], base=eye)
    assert computed(safe_lora(**models, number=1), tmp_path / "out")[HAND].flatten().tolist() == pytest.approx(
        [4.8, 0, 0, 4]
    )


@pytest.mark.parametrize(
    "options",
    [{}, {"projector": "frob_sq"}, {"projector": "spectral"}, {"projector": "orthogonal", "rank": 3}],
    ids=str,
)
@pytest.mark.parametrize("number", [0, 1, 3, 99])
def test_safe_lora_takes_exactly_the_lowest_cosines(
    number: int, options: dict[str, Any], models: dict[str, am.Checkpoint], tmp_path: Path
) -> None:
    def low(cosines: dict[str, float]) -> set[str]:
        return set(sorted(cosines, key=lambda name: cosines[name])[:number])

    found = computed(safe_lora(**roles(models, *SAFE_LORA), number=number, **options), tmp_path / "out")
    check(found, safe_lora_reference(models, low, **options))


@pytest.mark.parametrize(("threshold", "projected"), [(-0.01, 0), (1.0, 4)])
def test_safe_lora_thresholds(
    threshold: float, projected: int, models: dict[str, am.Checkpoint], tmp_path: Path
) -> None:
    result = safe_lora(**roles(models, *SAFE_LORA), select="threshold", threshold=threshold)
    found = computed(result, tmp_path / "out")
    check(found, safe_lora_reference(models, lambda cosines: set(list(cosines)[:projected])))
    (decided,) = am.coefficients(result)
    assert [one.value for one in decided.values()] == [float(projected > 0)] * 4
    if not projected:
        own = read(models["finetuned"].root.folder.path)
        assert all(torch.equal(values, own[name]) for name, values in found.items())


def test_the_cosine_does_not_depend_on_scales(models: dict[str, am.Checkpoint]) -> None:
    task, basis = models["finetuned"] - models["aligned"], models["aligned"] - models["base"]
    one, other = (
        am.coefficients(
            models["finetuned"]
            + am.where_similar(task, left=am.project(c * task, d * basis), right=c * task, limit=0.5)
        )[0]
        for c, d in ((1.0, 1.0), (7.0, 0.01))
    )
    assert [found.cosine for found in one.values()] == pytest.approx([found.cosine for found in other.values()])


# Adapters


def adapter(folder: Path, seed: int, rank: int) -> Path:
    folder.mkdir()
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name in NAMES:
        out = 8 if "q_proj" in name else 16
        module = f"base_model.model.{name.removesuffix('.weight')}"
        tensors[f"{module}.lora_A.weight"] = torch.randn(rank, 8, generator=generator)
        tensors[f"{module}.lora_B.weight"] = torch.randn(out, rank, generator=generator)
    return write_adapter(folder, tensors, r=rank, lora_alpha=6, target_modules=["q_proj", "up_proj"])


@pytest.fixture
def on_adapters(models: dict[str, am.Checkpoint], tmp_path: Path) -> dict[str, am.Checkpoint]:
    """Fine-tuned, unaligned and safety models are adapters on the aligned one."""
    found = dict(models)
    for seed, (role, rank) in enumerate((("finetuned", 2), ("unaligned", 3), ("safety", 1)), 5):
        part = adapter(tmp_path / f"{role}-adapter", seed, rank)
        found[role] = models["aligned"] + am.open_adapter(part)
    return found


METHODS: dict[str, Callable[[dict[str, am.Checkpoint]], am.Checkpoint]] = {
    "closed form": lambda m: closed_form(**roles(m, *TRIO)),
    "closed form by layer": lambda m: closed_form(**roles(m, *TRIO), unit="layer"),
    "pre/post merge": lambda m: pre_post_merge(**roles(m, "finetuned", "aligned"), weight=0.3),
    "SafeLoRA": lambda m: safe_lora(**roles(m, *SAFE_LORA), number=2),
    "SafeLoRA orthogonal": lambda m: safe_lora(**roles(m, *SAFE_LORA), number=3, projector="orthogonal", rank=2),
    "SafeMERGE": lambda m: safe_merge(**roles(m, *SAFE_LORA, "safety"), threshold=0.45, weight=0.6),
}


@pytest.mark.parametrize("name", METHODS)
def test_adapters_stay_adapters_exactly(name: str, on_adapters: dict[str, am.Checkpoint], tmp_path: Path) -> None:
    result = METHODS[name](on_adapters)
    written = save_adapter(result, tmp_path / "adapter")
    again = on_adapters["aligned"] + am.open_adapter(written.path)
    expected = computed(result, tmp_path / "merged")
    for tensor, values in computed(again, tmp_path / "again").items():
        torch.testing.assert_close(values, expected[tensor], rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", [*METHODS, "conflict mask", "LATA"])
def test_threads_and_shards_change_no_byte(name: str, models: dict[str, am.Checkpoint], tmp_path: Path) -> None:
    made = METHODS | {
        "conflict mask": lambda m: conflict_mask(**roles(m, *TRIO)),
        "LATA": lambda m: lata(target=m["aligned"], task=m["finetuned"], base=m["base"], instruct=m["safety"]),
    }
    one, many = (am.save(made[name](models), tmp_path / str(n), threads=n, hash=False).path for n in (1, 3))
    assert contents(one)["model.safetensors"] == contents(many)["model.safetensors"]


def test_the_manifest_tells_what_was_decided_and_how_long_the_results_are(
    on_adapters: dict[str, am.Checkpoint], tmp_path: Path
) -> None:
    saved = save_adapter(METHODS["SafeLoRA"](on_adapters), tmp_path / "out")
    (note,) = [one for one in saved.manifest.notes if "similar" in one]
    assert "gave 2 of 4 tensors a coefficient other than zero" in note
    assert "norms' ratio is" in note and "cosines" in note


# SafeMERGE


def test_safe_merge_limits(on_adapters: dict[str, am.Checkpoint], tmp_path: Path) -> None:
    given = roles(on_adapters, *SAFE_LORA, "safety")
    finetuned = reference.numbers(computed(on_adapters["finetuned"], tmp_path / "f"))
    safety = reference.numbers(computed(on_adapters["safety"], tmp_path / "s"))
    cases: dict[str, tuple[dict[str, Any], reference.Arrays]] = {
        "no threshold": ({"threshold": 0.0}, finetuned),
        "all of the fine-tune": ({"threshold": 1.01, "weight": 1.0}, finetuned),
        "all of the safety update": ({"threshold": 1.01, "weight": 0.0}, safety),
    }
    for name, (options, expected) in cases.items():
        check(computed(safe_merge(**given, **options), tmp_path / name.replace(" ", "-")), expected)


def test_merging_factors_would_not_be_merging_updates(on_adapters: dict[str, am.Checkpoint], tmp_path: Path) -> None:
    result = safe_merge(**roles(on_adapters, *SAFE_LORA, "safety"), threshold=1.01, weight=0.5)
    written = save_adapter(result, tmp_path / "adapter")
    tensors = read(written.path)
    rank = next(values.shape[0] for name, values in tensors.items() if name.endswith("lora_A.weight"))
    assert rank == 2 + 1, "factors are concatenated, so ranks add up"


def test_safe_merge_refuses_a_share_that_is_none(models: dict[str, am.Checkpoint]) -> None:
    with pytest.raises(ParameterError, match="weight is the share of the fine-tune"):
        safe_merge(**roles(models, *SAFE_LORA, "safety"), weight=1.5)


# LATA


def lata_of(models: dict[str, am.Checkpoint], **options: Any) -> am.Checkpoint:
    return lata(
        target=models["aligned"], task=models["finetuned"], base=models["base"], instruct=models["safety"], **options
    )


def lata_reference(models: dict[str, am.Checkpoint], weights: Callable[[list[float]], list[float]]) -> reference.Arrays:
    task, instruction = (
        reference.subtract(numbers(models, role), numbers(models, "base")) for role in ("finetuned", "safety")
    )
    layers = [[name for name in task if f".layers.{layer}." in name] for layer in (0, 1)]
    cosines = [
        cosine(
            np.concatenate([task[name].ravel() for name in names]),
            np.concatenate([instruction[name].ravel() for name in names]),
        )
        for names in layers
    ]
    found = numbers(models, "aligned")
    for names, weight in zip(layers, weights(cosines), strict=True):
        found |= {name: found[name] - 0.5 * weight * task[name] for name in names}
    return found


@pytest.mark.parametrize("law", ["linear", "log"])
def test_lata_by_rank(law: Any, models: dict[str, am.Checkpoint], tmp_path: Path) -> None:
    def weights(cosines: list[float]) -> list[float]:
        return [float(one < max(cosines)) for one in cosines]  # of two layers: rank 0 and rank 1, for both laws

    found = computed(lata_of(models, coefficient=-0.5, weights=law), tmp_path / "out")
    check(found, lata_reference(models, weights))


def test_lata_thresholds(models: dict[str, am.Checkpoint], tmp_path: Path) -> None:
    def found(name: str, **options: Any) -> dict[str, Tensor]:
        return computed(lata_of(models, weights="threshold", coefficient=-0.5, **options), tmp_path / name)

    check(found("none", threshold=-1.5), numbers(models, "aligned"))
    check(found("layers", threshold=1.5), lata_reference(models, lambda cosines: [1.0, 1.0]))
    whole = reference.subtract(numbers(models, "finetuned"), numbers(models, "base"))
    arithmetic = reference.add(numbers(models, "aligned"), reference.scale(-0.5, whole))
    check(found("all", threshold=1.5, outside=1.0), arithmetic)


def test_lata_drops_a_task_that_is_the_instruction_vector_itself(
    models: dict[str, am.Checkpoint], tmp_path: Path
) -> None:
    units: tuple[Unit, ...] = ("layer", "tensor")
    for unit in units:
        result = lata(
            target=models["aligned"],
            task=models["finetuned"],
            base=models["base"],
            instruct=models["finetuned"],
            weights="threshold",
            threshold=1.0,
            unit=unit,
        )
        (found,) = am.coefficients(result)
        assert {one.cosine for one in found.values()} == {1.0}
        check(computed(result, tmp_path / unit), numbers(models, "aligned"))


def test_lata_by_hand(tmp_path: Path) -> None:
    # Task (1, 0) and (1, 1), instruction (1, 0) in both layers: cosines 1 and 0.71, weights 0 and 1.
    zero = {QUERY.format(0): [[0.0, 0.0]], QUERY.format(1): [[0.0, 0.0]]}
    task = {QUERY.format(0): [[1.0, 0.0]], QUERY.format(1): [[1.0, 1.0]]}
    instruct = {QUERY.format(0): [[1.0, 0.0]], QUERY.format(1): [[1.0, 0.0]]}
    given = {"base": zero, "task": task, "instruct": instruct, "target": zero}
    opened: dict[str, Any] = {role: am.open(write(tmp_path / role, tensors)) for role, tensors in given.items()}
    found = computed(lata(**opened), tmp_path / "out")
    assert [found[QUERY.format(layer)].tolist() for layer in (0, 1)] == [[[0.0, 0.0]], [[1.0, 1.0]]]


# What is refused


def test_what_no_method_can_do(models: dict[str, am.Checkpoint], tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="rank is for the orthogonal projector"):
        safe_lora(**roles(models, *SAFE_LORA), rank=2)
    with pytest.raises(ParameterError, match="select is one of number, threshold, not 'all'"):
        safe_lora(**roles(models, *SAFE_LORA), select="all")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="unit is layer or tensor"):
        lata_of(models, unit="model")
    other = am.open(write(tmp_path / "other", {name: torch.zeros(3, 5) for name in NAMES}))
    with pytest.raises(MismatchError, match=r"shape \[3, 5\]"):
        am.explain(safe_lora(**roles(models, "finetuned", "aligned"), base=other))
    with pytest.raises(MismatchError, match="nothing to fit a coefficient to"):
        computed(safe_lora(**roles(models, "finetuned", "aligned"), base=models["aligned"]), tmp_path / "out")


def test_recipes_and_explain_know_them(
    models: dict[str, am.Checkpoint], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = models["aligned"].root.folder.path.parent
    named = ", ".join(f"{role}: {folder / role}" for role in SAFE_LORA)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"method: safe_lora\nmodels: {{{named}}}\nparameters: {{number: 2}}\n")
    assert main(["explain", str(recipe)]) == 0
    told = capsys.readouterr().out
    assert "inner products of two deltas" in told and "project(" in told
    assert main(["apply", str(recipe), "--out", str(tmp_path / "out"), "--allow-unrelated"]) == 0
    expected = computed(safe_lora(**roles(models, *SAFE_LORA), number=2), tmp_path / "direct")
    found = read(tmp_path / "out")
    assert all(torch.equal(found[name], values) for name, values in expected.items())
