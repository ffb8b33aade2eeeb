"""False-refusal ablation beside its equation: nothing writes along the direction any more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests import reference
from tests.methods.tiny import computed, contents, random_tensors, read, write

import alignmend as am
from alignmend.errors import MismatchError, ParameterError
from alignmend.methods.false_refusal_ablation import false_refusal_ablation

OUTPUT, DOWN = "model.layers.{}.self_attn.o_proj.weight", "model.layers.{}.mlp.down_proj.weight"
BIAS = "model.layers.{}.self_attn.o_proj.bias"
EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture
def model(tmp_path: Path) -> am.Checkpoint:
    tensors, generator = random_tensors(0), torch.Generator().manual_seed(1)
    for layer in (0, 1):
        tensors |= {
            OUTPUT.format(layer): torch.randn(8, 12, generator=generator),
            DOWN.format(layer): torch.randn(8, 16, generator=generator),
            BIAS.format(layer): torch.randn(8, generator=generator),
        }
    return am.open(write(tmp_path / "model", tensors))


def vector(path: Path, *values: list[float]) -> am.Scores:
    """A file of one direction per layer."""
    directions = {layer: torch.tensor(direction) for layer, direction in enumerate(values)}
    am.SteeringVector(directions).save(path)
    return am.open_scores(path)


def drawn(path: Path, seed: int) -> tuple[am.Scores, reference.Array]:
    """Random directions of two layers; that of the second."""
    found = torch.randn(2, 8, generator=torch.Generator().manual_seed(seed))
    return vector(path, *found.tolist()), found[1].double().numpy()


def ablated(tensors: reference.Arrays, w: reference.Array) -> reference.Arrays:
    unit, found = w / np.linalg.norm(w), dict(tensors)
    for name, values in tensors.items():
        if name == EMBEDDING:
            found[name] = values - np.outer(values @ unit, unit)
        elif "o_proj" in name or "down_proj" in name:
            found[name] = values - np.tensordot(unit, unit @ values, axes=0)
    return found


def check(found: Any, expected: reference.Arrays) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].double().numpy(), values, rtol=2e-5, atol=3e-6, err_msg=name)


def test_by_hand(tmp_path: Path) -> None:
    # w = (0, 2): the second row of what writes goes, of the embedding the second column.
    tensors = {OUTPUT.format(0): [[1.0, 2.0], [3.0, 4.0]], EMBEDDING: [[5.0, 6.0], [7.0, 8.0]]}
    model = am.open(write(tmp_path / "model", tensors))
    result = false_refusal_ablation(
        finetuned=model, false_refusal=vector(tmp_path / "v.safetensors", [0, 2.0]), layer=0
    )
    found = computed(result, tmp_path / "out")
    assert found[OUTPUT.format(0)].tolist() == [[1.0, 2.0], [0.0, 0.0]]
    assert found[EMBEDDING].tolist() == [[5.0, 0.0], [7.0, 0.0]]


@pytest.mark.parametrize("strength", [None, 1.0, 0.4])
def test_it_is_its_equation(strength: float | None, model: am.Checkpoint, tmp_path: Path) -> None:
    direction, w = drawn(tmp_path / "w.safetensors", 2)
    refusal, r = drawn(tmp_path / "r.safetensors", 3)
    options: dict[str, Any] = {}
    if strength is not None:
        options = {"refusal": refusal, "strength": strength}
        w = w - strength * (w @ r) / (r @ r) * r
    result = false_refusal_ablation(finetuned=model, false_refusal=direction, layer=1, **options)
    expected = ablated(reference.numbers(read(model.root.folder.path)), w)
    for threads in (1, 3):
        check(computed(result, tmp_path / str(threads), threads=threads), expected)
    assert contents(tmp_path / "1")["model.safetensors"] == contents(tmp_path / "3")["model.safetensors"]


def test_it_ablates_what_other_arithmetic_has_made(model: am.Checkpoint, tmp_path: Path) -> None:
    direction, w = drawn(tmp_path / "w.safetensors", 2)
    other = {name: values + 1.0 for name, values in read(model.root.folder.path).items()}
    moved = model + 0.5 * (am.open(write(tmp_path / "other", other)) - model)
    result = false_refusal_ablation(finetuned=moved, false_refusal=direction, layer=1)
    before = reference.numbers(computed(moved, tmp_path / "moved"))
    check(computed(result, tmp_path / "out"), ablated(before, w))


def test_twice_is_once(model: am.Checkpoint, tmp_path: Path) -> None:
    direction, w = drawn(tmp_path / "w.safetensors", 2)
    once = false_refusal_ablation(finetuned=model, false_refusal=direction, layer=1)
    found = reference.numbers(computed(once, tmp_path / "once"))
    assert abs(w @ found[DOWN.format(0)]).max() < 1e-5
    twice = false_refusal_ablation(finetuned=once, false_refusal=direction, layer=1)
    check(computed(twice, tmp_path / "twice"), found)
    assert set(am.save(once, tmp_path / "told").manifest.inputs) == {"model", "w.safetensors"}


def test_a_direction_that_is_none_is_refused(model: am.Checkpoint, tmp_path: Path) -> None:
    zero, some = vector(tmp_path / "zero.safetensors", [0.0] * 8), vector(tmp_path / "some.safetensors", [1.0] * 8)

    def made(**options: Any) -> am.Checkpoint:
        return false_refusal_ablation(finetuned=model, **({"layer": 0} | options))

    with pytest.raises(ParameterError, match=r"nothing is left of the direction layer\.0 in zero"):
        computed(made(false_refusal=zero), tmp_path / "out")
    with pytest.raises(ParameterError, match=r"nothing is left of the direction layer\.0 in some"):
        computed(made(false_refusal=some, refusal=some), tmp_path / "out")
    with pytest.raises(ParameterError, match="to be spared is zero"):
        computed(made(false_refusal=some, refusal=zero), tmp_path / "out")
    with pytest.raises(ParameterError, match="has no vector of layer 3: it has those of 0"):
        made(false_refusal=some, layer=3)
    narrow = vector(tmp_path / "narrow.safetensors", [1.0, 2.0])
    with pytest.raises(MismatchError, match=r"where the direction narrow\.safetensors is \[2\]"):
        am.explain(made(false_refusal=narrow))
    with pytest.raises(ParameterError, match="it is no file of a steering vector"):
        made(false_refusal=am.open_scores(model.root.folder.path / "model.safetensors"))


def test_stacked_experts_are_refused(tmp_path: Path) -> None:
    tensors = {"model.layers.0.mlp.experts.down_proj": torch.zeros(2, 8, 4), EMBEDDING: torch.ones(3, 8)}
    model = am.open(write(tmp_path / "model", tensors))
    direction = vector(tmp_path / "v.safetensors", [1.0] * 8)
    with pytest.raises(MismatchError, match="is a stack of experts"):
        am.explain(false_refusal_ablation(finetuned=model, false_refusal=direction, layer=0))
