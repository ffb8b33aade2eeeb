"""Scores on disk: what they are called, how they are read again, and that nothing is left half-written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tests.training.making import contents
from transformers import AutoModelForCausalLM

import alignmend
from alignmend.errors import MismatchError, OutputError, ParameterError
from alignmend.io.manifest import Manifest, read_manifest
from alignmend.io.verify import verify
from alignmend.organisms import Family
from alignmend.training.run import train_model
from alignmend.training.score_settings import ScoreSettings
from alignmend.training.scoring import Scored, write_scores
from alignmend.training.settings import TrainSettings


def scored(model: Path, pairs: Path, out: Path, **options: Any) -> Scored:
    own = {name: options.pop(name) for name in ("adapter", "base", "overwrite", "progress") if name in options}
    return write_scores(model, pairs, out, ScoreSettings(**{"samples": 6} | options), **own)


def tensors(made: Scored) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(made.path if made.path.is_file() else made.path / "model.safetensors")
    return found


def test_a_file_and_a_folder_hold_the_same_and_the_algebra_reads_both(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    one = scored(tiny, pairs, tmp_path / "s.safetensors", progress=lambda *told: seen.append(told))
    folder = scored(tiny, pairs, tmp_path / "s", layers_at_once=1)
    first, second = tensors(one), tensors(folder)
    assert all(torch.equal(first[name], second[name]) for name in first) and first.keys() == second.keys()
    assert all(name.endswith(".weight") and ".h." in name for name in first) and len(first) == 8
    assert seen == [("snip", done, 6) for done in range(1, 7)]
    with safe_open(one.path, framework="pt") as file:
        manifest = Manifest.model_validate_json(file.metadata()["alignmend"])
    assert manifest.parameters["pairs"] == {**folder.manifest.parameters["pairs"]}  # type: ignore[dict-item]
    assert read_manifest(folder.path) == folder.manifest and not folder.manifest.private
    verify(folder.path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s", "s.safetensors"]
    base = alignmend.open(tiny)
    doubled = AutoModelForCausalLM.from_pretrained(tiny)
    with torch.no_grad():
        for parameter in doubled.parameters():
            parameter.mul_(2)
    doubled.save_pretrained(tmp_path / "doubled")
    name = "transformer.h.1.mlp.c_fc.weight"
    best = alignmend.top(alignmend.open_scores(one.path), density=0.25, scope="tensor")
    delta = alignmend.select(alignmend.open(tmp_path / "doubled") - base, names=name)
    moved = load_file(alignmend.save(base + alignmend.where(best, delta), tmp_path / "out").path / "model.safetensors")
    before = load_file(tiny / "model.safetensors")
    changed = (moved[name] != before[name]).flatten()
    order = first[name].flatten().argsort(descending=True, stable=True)[: changed.numel() // 4]
    assert set(changed.nonzero().flatten().tolist()) == set(order.tolist())


def test_the_same_arguments_give_the_same_bytes(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    first, again = (scored(tiny, pairs, tmp_path / name / "s") for name in ("a", "b"))
    assert contents(first.path) == contents(again.path)
    half = scored(tiny, pairs, tmp_path / "half", dtype="bfloat16")
    for name, values in tensors(half).items():
        assert torch.equal(values, tensors(first)[name].bfloat16())
    other = scored(tiny, pairs, tmp_path / "other", seed=1)
    assert contents(first.path)["model.safetensors"] != contents(other.path)["model.safetensors"]


def test_every_parameter_can_be_scored_and_a_tied_one_once(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    from alignmend.algebra.names import KINDS

    found = tensors(scored(tiny, pairs, tmp_path / "all", kinds=KINDS))
    stored = load_file(tiny / "model.safetensors")
    assert {name: tensor.shape for name, tensor in found.items()} == {
        name: tensor.shape for name, tensor in stored.items() if name != "lm_head.weight"
    }
    norms = tensors(scored(tiny, pairs, tmp_path / "norms", kinds=("norm",)))
    assert all("ln_" in name and torch.allclose(norms[name], found[name], rtol=1e-4, atol=1e-9) for name in norms)


@pytest.mark.parametrize("weights", ["patched", "patch", "base"])
def test_an_adapter_is_scored_as_the_checkpoint_that_it_makes(
    tiny: Path, pairs: Path, tmp_path: Path, weights: str
) -> None:
    settings = TrainSettings("ascent", lora_rank=2, lora_targets=("c_attn",), learning_rate=1e-2, max_steps=3)
    train_model(tiny, pairs, tmp_path / "adapter", settings)
    merged = alignmend.open(tiny) + alignmend.open_adapter(tmp_path / "adapter")
    alignmend.save(merged, tmp_path / "merged", dtype="float32")
    full = scored(tmp_path / "merged", pairs, tmp_path / "full", weights=weights, base=tiny)
    itself = scored(tmp_path / "adapter", pairs, tmp_path / "itself", weights=weights)
    both = scored(tiny, pairs, tmp_path / "both", weights=weights, adapter=tmp_path / "adapter")
    for name, values in tensors(full).items():
        assert torch.equal(values, tensors(itself)[name]) and torch.equal(values, tensors(both)[name])
    if weights == "patch":  # what was not patched has no importance
        assert all(("c_attn" in name) == bool(values.any()) for name, values in tensors(full).items())
    if weights == "base":
        alone = tensors(scored(tiny, pairs, tmp_path / "alone"))
        assert all(torch.equal(values, alone[name]) for name, values in tensors(full).items())


@pytest.mark.parametrize("weights", ["patched", "patch"])
def test_a_stored_delta_is_scored_as_the_checkpoint_that_it_makes(
    tiny: Path, pairs: Path, tmp_path: Path, weights: str
) -> None:
    train_model(tiny, pairs, tmp_path / "full", TrainSettings("ascent", learning_rate=1e-3, max_steps=2))
    base = alignmend.open(tiny)
    delta = alignmend.trim(alignmend.open(tmp_path / "full") - base, density=0.1)
    alignmend.save(base + delta, tmp_path / "merged", dtype="float32")
    alignmend.save_delta(delta, tmp_path / "delta", target=base, form="sparse")
    full = scored(tmp_path / "merged", pairs, tmp_path / "one", weights=weights, base=tiny)
    itself = scored(tmp_path / "delta", pairs, tmp_path / "other", weights=weights)
    expected = tensors(full)
    assert all(torch.equal(values, expected[name]) for name, values in tensors(itself).items())
    assert any(values.any() for values in expected.values())
    assert itself.manifest.inputs["adapter"].location == str(tmp_path / "delta")
    with pytest.raises(ParameterError, match="is a stored delta: give the model that both are for"):
        scored(tmp_path / "delta", pairs, tmp_path / "third", adapter=tmp_path / "delta")


def test_one_plain_step_both_ways_gives_opposite_patches_and_the_same_base_scores(
    tiny: Path, pairs: Path, tmp_path: Path
) -> None:
    """With the base's weights both patches get the same scores: their difference sets are then empty."""
    from alignmend.training.objectives import row_losses

    for sign, name in ((1, "descent"), (-1, "ascent")):
        network = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
        tokens = torch.tensor([[5, 9, 7, 30]])
        row_losses(network(tokens).logits, torch.tensor([[-100, -100, 7, 30]])).sum().backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.sub_(2**-6 * sign * parameter.grad)
        network.save_pretrained(tmp_path / name)
    before, up, down = (
        load_file(path / "model.safetensors") for path in (tiny, tmp_path / "ascent", tmp_path / "descent")
    )
    for name in before:
        torch.testing.assert_close(up[name] - before[name], before[name] - down[name], rtol=0, atol=1e-7)
    found = [
        tensors(scored(tmp_path / one, pairs, tmp_path / f"{one}-scores", weights="base", base=tiny))
        for one in ("ascent", "descent")
    ]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_what_cannot_be_scored_leaves_nothing(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="weights 'patch' need the model before patching"):
        scored(tiny, pairs, tmp_path / "out", weights="patch")
    with pytest.raises(OutputError, match="holds a model or the pairs"):
        scored(tiny, pairs, tiny, overwrite=True)

    def stop(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    for name in ("out", "out.safetensors"):
        with pytest.raises(KeyboardInterrupt):
            scored(tiny, pairs, tmp_path / name, progress=stop)
    assert not list(tmp_path.iterdir())
    narrow = AutoModelForCausalLM.from_pretrained(tiny).config
    narrow.n_embd = 8
    AutoModelForCausalLM.from_config(narrow).save_pretrained(tmp_path / "narrow")
    with pytest.raises(MismatchError, match="is it the base"):
        scored(tiny, pairs, tmp_path / "out", weights="patch", base=tmp_path / "narrow")
    (tmp_path / "taken.safetensors").touch()
    with pytest.raises(OutputError, match="exists: choose another name"):
        scored(tiny, pairs, tmp_path / "taken.safetensors")
    scored(tiny, pairs, tmp_path / "taken.safetensors", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["narrow", "taken.safetensors"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "snap"}, "method is 'snap': choose from snip, wanda"),
        ({"samples": 0}, "samples is 0"),
        ({"layers_at_once": 0}, "layers_at_once is 0"),
        ({"kinds": ("heads",)}, "unknown kind 'heads'"),
        ({"method": "wanda", "kinds": ("mlp",)}, "leave out kinds and order"),
        ({"max_length": 1}, "max_length is 1"),
    ],
)
def test_settings_that_cannot_be_meant(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        ScoreSettings(**given)


def test_settings_survive_json(tiny: Path, pairs: Path, tmp_path: Path) -> None:
    made = scored(tiny, pairs, tmp_path / "s", method="wanda", batch_size=3)
    assert json.loads(json.dumps(made.manifest.parameters))["method"] == "wanda"
    assert (made.tensors, made.weights) == (8, 6144)


def test_linear_layers_are_scored_as_they_are_stored(shipped: Family, harmful: Path, tmp_path: Path) -> None:
    """GPT-2 stores (in, out), all others (out, in): a column of Wanda is an input here."""
    aligned = shipped.members["aligned"]
    found, gradients = (
        tensors(scored(aligned, harmful, tmp_path / method, method=method, batch_size=4))
        for method in ("wanda", "snip")
    )
    stored = {name: part for file in aligned.glob("*.safetensors") for name, part in load_file(file).items()}
    assert (
        found.keys() == gradients.keys() == {name for name in stored if ".layers." in name and stored[name].ndim == 2}
    )
    for name, values in found.items():
        weight = stored[name].float()
        assert values.shape == weight.shape == gradients[name].shape and bool(gradients[name].any())
        ratio = (values / weight.abs()).nan_to_num(nan=0.0, posinf=0.0)
        column = ratio.max(dim=0).values
        known = weight.abs() > 1e-3
        torch.testing.assert_close(ratio[known], column.expand_as(ratio)[known], rtol=1e-3, atol=1e-6)
