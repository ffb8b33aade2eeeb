"""Recipes of SafePatching: scores and adapters as roles, and what of them is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.methods.tiny import QUERY, UP, near, random_tensors, read, write
from torch import Tensor

from alignmend.errors import MismatchError, RecipeError
from alignmend.io.manifest import MANIFEST_NAME, Input, Manifest, Versions, read_manifest, write_manifest
from alignmend.methods.registry import get_method, type_name
from alignmend.recipes.apply import Switches, apply_recipe, explain_recipe
from alignmend.recipes.build import open_models
from alignmend.recipes.lines import parse_yaml
from alignmend.recipes.schema import Recipe, check_recipe

ROLES = ("target", "safety", "over_safety")
SCORES = ("safety_scores", "over_safety_scores")
LINEAR = [pattern.format(layer) for layer in range(2) for pattern in (QUERY, UP)]


def recipe(parameters: dict[str, Any] | None = None, /, *, method: str = "safe_patching", **models: Any) -> Recipe:
    text = json.dumps({"method": method, "models": models, "parameters": parameters or {}})
    return check_recipe(parse_yaml(text, "r.yaml"))


def grid(seed: int) -> dict[str, Tensor]:
    """Multiples of 1/16: sums of a few are exact in float32."""
    return {name: torch.round(16 * tensor) / 16 for name, tensor in random_tensors(seed).items()}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for number, role in enumerate(ROLES):
        write(tmp_path / role, grid(number))
    for number, role in enumerate(SCORES):
        scores = {name: value.abs() for name, value in random_tensors(10 + number).items() if name in LINEAR}
        save_file(scores, tmp_path / f"{role}.safetensors")
    return tmp_path


STRANGERS = Switches(allow_unrelated=True)
"""The patched models here are random."""
MODELS: dict[str, Any] = {role: role for role in ROLES}
WITH_SCORES = MODELS | {role: f"{role}.safetensors" for role in SCORES}


def test_scores_are_roles_that_a_recipe_opens(place: Path) -> None:
    made = recipe({"safety_rate": 0.25, "over_safety_rate": 0.25, "density": 1.0}, **WITH_SCORES)
    (plan,) = explain_recipe(made, place)
    assert "where(((top(select(scores(safety_scores), linear=True), density=0.25" in plan.expression
    assert len(plan.passes) == 3, "two rankings, and the writing"
    with pytest.raises(MismatchError, match=r"safety .* does not look like a descendant of target"):
        apply_recipe(made, place, place / "out")
    (saved,) = apply_recipe(made, place, place / "out", STRANGERS)
    manifest = read_manifest(saved.path)
    assert set(manifest.inputs) == set(WITH_SCORES)
    assert manifest.recipe is not None
    assert manifest.recipe["models"]["safety_scores"] == {"path": "../safety_scores.safetensors"}  # type: ignore[index,call-overload]
    assert [patch.label for patch in manifest.patches] == ["safety", "over_safety"]
    assert {tensor.name for tensor in manifest.patches[0].tensors} == set(LINEAR)
    assert all(patch.cosines in ({}, {"safety": 0.0}) for patch in manifest.patches), "disjoint"
    moved = {name for name, value in read(saved.path).items() if not torch.equal(value, grid(0)[name])}
    assert moved == set(LINEAR)


def test_switches_that_need_no_scores_need_none(place: Path) -> None:
    for parameters in ({"sets": "none"}, {"importance": "random"}):
        (plan,) = explain_recipe(recipe(parameters, **MODELS), place)
        assert plan.changed == len(LINEAR)
    with pytest.raises(Exception, match="safety_scores is missing: make it with  alignmend scores"):
        explain_recipe(recipe(**MODELS), place)


def test_scores_are_no_models(place: Path) -> None:
    assert set(open_models(recipe(**WITH_SCORES), place)) == set(ROLES)
    arguments = get_method("safe_patching").arguments
    scored = {name for name, one in arguments.items() if one.is_scores}
    assert scored == set(SCORES)
    assert all(one.is_operand == (name in WITH_SCORES) for name, one in arguments.items())
    assert type_name(arguments["safety_scores"].annotation) == "scores"


@pytest.mark.parametrize(
    ("scores", "problem"),
    [
        ({"path": "safety_scores.safetensors", "prefix": "x."}, "safety_scores is a file of scores: give its path"),
        ([{"path": "safety_scores.safetensors"}], "give one model"),
    ],
)
def test_what_scores_cannot_be_is_refused(place: Path, scores: object, problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        explain_recipe(recipe(**(WITH_SCORES | {"safety_scores": scores})), place)


def test_scores_of_another_model_are_refused(place: Path) -> None:
    save_file({UP.format(7): torch.ones(2, 2)}, place / "other.safetensors")
    with pytest.raises(MismatchError, match=r"layers\.7\.mlp\.up_proj\.weight is in .*other.* but not in .*target"):
        explain_recipe(recipe(**(WITH_SCORES | {"safety_scores": "other.safetensors"})), place)


def adapter(folder: Path, seed: int) -> dict[str, Tensor]:
    """A rank-2 adapter on the query projections whose product is exact; returns that."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    deltas: dict[str, Tensor] = {}
    for layer in range(2):
        a, b = (torch.randint(-4, 5, shape, generator=generator) / 4 for shape in ((2, 8), (8, 2)))
        prefix = f"base_model.model.{QUERY.format(layer).removesuffix('.weight')}"
        tensors |= {f"{prefix}.lora_A.weight": a, f"{prefix}.lora_B.weight": b}
        deltas[QUERY.format(layer)] = 2.0 * (b @ a)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return deltas


