"""`layers: edited` in a recipe: found between aligned and target, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.methods.tiny import UP, near, random_tensors, read, write

from alignmend.errors import AlignmendError
from alignmend.io.manifest import read_manifest
from alignmend.recipes.apply import apply_recipe, explain_recipe
from alignmend.recipes.lines import parse_yaml
from alignmend.recipes.schema import Recipe, check_recipe

LAYERS = 7


def recipe(folder: Path, method: str = "harm_direction_removal", more: str = "") -> Recipe:
    roles = "\n".join(f"  {role}: {folder / role}" for role in ("target", "aligned", "harmful"))
    text = f"method: {method}\nmodels:\n{roles}\nparameters: {{layers: edited, coefficient: 1.0{more}}}\n"
    return check_recipe(parse_yaml(text, "r.yaml"))


def models(folder: Path, *edited: int) -> None:
    """A target whose up projections of some layers got a rank-one change."""
    aligned = random_tensors(0, layers=LAYERS)
    target = dict(aligned)
    for layer in edited:
        weight = aligned[UP.format(layer)]
        target[UP.format(layer)] = weight + torch.outer(torch.ones(weight.shape[0]), torch.ones(weight.shape[1]))
    write(folder / "aligned", aligned)
    write(folder / "target", target)
    write(folder / "harmful", near(aligned, 2))


@pytest.mark.parametrize(("edited", "area"), [((3,), {2, 3, 4}), ((0,), {0, 1}), ((6,), {5, 6})])
def test_nothing_outside_the_area_changes(tmp_path: Path, edited: tuple[int, ...], area: set[int]) -> None:
    models(tmp_path, *edited)
    (saved,) = apply_recipe(recipe(tmp_path), tmp_path, tmp_path / "out")
    before, after = read(tmp_path / "target"), read(saved.path)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {int(name.split(".")[2]) for name in changed if ".layers." in name} == area
    assert all(".layers." in name for name in changed)
    manifest = read_manifest(saved.path)
    assert manifest.parameters["layers"] == sorted(area)
    assert any("both stages act on layers" in note for note in manifest.notes)


def test_explaining_tells_the_area(tmp_path: Path) -> None:
    models(tmp_path, 3)
    (plan,) = explain_recipe(recipe(tmp_path), tmp_path)
    assert any("the edit changed layer 3; both stages act on layers 2, 3, 4 alone" in note for note in plan.notes)


def test_a_target_that_is_no_edit_is_refused(tmp_path: Path) -> None:
    models(tmp_path)
    with pytest.raises(AlignmendError, match="there is no change, which is no edit of a few layers"):
        apply_recipe(recipe(tmp_path), tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_fine_tune_is_no_edit(tmp_path: Path) -> None:
    aligned = random_tensors(0, layers=LAYERS, size=48)
    for role, tensors in {"aligned": aligned, "target": near(aligned, 1), "harmful": near(aligned, 2)}.items():
        write(tmp_path / role, tensors)
    with pytest.raises(AlignmendError, match="dense"):
        apply_recipe(recipe(tmp_path), tmp_path, tmp_path / "out")


def test_layers_are_numbers_or_that_word(tmp_path: Path) -> None:
    with pytest.raises(AlignmendError, match=r"r\.yaml, line 6: parameters\.layers"):
        check_recipe(
            parse_yaml(
                "method: harm_direction_removal\nmodels:\n  target: a\n  aligned: b\n  harmful: c\n"
                "parameters: {layers: edit}\n",
                "r.yaml",
            )
        )
