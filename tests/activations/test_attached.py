"""A steering vector that belongs to a checkpoint: written with it, found again, and told of."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from tests.fixtures_organisms import shipped

import alignmend as am
from alignmend.activations.attached import attached, describe, write_attached
from alignmend.activations.vector import SteeringVector
from alignmend.errors import AlignmendError
from alignmend.io.manifest import STEERING_NAME, read_manifest
from alignmend.organisms import Family

__all__ = ["shipped"]
WIDTH = 128


@pytest.fixture
def folder(shipped: Family, tmp_path: Path) -> Path:
    """A checkpoint that alignmend wrote."""
    aligned, base = (am.open(shipped.members[name]) for name in ("aligned", "base"))
    am.save(aligned + 0.1 * (aligned - base), tmp_path / "out")
    return tmp_path / "out"


def vector(layers: int = 4, width: int = WIDTH, seed: int = 0) -> SteeringVector:
    generator = torch.Generator().manual_seed(seed)
    return SteeringVector({layer: torch.randn(width, generator=generator) for layer in range(layers)})


steerings = st.builds(
    am.Steering,
    coefficient=st.floats(-2, 2),
    preserve_norm=st.booleans(),
    gate=st.booleans(),
    strength=st.sampled_from(["relative", "raw"]),
    tokens=st.sampled_from(["all", "generated"]),
)


@given(how=steerings)
def test_how_it_is_applied_is_read_back(tmp_path_factory: pytest.TempPathFactory, how: am.Steering) -> None:
    place = tmp_path_factory.mktemp("vector")
    write_attached(vector(), how, place)
    found = attached(place)
    assert found is not None
    assert found[1] == how
    assert found[0].content_hash == vector().content_hash


def test_an_attached_vector_is_part_of_the_output(folder: Path) -> None:
    assert attached(folder) is None
    am.attach(vector(), folder, am.Steering(0.1))
    assert am.verify(folder).contents_checked
    assert STEERING_NAME in {one.file for one in read_manifest(folder).outputs}
    card = (folder / "README.md").read_text()
    assert "plain `transformers` and other servers do not" in card
    assert describe(vector(), am.Steering(0.1)) in card


def test_a_vector_is_replaced_only_on_request(folder: Path) -> None:
    am.attach(vector(), folder, am.Steering(0.1))
    with pytest.raises(AlignmendError, match="has a steering vector already: pass overwrite"):
        am.attach(vector(seed=1), folder, am.Steering(0.1))
    am.attach(vector(seed=1), folder, am.Steering(0.2), overwrite=True)
    found = attached(folder)
    assert found is not None
    assert (found[0].content_hash, found[1].coefficient) == (vector(seed=1).content_hash, 0.2)
    assert am.verify(folder).contents_checked
    told = [note for note in read_manifest(folder).notes if note.startswith("steering vector")]
    assert told == [f"steering vector: {describe(vector(seed=1), am.Steering(0.2))}"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (vector(width=64), r"the vector has width 64, the checkpoint in .* has 128"),
        (vector(layers=5), r"the vector steers layer 4, .* has layers 0 to 3"),
    ],
)
def test_a_vector_of_another_model_is_refused(folder: Path, wrong: SteeringVector, told: str) -> None:
    with pytest.raises(AlignmendError, match=told):
        am.attach(wrong, folder, am.Steering(0.1))
    assert not (folder / STEERING_NAME).exists()


def test_only_folders_of_ours_get_a_vector(shipped: Family) -> None:
    with pytest.raises(AlignmendError, match=r"alignmend\.json"):
        am.attach(vector(), shipped.members["base"], am.Steering(0.1))


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({}, "does not say how it is applied"),
        ({"steering": "{"}, "how it is applied cannot be read"),
        ({"steering": '{"coefficient": 0.1, "strength": "huge"}'}, "how it is applied cannot be read"),
    ],
)
def test_files_that_do_not_say_how(tmp_path: Path, metadata: dict[str, str], told: str) -> None:
    known = {"format": "alignmend-steering-1", "site": "block_output", "about": "{}"}
    save_file({"layer.0": torch.ones(4)}, tmp_path / STEERING_NAME, known | metadata)
    with pytest.raises(AlignmendError, match=told):
        attached(tmp_path)


def test_a_loaded_model_is_steered_as_in_a_context(folder: Path) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])

    def logits(model: Any) -> torch.Tensor:
        with torch.no_grad():
            return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits  # type: ignore[no-any-return]

    am.attach(vector(), folder, am.Steering(0.3))
    steered, _ = am.load(folder)
    plain, _ = am.load(folder, steering=False)
    assert not torch.equal(logits(steered), logits(plain))
    with vector().apply(plain, 0.3):
        assert torch.equal(logits(steered), logits(plain))


def test_arithmetic_does_not_carry_the_vector_of_other_weights(folder: Path, tmp_path: Path) -> None:
    am.attach(vector(), folder, am.Steering(0.3))
    opened = am.open(folder)
    saved = am.save(opened + 0.5 * (opened - opened), tmp_path / "next")
    assert not (saved.path / STEERING_NAME).exists()
    shutil.rmtree(saved.path)


def test_the_same_vector_gives_the_same_bytes(tmp_path: Path) -> None:
    program = (
        "import sys, torch, pathlib; import alignmend as am\n"
        "from alignmend.activations.attached import write_attached\n"
        "vector = am.SteeringVector({0: torch.ones(4), 1: torch.ones(4)}, about={'b': 1, 'a': 2})\n"
        "write_attached(vector, am.Steering(0.1), pathlib.Path(sys.argv[1]))"
    )
    for name in "abc":
        (tmp_path / name).mkdir()
        subprocess.run([sys.executable, "-c", program, str(tmp_path / name)], check=True)
    assert len({(tmp_path / name / STEERING_NAME).read_bytes() for name in "abc"}) == 1