@pytest.mark.parametrize("scope", ["tensor", "row"])
def test_adapters_on_the_target_equal_full_checkpoints(place: Path, scope: str) -> None:
    target = grid(0)
    for number, role in enumerate(("safety", "over_safety")):
        deltas = adapter(place / f"{role}-adapter", number)
        write(place / f"{role}-full", target | {name: target[name] + delta for name, delta in deltas.items()})
    options: dict[str, Any] = {"safety_rate": 0.4, "over_safety_rate": 0.3, "density": 0.5, "scope": scope}
    found = {}
    for kind in ("adapter", "full"):
        models = WITH_SCORES | {role: f"{role}-{kind}" for role in ("safety", "over_safety")}
        (saved,) = apply_recipe(recipe(options, **models), place, place / kind)
        found[kind] = read(saved.path)
    assert all(torch.equal(found["adapter"][name], found["full"][name]) for name in target)
    assert any((found["full"][name] != target[name]).any() for name in target)


def test_rates_and_lengths_sweep(place: Path) -> None:
    made = recipe({"safety_rate": [0.1, 0.5], "over_safety_coefficient": [0.5, 1.0]}, **WITH_SCORES)
    saved = apply_recipe(made, place, place / "out", STRANGERS)
    assert len(saved) == 4
    assert len({(one.path / "model.safetensors").read_bytes() for one in saved}) == 4


def test_ties_takes_models_and_adapters(place: Path) -> None:
    adapter(place / "adapter", 3)
    write(place / "tuned", near(grid(0), 1))
    made = recipe({"density": 0.5, "linear": True}, method="ties", base="target", finetuned=["tuned", "adapter"])
    (plan,) = explain_recipe(made, place)
    assert plan.expression.startswith("base + elect([trim(select((finetuned[0] - base), linear=True), density=0.5")
    (saved,) = apply_recipe(made, place, place / "out")
    assert saved.path.is_dir()


def test_scores_that_were_exchanged_are_refused(place: Path) -> None:
    """A folder of scores tells of which model it is; scores that tell nothing are taken as they are."""
    for role, other in zip(SCORES, ("over_safety", "safety"), strict=True):
        (place / role).mkdir()
        (place / f"{role}.safetensors").rename(place / role / "model.safetensors")
        scored = {"model": Input(location=str(place / other), files=[])}
        manifest = Manifest(versions=Versions(alignmend="0"), expression="snip scores", inputs=scored)
        write_manifest(place / role / MANIFEST_NAME, manifest)
    exchanged = MODELS | {role: role for role in SCORES}
    with pytest.raises(RecipeError, match=r"safety_scores are scores of over_safety .* were the two exchanged"):
        explain_recipe(recipe(**exchanged), place)
    single = {"alignmend": manifest.model_dump_json()}  # of the last: over_safety_scores, taken of safety
    tensors = load_file(place / "over_safety_scores" / "model.safetensors")
    save_file(tensors, place / "single.safetensors", metadata=single)
    with pytest.raises(RecipeError, match="over_safety_scores are scores of safety"):
        explain_recipe(
            recipe(**exchanged | {"safety_scores": "over_safety_scores", "over_safety_scores": "single.safetensors"}),
            place,
        )
    right = MODELS | dict(zip(SCORES, reversed(SCORES), strict=True))
    assert explain_recipe(recipe(**right), place)
