"""SafePatching from pairs alone, once and in a sequence: each round from what the one before has written."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from tests.fixtures_organisms import shipped
from tests.methods.tiny import contents

from alignmend.errors import AlignmendError
from alignmend.io.manifest import read_manifest
from alignmend.organisms import Family
from alignmend.recipes.apply import Switches, apply_recipe
from alignmend.recipes.schema import Recipe, load_recipe
from alignmend.restore.continual import ROUNDS_NAME, rounds_of, run_sequence
from alignmend.restore.parts import PARTS, lacking
from alignmend.restore.recipe_run import run_recipe

__all__ = ["shipped"]
PARTS_OF_PATCHING = ("safety", "over_safety", "safety_scores", "over_safety_scores")
TEXT = """method: safe_patching
models: {{target: {family}/aligned}}
parameters: {{safety_rate: 0.1, over_safety_rate: 0.1, density: 0.5, seed: 4}}
data: {{sequence: [one.jsonl, two.jsonl]}}
training: {{learning_rate: 1e-3, max_steps: 2, batch_size: 4, samples: 4, stop_loss: 9}}
output: {{dtype: float32}}
"""


@pytest.fixture
def bench(shipped: Family, tmp_path: Path) -> Path:
    """A folder with a recipe for two rounds, and their pairs."""
    lines = (shipped.directory / "data" / "harmful_pairs.jsonl").read_text().splitlines(keepends=True)
    for number, name in enumerate(("one", "two")):
        (tmp_path / f"{name}.jsonl").write_text("".join(itertools.islice(lines, 6 * number, 6 * number + 6)))
    (tmp_path / "r.yaml").write_text(TEXT.format(family=shipped.directory))
    return tmp_path


def recipe(bench: Path, *settings: str) -> Recipe:
    return load_recipe(bench / "r.yaml", settings, lacking=PARTS)[0]


def test_rounds_follow_one_another_and_are_rebuilt_from_their_parts_to_the_same_bytes(bench: Path) -> None:
    out = bench / "out"
    run_sequence(recipe(bench), bench, out, Switches(), keep_private=True)
    assert sorted(path.name for path in out.iterdir()) == [
        "round-1", "round-1-private", "round-2", "round-2-private", ROUNDS_NAME,
    ]  # fmt: skip
    records = json.loads((out / ROUNDS_NAME).read_text())
    assert [one["target"]["location"].split("/")[-1] for one in records] == ["aligned", "round-1"]
    assert [one["harmful_pairs"]["location"].split("/")[-1] for one in records] == ["one.jsonl", "two.jsonl"]
    assert [one["parameters"]["seed"] for one in records] == [4, 5]
    for one in rounds_of(recipe(bench), bench, out):
        parts = {f"models.{role}={one.out}-private/{role}" for role in PARTS_OF_PATCHING}
        named = recipe(bench, *sorted(parts), f"models.target={one.recipe.models['target'].path}")  # type: ignore[union-attr]
        again = named.model_copy(update={"parameters": one.recipe.parameters, "data": one.recipe.data})
        apply_recipe(again, bench, bench / f"again-{one.number}")
        rebuilt, live = contents(bench / f"again-{one.number}"), contents(one.out)
        assert rebuilt["model.safetensors"] == live["model.safetensors"]
    before = contents(out)
    run_sequence(recipe(bench), bench, out, Switches(resume=True), keep_private=True)
    assert contents(out) == before


def test_one_recipe_from_pairs_to_a_patched_checkpoint(bench: Path) -> None:
    once = recipe(bench, "data.sequence=[]", "data.harmful_pairs=one.jsonl")
    assert lacking(once) == PARTS_OF_PATCHING
    run_recipe(once, bench, bench / "out", Switches())
    manifest = read_manifest(bench / "out")
    assert manifest.inputs.keys() == {"target", *PARTS_OF_PATCHING}
    assert not (bench / "out-private").exists()


@pytest.mark.parametrize("setting", ["sets=none", "importance=random"])
def test_scores_are_made_only_where_they_are_needed(bench: Path, setting: str) -> None:
    assert lacking(recipe(bench, setting)) == PARTS_OF_PATCHING[:2]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["data.harmful_pairs=one.jsonl"], "both sequence and harmful_pairs"),
        (["data.sequence=[one.jsonl, three.jsonl]"], r"data\.sequence: there is no file three\.jsonl"),
        (["models.safety=a", "models.over_safety=b"], "no patches under models"),
    ],
)
def test_sequences_that_cannot_be(bench: Path, settings: list[str], told: str) -> None:
    with pytest.raises(AlignmendError, match=told):
        run_sequence(recipe(bench, *settings), bench, bench / "out", Switches())
    assert not (bench / "out").exists()
