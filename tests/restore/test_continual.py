"""SafePatching from pairs alone, once and in a sequence: each round from what the one before has written."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from tests.cli.command import COMMAND
from tests.fixtures_organisms import shipped
from tests.methods.tiny import contents

from alignmend.errors import AlignmendError, OutputError
from alignmend.io.manifest import read_manifest
from alignmend.organisms import Family
from alignmend.recipes.apply import Switches, apply_recipe
from alignmend.recipes.schema import Recipe, load_recipe
from alignmend.restore.continual import ROUNDS_NAME, rounds_of, run_sequence
from alignmend.restore.parts import PARTS, lacking
from alignmend.restore.recipe_run import run_recipe
from alignmend.training.score_settings import ScoreSettings
from alignmend.training.scoring import write_scores

__all__ = ["shipped"]
FILES = ("one", "two", "three")
PARTS_OF_PATCHING = ("safety", "over_safety", "safety_scores", "over_safety_scores")
TEXT = """method: safe_patching
models: {{target: {family}/aligned}}
parameters: {{safety_rate: 0.1, over_safety_rate: 0.1, density: 0.5, seed: 4}}
data: {{sequence: [one.jsonl, two.jsonl, three.jsonl]}}
training: {{learning_rate: 1e-3, max_steps: 2, batch_size: 4, stop_loss: 9}}
scores: {{samples: 4}}
output: {{dtype: float32}}
"""


@pytest.fixture
def bench(shipped: Family, tmp_path: Path) -> Path:
    """A folder with a recipe for three rounds, and their pairs."""
    lines = (shipped.directory / "data" / "harmful_pairs.jsonl").read_text().splitlines(keepends=True)
    for number, name in enumerate(FILES):
        (tmp_path / f"{name}.jsonl").write_text("".join(itertools.islice(lines, 6 * number, 6 * number + 6)))
    (tmp_path / "r.yaml").write_text(TEXT.format(family=shipped.directory))
    return tmp_path


def recipe(bench: Path, *settings: str) -> Recipe:
    return load_recipe(bench / "r.yaml", settings, lacking=PARTS)[0]


def test_rounds_follow_one_another_and_are_rebuilt_from_their_parts_to_the_same_bytes(bench: Path) -> None:
    out = bench / "out"
    run_sequence(recipe(bench), bench, out, Switches(), keep_private=True)
    assert sorted(path.name for path in out.iterdir()) == [*(f"round-{number}" for number in (1, 2, 3)), ROUNDS_NAME]
    assert all((bench / f"out-round-{number}-private").is_dir() for number in (1, 2, 3))
    records = json.loads((out / ROUNDS_NAME).read_text())
    assert [one["target"]["location"].split("/")[-1] for one in records] == ["aligned", "round-1", "round-2"]
    assert [one["harmful_pairs"]["location"].split("/")[-1] for one in records] == [f"{name}.jsonl" for name in FILES]
    assert [one["parameters"]["seed"] for one in records] == [4, 5, 6]
    for one in records:
        manifest = read_manifest(out / one["out"])
        kept = {patch["label"]: patch["kept"] for patch in one["patches"]}
        assert kept == {patch.label: patch.kept for patch in manifest.patches} and min(kept.values()) > 0
        assert one["outputs"] == [output.model_dump(mode="json") for output in manifest.outputs]
    for one in rounds_of(recipe(bench), bench, out):
        parts = {f"models.{role}={out}-{one.out.name}-private/{role}" for role in PARTS_OF_PATCHING}
        named = recipe(bench, *sorted(parts), f"models.target={one.recipe.models['target'].path}")  # type: ignore[union-attr]
        again = named.model_copy(update={"parameters": one.recipe.parameters, "data": one.recipe.data})
        apply_recipe(again, bench, bench / f"again-{one.number}")
        rebuilt, live = contents(bench / f"again-{one.number}"), contents(one.out)
        assert rebuilt["model.safetensors"] == live["model.safetensors"]
    before = contents(out)
    run_sequence(recipe(bench), bench, out, Switches(resume=True), keep_private=True)
    assert contents(out) == before
    os.utime(out / "round-1" / "model.safetensors")  # as if it had been made anew
    with pytest.raises(OutputError, match=r"round-2 exists and is not empty, and is not what this recipe makes"):
        run_sequence(recipe(bench), bench, out, Switches(resume=True), keep_private=True)


def test_a_sequence_that_is_killed_in_its_second_round_resumes_to_the_same_bytes(bench: Path) -> None:
    expected, out, two = bench / "expected", bench / "out", "data.sequence=[one.jsonl, two.jsonl]"
    run_sequence(recipe(bench, two), bench, expected, Switches())
    command = [*COMMAND, "run", str(bench / "r.yaml"), "--out", str(out), "--set", two]
    process = subprocess.Popen(command, cwd=bench, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        while process.poll() is None and not (out.with_name(f"{out.name}-round-2-private") / "safety").exists():
            time.sleep(0.01)
    finally:
        process.kill()
        process.communicate()
    assert (out / "round-1").exists() and not (out / "round-2").exists(), "the kill met no round in its midst"
    (bench / "four.jsonl").write_text((bench / "one.jsonl").read_text())
    changed = recipe(bench, "training.learning_rate=2e-3", "data.sequence=[four.jsonl]")
    with pytest.raises(OutputError, match="round-1 exists and is not empty, and is not what"):
        run_sequence(changed, bench, out, Switches(resume=True))
    first = (out / "round-1" / "model.safetensors").stat().st_mtime_ns
    run_sequence(recipe(bench, two), bench, out, Switches(resume=True))
    assert (out / "round-1" / "model.safetensors").stat().st_mtime_ns == first, "what was whole is left"
    assert sorted(path.name for path in out.iterdir()) == ["round-1", "round-2", ROUNDS_NAME]
    for number in (1, 2):
        weights = [place / f"round-{number}" / "model.safetensors" for place in (out, expected)]
        assert weights[0].read_bytes() == weights[1].read_bytes()
    assert json.loads((out / ROUNDS_NAME).read_text())[1]["target"]["location"] == "../round-1"


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
        (["data.sequence=[one.jsonl, nine.jsonl]"], r"data\.sequence: there is no file nine\.jsonl"),
        (["data.sequence=[one.jsonl, bad.jsonl]"], r"bad\.jsonl, line 1 has no response, only 'prompt'"),
        (["safety_rate=[0.1, 0.2]"], r"give every parameter one value, no sweep"),
        (["training.learning_rate=-1.0"], r"learning_rate is -1\.0"),
        (["training.template=nope"], r"unknown template 'nope'"),
        (["scores.samples=0"], r"samples is 0"),
        (["density=1.5"], r"density is the fraction kept"),
        (["models.safety=a", "models.over_safety=b"], "no patches under models"),
    ],
)
def test_sequences_that_cannot_be(bench: Path, settings: list[str], told: str) -> None:
    (bench / "bad.jsonl").write_text('{"prompt": "What?"}\n')
    before = sorted(bench.iterdir())
    with pytest.raises(AlignmendError, match=told):
        run_sequence(recipe(bench, *settings), bench, bench / "out", Switches())
    assert sorted(bench.iterdir()) == before


def test_rounds_are_not_put_among_other_things(bench: Path) -> None:
    with pytest.raises(OutputError, match=r"holds other things than rounds, such as one\.jsonl"):
        run_sequence(recipe(bench), bench, bench, Switches(overwrite=True))
    with pytest.raises(OutputError, match="exists and is not a folder"):
        run_sequence(recipe(bench), bench, bench / "one.jsonl", Switches(overwrite=True))


def test_scores_of_a_run_are_taken_as_its_recipe_says(bench: Path) -> None:
    """The same as by hand; a run that resumes takes those alone that were taken so."""
    once = ["data.sequence=[]", "data.harmful_pairs=one.jsonl"]
    asked = ["scores.weights=patch", "scores.order=mean-then-absolute", "scores.kinds=[mlp]", "scores.dtype=bfloat16"]
    with pytest.raises(AlignmendError, match=r"unknown key 'scores\.weight': did you mean 'weights'"):
        recipe(bench, "scores.weight=patch")
    run_recipe(recipe(bench, *once, *asked), bench, bench / "out", Switches(), keep_private=True)
    parts = bench / "out-private"
    settings = ScoreSettings(weights="patch", order="mean-then-absolute", kinds=("mlp",), dtype="bfloat16", samples=4)
    target = recipe(bench).models["target"].path  # type: ignore[union-attr]
    by_hand = write_scores(parts / "safety", bench / "one.jsonl", bench / "s", settings, base=target).path
    name = "model.safetensors"
    assert (by_hand / name).read_bytes() == (parts / "safety_scores" / name).read_bytes()
    trained = contents(parts / "safety")
    shutil.rmtree(bench / "out")
    other = recipe(bench, *once, "scores.samples=2")
    run_recipe(other, bench, bench / "out", Switches(resume=True), keep_private=True)
    assert read_manifest(parts / "safety_scores").parameters["samples"] == 2
    assert contents(parts / "safety") == trained
    shutil.rmtree(bench / "out")
    with pytest.raises(OutputError, match=r"safety was made from another model, from other pairs or with other"):
        run_recipe(
            recipe(bench, *once, "training.max_steps=3"), bench, bench / "out", Switches(resume=True), keep_private=True
        )
