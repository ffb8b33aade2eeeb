"""A recipe run whole: missing parts are trained and gone afterwards, the second stage is fitted, a kill is survived."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.fixtures_organisms import shipped
from tests.methods.tiny import contents

import alignmend as am
from alignmend.activations.attached import attached
from alignmend.activations.pairs import read_pairs
from alignmend.activations.safe_align import SafeAlign
from alignmend.errors import AlignmendError
from alignmend.io.manifest import STEERING_NAME, read_manifest
from alignmend.io.private import find_private
from alignmend.io.published import Publisher
from alignmend.organisms import Family
from alignmend.recipes.apply import Switches, apply_recipe
from alignmend.recipes.build import located
from alignmend.recipes.schema import Recipe, load_recipe
from alignmend.restore.parts import PARTS
from alignmend.restore.recipe_run import run_recipe

__all__ = ["shipped"]
TEXT = """method: safety_arithmetic
models: {{target: {family}/finetuned, aligned: {family}/aligned}}
parameters: {{coefficient: 1.0}}
data: {{harmful_pairs: harmful.jsonl, contrast_pairs: contrast.jsonl}}
training: {{learning_rate: 3e-4, max_steps: 2, batch_size: 4}}
"""


@pytest.fixture
def bench(shipped: Family, tmp_path: Path) -> Path:
    """A folder with a recipe that lacks its harm model, and its data."""
    for name, count in (("harmful", 8), ("contrast", 6)):
        lines = (shipped.directory / "data" / f"{name}_pairs.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / f"{name}.jsonl").write_text("".join(itertools.islice(lines, count)))
    (tmp_path / "r.yaml").write_text(TEXT.format(family=shipped.directory))
    return tmp_path


def recipe(bench: Path, *settings: str) -> Recipe:
    return load_recipe(bench / "r.yaml", settings, lacking=PARTS)[0]


def test_what_is_trained_and_fitted_is_what_the_steps_by_hand_give(bench: Path) -> None:
    out, by_hand = bench / "out", bench / "by-hand"
    ran = run_recipe(recipe(bench), bench, out, Switches(), keep_private=True)
    assert ran.parts == bench / "out-private"
    assert [one.path for one in find_private([bench])] == [ran.parts]
    named = recipe(bench, f"models.harmful={ran.parts}/harmful", "steering=false")
    apply_recipe(named, bench, by_hand)
    assert (out / "model.safetensors").read_bytes() == (by_hand / "model.safetensors").read_bytes()
    model, tokenizer = am.load(by_hand)
    fitted = SafeAlign(am.Steering(0.1)).fit(model, tokenizer, read_pairs(bench / "contrast.jsonl"))
    found = attached(out)
    assert found is not None
    assert (found[0].content_hash, found[1]) == (fitted.content_hash, am.Steering(0.1))
    assert am.verify(out).contents_checked


def test_trained_parts_are_gone_and_the_manifest_tells_of_them(bench: Path) -> None:
    ran = run_recipe(recipe(bench), bench, bench / "out", Switches())
    assert ran.parts is None
    assert sorted(path.name for path in bench.iterdir()) == ["contrast.jsonl", "harmful.jsonl", "out", "r.yaml"]
    manifest = read_manifest(bench / "out")
    asked = located(recipe(bench), bench).model_dump(mode="json", exclude_defaults=True)
    assert manifest.recipe == Publisher(bench / "out").recipe(asked)
    assert manifest.inputs.keys() == {"target", "aligned", "harmful"}
    assert manifest.data.keys() == {"harmful_pairs", "contrast_pairs"}
    before = contents(bench / "out")
    run_recipe(recipe(bench), bench, bench / "out", Switches(resume=True))
    assert contents(bench / "out") == before
    with pytest.raises(AlignmendError, match="exists and is not empty"):
        run_recipe(recipe(bench), bench, bench / "out", Switches())
    (bench / "harmful.jsonl").write_text((bench / "harmful.jsonl").read_text().splitlines(keepends=True)[0])
    with pytest.raises(AlignmendError, match="exists and is not empty"):  # other pairs: not the run that is asked for
        run_recipe(recipe(bench), bench, bench / "out", Switches(resume=True))
    assert contents(bench / "out") == before


def test_other_contrast_pairs_are_another_run(bench: Path) -> None:
    run_recipe(recipe(bench), bench, bench / "out", Switches())
    (bench / "contrast.jsonl").write_text((bench / "contrast.jsonl").read_text().splitlines(keepends=True)[0])
    with pytest.raises(AlignmendError, match="exists and is not empty"):
        run_recipe(recipe(bench), bench, bench / "out", Switches(resume=True))


def test_another_template_of_the_targets_adapter_is_another_run(bench: Path, shipped: Family) -> None:
    adapter = bench / "adapter"
    shutil.copytree(shipped.members["finetuned-lora"], adapter)
    target = f"target: {shipped.directory}/finetuned,"
    (bench / "r.yaml").write_text((bench / "r.yaml").read_text().replace(target, f"target: {adapter},"))
    for note in ("{# one #}", "{# other #}"):
        with (adapter / "chat_template.jinja").open("a") as file:
            file.write(note)
        run_recipe(recipe(bench), bench, bench / note, Switches())
        ran = run_recipe(recipe(bench), bench, bench / note, Switches(resume=True))
        template = (bench / note / "chat_template.jinja").read_text()
        assert template.endswith(note) and ran.written[0].path == bench / note
    with pytest.raises(AlignmendError, match="exists and is not empty"):
        run_recipe(recipe(bench), bench, bench / "{# one #}", Switches(resume=True))


def test_parts_that_a_finished_run_has_left_are_removed_by_resume(bench: Path) -> None:
    run_recipe(recipe(bench), bench, bench / "out", Switches(), keep_private=True)
    ran = run_recipe(recipe(bench), bench, bench / "out", Switches(resume=True))
    assert ran.parts is None and not (bench / "out-private").exists()


def test_what_is_not_ours_is_neither_used_nor_removed(bench: Path) -> None:
    (bench / "out-private").mkdir()
    (bench / "out-private" / "harmful").write_text("mine")
    with pytest.raises(AlignmendError, match="out-private is where private parts are made, and holds something else"):
        run_recipe(recipe(bench), bench, bench / "out", Switches())
    assert (bench / "out-private" / "harmful").read_text() == "mine"
    (bench / "file").write_text("mine")
    with pytest.raises(AlignmendError, match="file exists and is not a folder"):
        run_recipe(recipe(bench), bench, bench / "file", Switches())
    with pytest.raises(AlignmendError, match="is no place for an output"):
        run_recipe(recipe(bench), bench, Path("/"), Switches())


def test_a_vector_that_was_fitted_before_is_taken(bench: Path, shipped: Family) -> None:
    model, tokenizer = am.load(shipped.members["aligned"])
    vector = am.SteeringVector.fit(model, tokenizer, read_pairs(bench / "contrast.jsonl"))
    vector.save(bench / "vector.safetensors")
    (bench / "r.yaml").write_text(
        TEXT.format(family=shipped.directory).replace(
            "contrast_pairs: contrast.jsonl", "steering_vector: vector.safetensors"
        )
    )
    named = recipe(bench, f"models.harmful={shipped.directory}/unaligned")
    (saved,) = apply_recipe(named, bench, bench / "out")
    found = attached(saved.path)
    assert found is not None
    assert found[0].content_hash == vector.content_hash
    with pytest.raises(AlignmendError, match="both steering_vector and contrast_pairs"):
        apply_recipe(
            recipe(bench, "data.contrast_pairs=contrast.jsonl", f"models.harmful={shipped.directory}/unaligned"),
            bench,
            bench / "other",
        )


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("data.harmful_pairs=nowhere.jsonl", r"data\.harmful_pairs: there is no file nowhere\.jsonl"),
        ("data.harmful_pairs=null", r"models\.harmful is missing: name it, or give data\.harmful_pairs"),
        ("data.contrast_pairs=nowhere.jsonl", r"nowhere\.jsonl: no such file"),
        ("data.contrast_pairs=harmful.jsonl", r"harmful\.jsonl, line 1: safe"),
        ("data.contrast_pairs=null", r"needs data\.contrast_pairs .* or a data\.steering_vector"),
    ],
)
def test_what_is_missing_is_told_and_nothing_is_left(bench: Path, setting: str, told: str) -> None:
    before = sorted(bench.iterdir())
    with pytest.raises(AlignmendError, match=told):
        run_recipe(recipe(bench, setting), bench, bench / "out", Switches())
    assert sorted(bench.iterdir()) == before


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", r"bad\.jsonl holds no pairs"),
        ('{"prompt": "What?"}', r"bad\.jsonl, line 1 has no response, only 'prompt'"),
        ('{"prompt": "' + "What? " * 300 + '", "response": "That."}', r"bad\.jsonl, line 1: the prompt has"),
    ],
)
def test_pairs_that_cannot_be_used_leave_nothing(bench: Path, line: str, told: str) -> None:
    (bench / "bad.jsonl").write_text(line)
    before = sorted(bench.iterdir())
    with pytest.raises(AlignmendError, match=told):
        run_recipe(recipe(bench, "data.harmful_pairs=bad.jsonl"), bench, bench / "new" / "out", Switches())
    assert sorted(bench.iterdir()) == before


def test_apply_says_that_run_makes_what_is_missing(bench: Path, shipped: Family) -> None:
    with pytest.raises(AlignmendError, match=r"models\.harmful is missing; alignmend run trains it"):
        load_recipe(bench / "r.yaml")
    with pytest.raises(AlignmendError, match=r"loads the model: use  alignmend run "):
        apply_recipe(recipe(bench, f"models.harmful={shipped.directory}/unaligned"), bench, bench / "out")
    assert not (bench / "out").exists()


def test_a_killed_run_resumes_to_the_same_bytes(bench: Path) -> None:
    run_recipe(recipe(bench), bench, bench / "expected", Switches())
    program = Path(sys.executable).with_name("alignmend")
    command = [str(program), "run", str(bench / "r.yaml"), "--out", str(bench / "out"), "--resume"]
    process = subprocess.Popen([one for one in command if one != "--resume"], cwd=bench)
    private, deadline = bench / "out-private", time.monotonic() + 60
    while not private.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert private.exists() and not (bench / "out").exists()
    done = subprocess.run([*command, "--json"], cwd=bench, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["out"] == str(bench / "out")
    for name in ("model.safetensors", STEERING_NAME):
        assert (bench / "out" / name).read_bytes() == (bench / "expected" / name).read_bytes()
    assert not private.exists()


def test_a_vector_that_does_next_to_nothing_is_warned_of(bench: Path, shipped: Family) -> None:
    named = [f"models.harmful={shipped.directory}/unaligned", "steering_coefficient=0.0001"]
    (saved,) = apply_recipe(recipe(bench, *named), bench, bench / "out", Switches(may_fit=True))
    assert any("inert" in note or "next to nothing" in note for note in saved.manifest.notes), saved.manifest.notes
    (strong,) = apply_recipe(
        recipe(bench, named[0], "steering_coefficient=0.2"), bench, bench / "strong", Switches(may_fit=True)
    )
    assert not any("inert" in note or "next to nothing" in note for note in strong.manifest.notes)
