"""A stored delta stands in a recipe wherever an adapter may."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.methods.tiny import QUERY, UP, random_tensors, read, write

import alignmend as am
from alignmend.cli import main
from alignmend.errors import MismatchError, RecipeError
from alignmend.io.delta import Form
from alignmend.io.manifest import read_manifest
from alignmend.io.private import mark_private
from alignmend.recipes.apply import Switches, apply_recipe
from alignmend.recipes.lines import parse_yaml
from alignmend.recipes.schema import Recipe, check_recipe

STRANGERS = Switches(allow_unrelated=True)
"""The models here are random."""
PATCHES = ("safety", "over_safety")
SCORES = {f"{role}_scores": f"{role}.safetensors" for role in PATCHES}
LINEAR = [pattern.format(layer) for layer in range(2) for pattern in (QUERY, UP)]


def recipe(method: str, parameters: dict[str, Any], **models: Any) -> Recipe:
    text = json.dumps({"method": method, "models": models, "parameters": parameters})
    return check_recipe(parse_yaml(text, "r.yaml"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for number, role in enumerate(("target", *PATCHES)):
        write(tmp_path / role, random_tensors(number))
    target = am.open(tmp_path / "target")
    forms: tuple[Form, Form] = ("dense", "sparse")
    for role, form in zip(PATCHES, forms, strict=True):
        am.save_delta(am.open(tmp_path / role) - target, tmp_path / f"{role}-delta", target=target, form=form)
    for number, file in enumerate(SCORES.values()):
        scored = random_tensors(10 + number)
        save_file({name: scored[name].abs() for name in LINEAR}, tmp_path / file)
    return tmp_path


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("parameters", [{}, {"mode": "conflict", "rescale": True}], ids=str)
def test_patches_that_are_stored_deltas_give_the_bytes_of_whole_checkpoints(
    place: Path, parameters: dict[str, Any]
) -> None:
    patched = parameters | {"safety_rate": 0.3, "over_safety_rate": 0.3, "density": 0.7}
    whole = recipe("safe_patching", patched, target="target", **SCORES, **{role: role for role in PATCHES})
    stored = recipe("safe_patching", patched, target="target", **SCORES, **{role: f"{role}-delta" for role in PATCHES})
    apply_recipe(whole, place, place / "whole", STRANGERS)
    (saved,) = apply_recipe(stored, place, place / "stored", STRANGERS)
    assert weights(place / "stored") == weights(place / "whole") != weights(place / "target")
    assert set(saved.manifest.inputs) == {"target", *PATCHES, *SCORES}
    assert "delta(safety)" in saved.manifest.expression
    assert saved.manifest.patches == read_manifest(place / "whole").patches
    assert apply_recipe(stored, place, place / "stored", Switches(allow_unrelated=True, resume=True))[0].manifest


def test_a_base_is_named_by_the_recipe_or_by_the_delta(place: Path) -> None:
    target = am.open(place / "target")
    am.save_delta(am.open(place / "safety") - target, place / "step", target=target)
    realigned = {"finetuned": "over_safety", "aligned": "target"}
    named = recipe("resta", {"coefficient": 0.5}, **realigned, unaligned="step")
    whole = recipe("resta", {"coefficient": 0.5}, **realigned, unaligned="safety")
    apply_recipe(named, place, place / "named", STRANGERS)
    apply_recipe(whole, place, place / "whole", STRANGERS)
    expected = read(place / "whole")
    for name, value in read(place / "named").items():
        torch.testing.assert_close(value, expected[name])
    alone = recipe("resta", {"coefficient": 0.5}, finetuned="over_safety", aligned="step", unaligned="safety")
    (saved,) = apply_recipe(alone, place, place / "alone", STRANGERS)
    assert set(saved.manifest.inputs) == {"finetuned", "aligned", "unaligned", "base of aligned"}


@pytest.mark.parametrize(
    ("models", "error", "problem"),
    [
        ({"safety": "wider-delta"}, MismatchError, r"wider-delta is a delta on .*wider, and .*target is another"),
        (
            {"safety": {"path": "safety-delta", "prefix": "x."}},
            RecipeError,
            "safety is a stored delta, .* leave prefix",
        ),
        ({"target": "step"}, RecipeError, "is a stored delta on target, which is a stored delta itself"),
        ({"safety": {"path": "safety-delta", "base": "over_safety-delta"}}, RecipeError, "it is a stored delta itself"),
    ],
)
def test_what_cannot_stand_is_refused(
    place: Path, models: dict[str, Any], error: type[Exception], problem: str
) -> None:
    wider = am.open(write(place / "wider", random_tensors(9, size=16)))
    am.save_delta(wider - wider, place / "wider-delta", target=wider)
    am.save_delta(wider - wider, place / "step", target=wider)
    usual = {"target": "target", **SCORES, **{role: f"{role}-delta" for role in PATCHES}}
    with pytest.raises(error, match=problem):
        apply_recipe(recipe("safe_patching", {}, **(usual | models)), place, place / "out")


def test_another_model_of_the_same_shapes_is_noted(place: Path) -> None:
    made = recipe("resta", {"coefficient": 0.5}, finetuned="target", aligned="over_safety", unaligned="safety-delta")
    (saved,) = apply_recipe(made, place, place / "out", STRANGERS)
    assert "unaligned is a stored delta that says it was saved for target; it is applied to over_safety" in "\n".join(
        saved.manifest.notes
    )


def test_diff_saves_what_it_shows(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["diff", str(place / "target"), str(place / "safety"), "--save", str(place / "step"), "--form", "sparse"]
    mark_private(place / "safety", "a patch")
    assert main([*command, "--json"]) == 0
    saved = json.loads(capsys.readouterr().out)["saved"]
    assert saved == {"path": str(place / "step"), "bytes": (place / "step" / "delta.safetensors").stat().st_size}
    assert main(command) == 2
    assert "not empty" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--dtype", "bfloat16"]) == 0
    assert "private as what it was made of" in capsys.readouterr().out
    manifest = read_manifest(place / "step")
    assert manifest.private
    assert manifest.delta is not None
    assert manifest.delta.form == "sparse"
    target = am.open(place / "target")
    step = am.open_delta(place / "step", target=target)
    assert am.cosine(step, am.open(place / "safety") - target) == pytest.approx(1.0, abs=1e-4)
