"""Every mismatch is found from headers, all of them at once, each with what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests import reference
from tests.checkpoints import (
    EMBEDDING,
    HEAD,
    Tensors,
    computed,
    llama_shapes,
    load,
    near,
    normal,
    same_bits,
    write,
)

import alignmend as am
from alignmend.errors import FileFormatError, MismatchError, UnsupportedFormatError

BASE = normal(0, llama_shapes())
QUERY = "model.layers.0.self_attn.q_proj.weight"


def pair(folder: Path, change: Tensors | None = None, without: str | None = None, **config: Any) -> am.Checkpoint:
    """`base + (other - base)`, `other` with some tensors changed or taken out."""
    other = {name: tensor for name, tensor in near(BASE, 1).items() if name != without} | (change or {})
    base = am.open(write(folder / "base", BASE))
    return base + (am.open(write(folder / "other", other, **config)) - base)


def test_what_fits_is_accepted(tmp_path: Path) -> None:
    plan = am.explain(pair(tmp_path))
    assert (plan.tensors, plan.changed) == (len(BASE), len(BASE))


@pytest.mark.parametrize(
    ("change", "without", "message"),
    [
        ({}, QUERY, r"q_proj\.weight is in \S+base but not in \S+other"),
        ({"model.layers.0.extra": torch.ones(1)}, None, r"layers\.0\.extra is in \S+other but not in \S+base"),
        (
            {QUERY: torch.ones(4, 8)},
            None,
            r"q_proj\.weight: \S+other has shape \[4, 8\], the target \[8, 8\]; a resized",
        ),
        ({QUERY: torch.ones(8, 4)}, None, r"q_proj\.weight: \S+other has shape \[8, 4\], the target \[8, 8\]$"),
        ({QUERY: torch.ones(64)}, None, r"has shape \[64\], the target \[8, 8\]$"),
        ({QUERY: torch.ones(8, 8, dtype=torch.float64)}, None, r"\S+other has F64: convert it to bfloat16"),
        ({EMBEDDING: torch.ones(14, 8)}, None, r"embed_tokens\.weight: .* has shape \[14, 8\].*common_rows"),
    ],
)
def test_each_mismatch_is_refused(change: Tensors, without: str | None, message: str, tmp_path: Path) -> None:
    expression = pair(tmp_path, change, without)
    with pytest.raises(MismatchError, match=message):
        am.explain(expression)
    with pytest.raises(MismatchError, match=message):
        am.save(expression, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "other"]


def test_float8_is_refused(tmp_path: Path) -> None:
    with pytest.raises((MismatchError, UnsupportedFormatError), match=r"F8_E4M3|float8"):
        am.explain(pair(tmp_path, {QUERY: torch.zeros(8, 8, dtype=torch.float8_e4m3fn)}))


def test_a_float64_target_that_would_change_is_refused(tmp_path: Path) -> None:
    wide = {"w": torch.ones(3, dtype=torch.float64), "v": torch.ones(2)}
    a = am.open(write(tmp_path / "a", wide))
    narrow = {"w": torch.zeros(3), "v": torch.zeros(2)}
    b, c = (am.open(write(tmp_path / role, near(narrow, seed))) for seed, role in enumerate("bc"))
    with pytest.raises(MismatchError, match=r"w is F64 in .*: convert it to bfloat16, float16 or float32"):
        am.explain(a + (b - c))
    found = computed(a + am.select(b - c, names="v"), tmp_path / "out")
    assert same_bits(found["w"], wide["w"])


def test_several_mismatches_are_told_together(tmp_path: Path) -> None:
    change = {QUERY: torch.ones(8, 4), "new.weight": torch.ones(1), "model.norm.weight": torch.ones(9)}
    with pytest.raises(MismatchError, match="do not fit together") as caught:
        am.explain(pair(tmp_path, change, without=EMBEDDING))
    message = str(caught.value)
    assert all(word in message for word in (EMBEDDING, QUERY, "new.weight", "model.norm.weight"))
    assert len(message.splitlines()) == 6
    assert "names: ['model.*', 'lm_head.*']" in message.splitlines()[-1]


def test_a_long_list_is_cut_short_and_counted(tmp_path: Path) -> None:
    names = [f"w{index}" for index in range(20)]
    a = am.open(write(tmp_path / "a", {name: torch.ones(1) for name in names}))
    b = am.open(write(tmp_path / "b", {name: torch.ones(2) for name in names}))
    with pytest.raises(MismatchError, match=r"\.\.\. and 12 more$"):
        am.explain(a + (a - b))


@pytest.mark.parametrize("suffix", ["inv_freq", "position_ids", "masked_bias"])
def test_known_buffers_may_be_missing_and_come_from_the_target(suffix: str, tmp_path: Path) -> None:
    name = f"model.layers.0.self_attn.rotary_emb.{suffix}"
    tensors = BASE | {name: torch.arange(4).float()}
    base, other = am.open(write(tmp_path / "a", tensors)), am.open(write(tmp_path / "b", near(BASE, 1)))
    third = am.open(write(tmp_path / "c", BASE | {name: torch.arange(7).float()}))
    for index, expression in enumerate((base + (other - base), other + (base - other), base + (third - other))):
        found = computed(expression, tmp_path / f"out{index}")
        assert (name in found) == (index != 1)
        assert index == 1 or same_bits(found[name], tensors[name])


def test_integers_and_truths_are_copied_from_the_target(tmp_path: Path) -> None:
    own = {"steps": torch.arange(5), "flags": torch.tensor([True, False])}
    others = {"steps": torch.arange(5) + 7, "flags": torch.tensor([False, False])}
    a = am.open(write(tmp_path / "a", BASE | own))
    b = am.open(write(tmp_path / "b", near(BASE, 1) | others))
    found = computed(a + (b - a), tmp_path / "out", dtype="bfloat16")
    assert all(same_bits(found[name], own[name]) for name in own)


def test_an_integer_that_should_be_a_weight_is_refused(tmp_path: Path) -> None:
    a = am.open(write(tmp_path / "a", {"w": torch.ones(3)}))
    b = am.open(write(tmp_path / "b", {"w": torch.ones(3, dtype=torch.int64)}))
    with pytest.raises(MismatchError, match=r"w: .*b has I64"):
        am.explain(a + (a - b))


TIED = {name: tensor for name, tensor in BASE.items() if name != HEAD}
DOUBLED = BASE | {HEAD: BASE[EMBEDDING]}


@pytest.mark.parametrize("target", [TIED, DOUBLED])
@pytest.mark.parametrize("other", [TIED, DOUBLED])
def test_tied_embeddings_meet_under_either_name(target: Tensors, other: Tensors, tmp_path: Path) -> None:
    moved = near(other, 1)
    if HEAD in moved:
        moved[HEAD] = moved[EMBEDDING].clone()
    root = am.open(write(tmp_path / "a", target, tie_word_embeddings=True))
    found = computed(
        root + (am.open(write(tmp_path / "b", moved, tie_word_embeddings=True)) - root),
        tmp_path / "o",
        dtype="bfloat16",
    )
    assert found.keys() == target.keys()
    for name in (EMBEDDING, HEAD):
        if name in found:
            torch.testing.assert_close(found[name].float(), moved[EMBEDDING], rtol=0.01, atol=1e-3)


def test_a_head_stored_alone_meets_the_embedding(tmp_path: Path) -> None:
    alone = {name: tensor for name, tensor in BASE.items() if name != EMBEDDING}
    a = am.open(write(tmp_path / "a", TIED, tie_word_embeddings=True))
    b = am.open(write(tmp_path / "b", alone, tie_word_embeddings=True))
    assert am.explain(a + (b - a)).changed == len(TIED)


def test_one_weight_cannot_move_as_two_do(tmp_path: Path) -> None:
    tied = am.open(write(tmp_path / "tied", TIED, tie_word_embeddings=True))
    doubled = am.open(write(tmp_path / "doubled", DOUBLED, tie_word_embeddings=True))
    untied = am.open(write(tmp_path / "untied", BASE, tie_word_embeddings=False))
    with pytest.raises(MismatchError, match=r"lm_head\.weight is in \S+untied but not in \S+tied \(only \S+tied ties"):
        am.explain(tied + (tied - untied))
    with pytest.raises(MismatchError, match=r"doubled ties its output head to its input embedding, \S+untied does not"):
        am.explain(doubled + (doubled - untied))


@pytest.mark.parametrize("stored", [TIED, DOUBLED])
def test_the_head_of_a_tied_model_is_its_embedding(stored: Tensors, tmp_path: Path) -> None:
    """Two weights move as the one does, and as what they are themselves."""
    moved = {name: one for name, one in near(DOUBLED, 1).items() if name in stored}
    moved |= {HEAD: moved[EMBEDDING].clone()} if HEAD in moved else {}
    untied = am.open(write(tmp_path / "untied", near(BASE, 2), tie_word_embeddings=False))
    a, b = (
        am.open(write(tmp_path / role, one, tie_word_embeddings=True)) for role, one in (("a", moved), ("b", stored))
    )
    found, own = computed(untied + (a - b), tmp_path / "out"), load(tmp_path / "untied")
    step = moved[EMBEDDING] - stored[EMBEDDING]
    for name in (EMBEDDING, HEAD):
        torch.testing.assert_close(found[name], own[name] + step)
    back = computed(untied + (a - untied), tmp_path / "back")
    torch.testing.assert_close(back[HEAD], moved[EMBEDDING])


def test_equal_copies_are_one_weight_whatever_the_config_says(tmp_path: Path) -> None:
    tied = am.open(write(tmp_path / "tied", TIED, tie_word_embeddings=True))
    doubled = am.open(write(tmp_path / "doubled", DOUBLED, tie_word_embeddings=True))
    moved = near(BASE, 1)
    moved[HEAD] = moved[EMBEDDING].clone()
    other = am.open(write(tmp_path / "other", moved, tie_word_embeddings=False))
    for index, target in enumerate((tied, doubled)):
        found = computed(target + (other - target), tmp_path / f"out{index}")
        assert all(torch.allclose(found[name], moved[name]) for name in found)


def test_copies_that_differ_are_two_weights_whatever_the_config_says(tmp_path: Path) -> None:
    """As `transformers` takes them; the config is told of."""
    base, moved = (am.open(write(tmp_path / str(seed), near(BASE, seed), tie_word_embeddings=True)) for seed in (0, 1))
    found, wanted = computed(base + (moved - base), tmp_path / "out"), load(tmp_path / "1")
    torch.testing.assert_close(found[HEAD], wanted[HEAD])
    assert any("differ: taken as two weights" in note for note in am.explain(base + (moved - base)).notes)


def test_expert_weights_of_three_dimensions(tmp_path: Path) -> None:
    tensors = normal(0, llama_shapes(experts=3))
    moved = near(tensors, 1, size=1.0)
    a, b = am.open(write(tmp_path / "a", tensors)), am.open(write(tmp_path / "b", moved))
    found = computed(a + am.trim(b - a, density=0.5, scope="tensor"), tmp_path / "out")
    delta = reference.subtract(reference.numbers(moved), reference.numbers(tensors))
    exact = reference.add(reference.numbers(tensors), reference.trim(delta, 0.5, "tensor"))
    for name, values in found.items():
        np.testing.assert_allclose(values.numpy(), exact[name], atol=1e-5)


VISION = {"vision_tower.layers.0.q_proj.weight": torch.randn(3, 3), "multi_modal_projector.weight": torch.randn(4, 3)}


def test_a_text_decoder_meets_its_like_inside_a_vision_language_model(tmp_path: Path) -> None:
    nested = {f"language_model.{name}": tensor for name, tensor in BASE.items()} | VISION
    whole = am.open(write(tmp_path / "whole", nested))
    moved = near(BASE, 1)
    aligned, unaligned = (
        am.open(write(tmp_path / role, tensors)).root.folder.path
        for role, tensors in (("aligned", moved), ("unaligned", BASE))
    )
    step = am.open(aligned, prefix="language_model.") - am.open(unaligned, prefix="language_model.")
    with pytest.raises(
        MismatchError, match=r"vision_tower\.layers\.0\.q_proj\.weight is in \S+whole but not in \S+aligned"
    ):
        am.explain(whole + step)
    chosen = am.select(step, names="language_model.*")
    found = computed(whole + chosen, tmp_path / "out")
    assert all(same_bits(found[name], tensor) for name, tensor in VISION.items())
    for name, tensor in moved.items():
        torch.testing.assert_close(found[f"language_model.{name}"], tensor)
    trimmed = computed(whole + am.trim(chosen, density=0.5), tmp_path / "trimmed")
    count = sum(tensor.numel() for tensor in BASE.values())
    changed = sum(int((trimmed[name] != nested[name]).sum()) for name in nested)
    assert count * 0.49 < changed <= round(count * 0.5)


def test_layers_are_the_text_decoders_unless_a_pattern_speaks_of_a_tower(tmp_path: Path) -> None:
    nested = {f"language_model.{name}": tensor for name, tensor in BASE.items()} | VISION
    whole = am.open(write(tmp_path / "whole", nested))
    step = am.open(write(tmp_path / "moved", near(nested, 1))) - whole

    def changed(delta: am.Delta, name: str) -> set[str]:
        found = computed(whole + delta, tmp_path / name)
        return {name.split(".")[0] for name, tensor in found.items() if not same_bits(tensor, nested[name])}

    assert changed(am.select(step, layers=[0]), "text") == {"language_model"}
    assert changed(am.select(step, layers=[0], names="vision_tower.*"), "tower") == {"vision_tower"}


def test_what_is_selected_after_a_ranking_does_not_excuse_what_the_ranking_lacks(tmp_path: Path) -> None:
    """The ranking would count the vision weights as zeros that no operand has."""
    nested = {f"language_model.{name}": tensor for name, tensor in BASE.items()} | VISION
    whole = am.open(write(tmp_path / "whole", nested))
    write(tmp_path / "a", near(BASE, 1)), write(tmp_path / "b", BASE)
    step = am.open(tmp_path / "a", prefix="language_model.") - am.open(tmp_path / "b", prefix="language_model.")
    with pytest.raises(MismatchError, match=r"vision_tower\.\S+ is in \S+whole but not in"):
        am.explain(whole + am.select(am.trim(step, density=0.5), names="language_model.*"))


def test_an_input_that_vanished_is_one_clear_error(tmp_path: Path) -> None:
    expression = pair(tmp_path)
    (tmp_path / "other" / "model.safetensors").unlink()
    with pytest.raises(FileFormatError, match=r"other/model\.safetensors can no longer be (read|opened): No such file"):
        am.explain(expression)
    with pytest.raises(FileFormatError, match=r"other/model\.safetensors can no longer be (read|opened): No such file"):
        am.save(expression, tmp_path / "out")
    with pytest.raises(FileFormatError, match=r"other/model\.safetensors can no longer be (read|opened): No such file"):
        am.norm(am.open(tmp_path / "base") - am.open(tmp_path / "base") + (expression - am.open(tmp_path / "base")))


def test_an_input_cut_short_is_one_clear_error(tmp_path: Path) -> None:
    expression = pair(tmp_path)
    path = tmp_path / "other" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(FileFormatError, match=r"other/model\.safetensors became shorter while \S+ was read"):
        am.save(expression, tmp_path / "out")
    assert not (tmp_path / "out").exists()
