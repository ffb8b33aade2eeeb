"""An expression reads as it was written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.checkpoints import write
from tests.io.adapter_files import write as write_adapter

import alignmend as am
from alignmend.algebra.notation import Labels, notation


@pytest.fixture
def models(tmp_path: Path) -> dict[str, am.Checkpoint]:
    return {
        role: am.open(write(tmp_path / role, {"layers.0.w": torch.full((2,), float(index))}))
        for index, role in enumerate(("tuned", "aligned", "unaligned"))
    }


def test_every_operation_is_written_as_in_python(models: dict[str, am.Checkpoint], tmp_path: Path) -> None:
    f, a, u = models.values()
    v = a - u
    scores = am.open_scores(tmp_path / "aligned")
    (tmp_path / "patch").mkdir()
    patch = am.open_adapter(write_adapter(tmp_path / "patch"))
    m, n = am.top(scores, density=0.1), am.random_mask(density=0.5, seed=3)
    cases = {
        "tuned": f,
        "tuned + (aligned - unaligned)": f + v,
        "tuned + 0.5 * (aligned - unaligned)": f + 0.5 * v,
        "tuned - (aligned - unaligned)": f - v,
        "tuned - 2 * (aligned - unaligned)": f - 2 * v,
        "tuned + (tuned - aligned) - 0.25 * (aligned - unaligned)": f + ((f - a) - 0.25 * v),
        "tuned + 0.5 * ((tuned - aligned) - (aligned - unaligned))": f + 0.5 * ((f - a) - v),
        "tuned + drop((aligned - unaligned), density=0.7, seed=4)": f + am.drop(v, density=0.7, seed=4),
        "tuned + drop((aligned - unaligned), density=0.49, seed=4)": f + am.drop(v, density=0.49, seed=4),
        "tuned + trim((aligned - unaligned), density=0.1, scope='model')": f + am.trim(v, density=0.1),
        "tuned + select((aligned - unaligned), layers=[0])": f + am.select(v, layers=[0]),
        "tuned + select((aligned - unaligned), names=['a*', 'b*'], kinds=['mlp'])": f
        + am.select(v, names=["a*", "b*"], kinds="mlp"),
        "tuned + per_layer((aligned - unaligned), {0: 0.5}, default=1)": f + am.per_layer(v, {0: 0.5}),
        "tuned + common_rows((aligned - unaligned))": f + am.common_rows(v),
        "tuned + adapter(patch)": f + patch,
        "tuned + 0.5 * 0": f + 0.5 * (a - a),
        "tuned + where(random(density=0, seed=1), (aligned - unaligned))": f
        + am.drop(v, density=0, seed=1, rescale=False),
        "tuned + where((top(scores(aligned), density=0.1, scope='model') - random(density=0.5, seed=3)), "
        "(aligned - unaligned))": f + am.where(m - n, v),
        "tuned + where((top(scores(aligned), density=0.1, scope='model') & random(density=0.5, seed=3)), "
        "(aligned - unaligned))": f + am.where(m & n, v),
        "tuned + where((~random(density=0.5, seed=3) | "
        "top(magnitude((tuned - aligned)), density=0.2, scope='tensor')), (aligned - unaligned))": f
        + am.where(~n | am.top(am.magnitude(f - a), density=0.2, scope="tensor"), v),
    }
    for expected, checkpoint in cases.items():
        assert notation(checkpoint, {}) == expected


def test_roles_take_the_place_of_locations(models: dict[str, am.Checkpoint]) -> None:
    f, a, u = models.values()
    labels: Labels = {f.root: "finetuned", u.root: "harmful"}
    assert notation(f + 0.5 * (a - u), labels) == "finetuned + 0.5 * (aligned - harmful)"


def test_numbers_that_differ_are_written_differently(models: dict[str, am.Checkpoint]) -> None:
    f, a, u = models.values()
    written = {notation(f + x * (a - u), {}) for x in (0.3, 0.30000001, 1 / 3, 0.333333, 1e-9, 1e22)}
    assert len(written) == 6


def test_a_repr_is_the_expression(models: dict[str, am.Checkpoint], tmp_path: Path) -> None:
    tuned, aligned, unaligned = models.values()
    moved = tuned + 0.5 * (aligned - unaligned)
    assert repr(moved) == "Checkpoint(tuned + 0.5 * (aligned - unaligned))"
    assert repr(aligned - unaligned) == "Delta((aligned - unaligned))"
    assert repr(am.random_mask(density=0.5, seed=3)) == "Mask(random(density=0.5, seed=3))"
    assert repr(am.magnitude(aligned - unaligned)) == "Scores(magnitude((aligned - unaligned)))"
    assert repr(am.explain(moved)).startswith("Plan(tuned + 0.5 * (aligned - unaligned): 1 of 1 tensors change, ")
    saved = am.save(moved, tmp_path / "out")
    assert repr(saved).startswith(f"Saved({tmp_path / 'out'}, tuned + 0.5 * (aligned - unaligned), ")


def test_models_of_the_same_name_are_not_one_job(models: dict[str, am.Checkpoint], tmp_path: Path) -> None:
    """A folder's name is not its identity: `resume` does not take the output of another model of that name."""
    other = am.open(write(tmp_path / "elsewhere" / "aligned", {"layers.0.w": torch.full((2,), 7.0)}))
    tuned, aligned, unaligned = models.values()
    first = am.save(tuned + (aligned - unaligned), tmp_path / "out")
    second = am.save(tuned + (other - unaligned), tmp_path / "out", resume=True, overwrite=True)
    assert first.manifest.outputs != second.manifest.outputs
