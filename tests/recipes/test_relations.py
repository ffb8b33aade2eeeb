"""Models that do not belong together are found before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests import checkpoints

from alignmend.algebra.opening import open_adapter, open_checkpoint
from alignmend.algebra.values import Checkpoint
from alignmend.errors import AlignmendError
from alignmend.execution.kinship import kinship
from alignmend.io.manifest import Manifest, Versions, read_manifest, write_manifest
from alignmend.io.tokenizers import compare_tokenizers
from alignmend.recipes.apply import Switches, apply_recipe, explain_recipe
from alignmend.recipes.relations import relations
from alignmend.recipes.schema import load_recipe

SHAPES = {f"model.layers.{layer}.mlp.up_proj.weight": (40, 50) for layer in range(3)}


def tensors(seed: int) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def moved(start: dict[str, Any], by: float, seed: int) -> dict[str, Any]:
    return {name: tensor + by * tensors(seed)[name] for name, tensor in start.items()}


def write(folder: Path, values: dict[str, Any], vocabulary: dict[str, int] | None = None) -> Path:
    checkpoints.write(folder, {name: torch.from_numpy(value) for name, value in values.items()})
    if vocabulary is not None:
        document = {"model": {"type": "BPE", "vocab": vocabulary}, "added_tokens": []}
        (folder / "tokenizer.json").write_text(json.dumps(document))
    return folder


def recipe(folder: Path, tuned: dict[str, Any], **vocabularies: dict[str, int]) -> Path:
    aligned = tensors(0)
    for name, values in (("aligned", aligned), ("finetuned", tuned), ("unaligned", moved(aligned, 0.02, 7))):
        write(folder / name, values, vocabularies.get(name))
    path = folder / "resta.yaml"
    path.write_text(
        "method: resta\nparameters: {coefficient: 0.5}\n"
        "models: {finetuned: finetuned, aligned: aligned, unaligned: unaligned}\n"
    )
    return path


def opened(folder: Path, **roles: dict[str, Any]) -> dict[str, Checkpoint]:
    return {name: open_checkpoint(write(folder / name, values)) for name, values in roles.items()}


def flat(values: dict[str, Any]) -> np.ndarray:
    return np.concatenate([values[name].ravel() for name in SHAPES]).astype(np.float64)


@pytest.mark.parametrize("exact", [False, True])
def test_norms_and_cosines_are_those_of_the_whole(tmp_path: Path, exact: bool) -> None:
    aligned, finetuned, unaligned = tensors(0), moved(tensors(0), 0.05, 1), moved(tensors(0), 0.02, 2)
    models = opened(tmp_path, finetuned=finetuned, aligned=aligned, unaligned=unaligned)
    task, safety = flat(finetuned) - flat(aligned), flat(aligned) - flat(unaligned)
    found = relations(models, exact=exact).vectors
    assert found is not None
    assert found.task_norm == pytest.approx(float(np.linalg.norm(task)), rel=1e-5)
    assert found.safety_norm == pytest.approx(float(np.linalg.norm(safety)), rel=1e-5)
    cosine = task @ safety / np.linalg.norm(task) / np.linalg.norm(safety)
    assert found.cosine == pytest.approx(float(cosine), abs=1e-5)
    assert (found.sampled, found.weights) == (6000, 6000)
    assert [one.name for one in found.tensors] == (list(SHAPES) if exact else [])
    near = kinship(models["finetuned"].root.folder.tensors, models["aligned"].root.folder.tensors)
    assert near is not None
    assert near.distance == pytest.approx(float(np.linalg.norm(task) / np.linalg.norm(flat(aligned))), rel=1e-5)
    assert near.cosine > 0.99


def test_a_sample_estimates_large_matrices(tmp_path: Path) -> None:
    shapes = {f"model.layers.{layer}.mlp.up_proj.weight": (300, 400) for layer in range(3)}
    generator = np.random.default_rng(0)
    aligned = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    finetuned, unaligned = (
        {
            name: tensor + by * generator.standard_normal(tensor.shape).astype(np.float32)
            for name, tensor in aligned.items()
        }
        for by in (0.05, 0.02)
    )
    models = opened(tmp_path, finetuned=finetuned, aligned=aligned, unaligned=unaligned)
    sampled, exact = relations(models).vectors, relations(models, exact=True).vectors
    assert sampled is not None
    assert exact is not None
    assert sampled.sampled < sampled.weights == exact.sampled == 360_000
    assert sampled.task_norm == pytest.approx(exact.task_norm, rel=0.02)
    assert sampled.safety_norm == pytest.approx(exact.safety_norm, rel=0.02)
    assert sampled.cosine == pytest.approx(exact.cosine, abs=0.02)


@pytest.mark.parametrize("exact", [False, True])
def test_vectors_of_adapters_are_those_of_their_products(tmp_path: Path, exact: bool) -> None:
    base = open_checkpoint(write(tmp_path / "aligned", tensors(0)))
    models, deltas = {"aligned": base}, []
    for number, name in enumerate(("finetuned", "unaligned")):
        folder = adapter(tmp_path / name, seed=number)
        models[name] = base + open_adapter(folder)
        factors = load_file(folder / "adapter_model.safetensors")
        modules = [name.removesuffix(".weight") for name in SHAPES]
        a, b = (
            [factors[f"base_model.model.{module}.lora_{side}.weight"].double() for module in modules] for side in "AB"
        )
        deltas.append(np.concatenate([(2.0 * y @ x).numpy().ravel() for x, y in zip(a, b, strict=True)]))
    task, safety = deltas[0], -deltas[1]
    found = relations(models, exact=exact).vectors
    assert found is not None
    assert found.task_norm == pytest.approx(float(np.linalg.norm(task)), rel=1e-5)
    assert found.safety_norm == pytest.approx(float(np.linalg.norm(safety)), rel=1e-5)
    cosine = task @ safety / np.linalg.norm(task) / np.linalg.norm(safety)
    assert found.cosine == pytest.approx(float(cosine), abs=1e-5)


def adapter(folder: Path, seed: int) -> Path:
    """Rank 2, scale 2, on every matrix."""
    generator = torch.Generator().manual_seed(seed)
    folder.mkdir()
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["up_proj"],
        "base_model_name_or_path": "x",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    factors = {}
    for name, (rows, columns) in SHAPES.items():
        module = f"base_model.model.{name.removesuffix('.weight')}"
        factors[f"{module}.lora_A.weight"] = torch.randn(2, columns, generator=generator) / 100
        factors[f"{module}.lora_B.weight"] = torch.randn(rows, 2, generator=generator)
    save_file(factors, folder / "adapter_model.safetensors")
    return folder


def warnings_of(tmp_path: Path, finetuned: dict[str, Any], unaligned: dict[str, Any]) -> tuple[str, ...]:
    return relations(opened(tmp_path, finetuned=finetuned, aligned=tensors(0), unaligned=unaligned)).warnings


def test_a_finetune_of_the_unaligned_model_is_noticed(tmp_path: Path) -> None:
    unaligned = moved(tensors(0), 0.05, 2)
    (warning,) = warnings_of(tmp_path, moved(unaligned, 0.03, 3), unaligned)
    assert "nearer to unaligned than to aligned" in warning


@pytest.mark.parametrize(
    ("task", "safety", "said"),
    [(0.3, 0.01, "task delta is 30 times as long"), (0.003, 0.1, "safety vector is 33 times as long")],
)
def test_vectors_of_very_different_length_are_noticed(tmp_path: Path, task: float, safety: float, said: str) -> None:
    (warning,) = warnings_of(tmp_path, moved(tensors(0), task, 1), moved(tensors(0), safety, 2))
    assert said in warning


def test_a_family_passes_and_its_vectors_are_told(tmp_path: Path) -> None:
    path = recipe(tmp_path, moved(tensors(0), 0.05, 1))
    (saved,) = apply_recipe(load_recipe(path)[0], tmp_path, tmp_path / "out")
    told = [note for note in saved.manifest.notes if note.startswith("task delta: norm")]
    assert len(told) == 1
    assert "over all 6,000 weights" in told[0]
    assert saved.warnings == ()
    assert saved.manifest.vectors is not None
    assert saved.manifest.vectors.tensors == []


def test_every_weight_is_measured_on_request(tmp_path: Path) -> None:
    path = recipe(tmp_path, moved(tensors(0), 0.05, 1))
    (saved,) = apply_recipe(load_recipe(path)[0], tmp_path, tmp_path / "out", Switches(diagnose=True))
    assert saved.manifest.vectors is not None
    assert [one.name for one in saved.manifest.vectors.tensors] == list(SHAPES)
    assert read_manifest(tmp_path / "out") == saved.manifest


def test_a_stranger_is_refused_and_may_be_let_through(tmp_path: Path) -> None:
    path = recipe(tmp_path, tensors(5))
    with pytest.raises(AlignmendError, match=r"finetuned .* a descendant of aligned .*--allow-unrelated"):
        apply_recipe(load_recipe(path)[0], tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (saved,) = apply_recipe(load_recipe(path)[0], tmp_path, tmp_path / "out", Switches(allow_unrelated=True))
    assert saved.warnings[0].startswith("finetuned")
    assert saved.manifest.notes[0] == saved.warnings[0].replace(f"{tmp_path}/", "../")


def test_a_matrix_that_is_not_finite_does_not_hide_how_near_the_others_are(tmp_path: Path) -> None:
    from alignmend.execution.kinship import kinship

    aligned, tuned = tensors(0), moved(tensors(0), 0.02, 1)
    broken = {name: np.full_like(tensor, np.nan) if name == min(tuned) else tensor for name, tensor in tuned.items()}
    models = opened(tmp_path, aligned=aligned, tuned=tuned, broken=broken)
    sides = {name: model.root.folder.tensors for name, model in models.items()}
    whole, part = (kinship(sides[name], sides["aligned"]) for name in ("tuned", "broken"))
    assert whole is not None and part is not None
    assert part.sampled < whole.sampled
    assert part.cosine == pytest.approx(whole.cosine, abs=1e-3)
    assert part.distance == pytest.approx(whole.distance, abs=1e-2)


def test_a_distant_relative_is_a_warning(tmp_path: Path) -> None:
    path = recipe(tmp_path, moved(tensors(0), 0.8, 1))
    (saved,) = apply_recipe(load_recipe(path)[0], tmp_path, tmp_path / "out")
    assert any(warning.startswith("finetuned") for warning in saved.warnings)


def test_tokens_with_other_ids_are_refused(tmp_path: Path) -> None:
    usual = {"a": 0, "b": 1, "c": 2}
    path = recipe(
        tmp_path, moved(tensors(0), 0.05, 1), aligned=usual, finetuned={"a": 0, "b": 2, "c": 1}, unaligned=usual
    )
    with pytest.raises(AlignmendError, match=r"finetuned and aligned give other ids to the same tokens \('b', 'c'\)"):
        apply_recipe(load_recipe(path)[0], tmp_path, tmp_path / "out")


def test_added_tokens_and_another_template_are_notes(tmp_path: Path) -> None:
    usual = {"a": 0, "b": 1}
    recipe(tmp_path, moved(tensors(0), 0.05, 1), aligned=usual, finetuned={**usual, "<task>": 2}, unaligned=usual)
    (tmp_path / "finetuned" / "chat_template.jinja").write_text("other")
    models = {name: open_checkpoint(tmp_path / name) for name in ("finetuned", "aligned", "unaligned")}
    notes = relations(models).notes
    assert "finetuned has tokens that aligned lacks: '<task>'" in notes
    assert any("different chat templates" in note for note in notes)


def test_files_that_are_no_tokenizers_say_nothing(tmp_path: Path) -> None:
    for name, text in (("a", "{"), ("b", '{"model": {"vocab": {"x": 0}}}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text(text)
    assert compare_tokenizers(tmp_path / "a", tmp_path / "b") is None
    assert compare_tokenizers(tmp_path / "b", tmp_path / "b") is None
    assert compare_tokenizers(tmp_path / "b", tmp_path) is None


def test_other_vocabulary_files_are_compared_by_their_bytes(tmp_path: Path) -> None:
    for name, text in (("a", "one"), ("b", "other"), ("c", "one")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.model").write_text(text)
    found = compare_tokenizers(tmp_path / "a", tmp_path / "b")
    assert found is not None
    assert found.files == ("tokenizer.model",)
    assert compare_tokenizers(tmp_path / "a", tmp_path / "c") is None


def test_a_folder_without_a_tokenizer_lacks_no_template(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "chat_template.jinja").write_text("template")
    assert compare_tokenizers(tmp_path / "a", tmp_path / "b") is None
    (tmp_path / "b" / "tokenizer_config.json").write_text("{}")
    found = compare_tokenizers(tmp_path / "a", tmp_path / "b")
    assert found is not None
    assert found.template


def test_explain_tells_of_tokenizers_and_refuses_nothing(tmp_path: Path) -> None:
    path = recipe(tmp_path, moved(tensors(0), 0.05, 1), aligned={"a": 0, "b": 1}, finetuned={"a": 1, "b": 0, "c": 2})
    (plan,) = explain_recipe(load_recipe(path)[0], tmp_path)
    assert any("other ids to the same tokens ('a', 'b'): apply refuses this" in note for note in plan.notes)
    assert "finetuned has tokens that aligned lacks: 'c'" in plan.notes
    assert not any("task delta" in note for note in plan.notes)


def test_an_adapters_own_tokenizer_is_compared(tmp_path: Path) -> None:
    base = open_checkpoint(write(tmp_path / "aligned", tensors(0), {"a": 0, "b": 1}))
    folder = adapter(tmp_path / "finetuned", seed=0)
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 1, "b": 0}}}))
    with pytest.raises(AlignmendError, match="give other ids to the same tokens"):
        relations({"aligned": base, "finetuned": base + open_adapter(folder)})


def test_how_a_private_model_was_made_is_told(tmp_path: Path) -> None:
    recipe(tmp_path, moved(tensors(0), 0.05, 1))
    made = Manifest(versions=Versions(alignmend="0"), expression="descent from base on 9 pairs", private=True)
    write_manifest(tmp_path / "unaligned" / "alignmend.json", made)
    models = {name: open_checkpoint(tmp_path / name) for name in ("finetuned", "aligned", "unaligned")}
    assert "unaligned was made by alignmend: descent from base on 9 pairs" in relations(models).notes
