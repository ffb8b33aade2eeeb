"""A delta on disk is the delta: in every expression, in both forms, on its own target and on others."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import get_args

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests import reference
from tests.checkpoints import EMBEDDING, HEAD, Tensors, computed, llama_shapes, load, near, normal, same_bits, write
from tests.execution.test_arithmetic import expect
from tests.strategies import Case, Family, expressions, families

import alignmend as am
from alignmend.errors import (
    FileFormatError,
    MismatchError,
    NonFiniteError,
    OutputError,
    ParameterError,
    UnsupportedFormatError,
)
from alignmend.io.delta import DELTA_NAME, Form
from alignmend.io.manifest import MANIFEST_NAME
from alignmend.io.private import mark_private

FORMS: tuple[Form, ...] = get_args(Form)
UP = "model.layers.0.mlp.down_proj.weight"


def sparse_step(tensors: Tensors, density: float, seed: int = 5) -> Tensors:
    """The tensors with a few weights moved."""
    moved = near(tensors, seed, size=1.0)
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.where(torch.rand(value.shape, generator=generator) < density, moved[name], value)
        for name, value in tensors.items()
    }


@pytest.fixture
def pair(tmp_path: Path) -> tuple[am.Checkpoint, am.Checkpoint]:
    """A model, and one of which a tenth of the weights differ."""
    base = normal(1, llama_shapes())
    return am.open(write(tmp_path / "base", base)), am.open(write(tmp_path / "patched", sparse_step(base, 0.1)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(family=families(), data=st.data(), form=st.sampled_from(FORMS))
def test_an_expression_that_is_stored_adds_what_it_would_have_added(
    family: Family, data: st.DataObject, form: Form
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        opened = family.open(Path(folder))
        means = {role: family.means(role) for role in opened}
        cases: list[Case] = [
            (opened[one] - opened[other], reference.subtract(means[one], means[other]))
            for one, other in (("aligned", "unaligned"), ("finetuned", "aligned"))
        ]
        delta, _ = data.draw(expressions(cases))
        target = opened[data.draw(st.sampled_from(sorted(opened)))]
        am.save_delta(delta, Path(folder) / "delta", target=target, form=form, threads=2)
        stored = am.open_delta(Path(folder) / "delta", target=target)
        whole = computed(target + delta, Path(folder) / "whole", dtype="float32")
        found = computed(target + stored, Path(folder) / "found", dtype="float32")
        for name, value in whole.items():
            # Zeros that are left out have no sign.
            assert same_bits(found[name], value) if form == "dense" else torch.equal(found[name], value), name


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(family=families(), data=st.data(), forms=st.tuples(st.sampled_from(FORMS), st.sampled_from(FORMS)))
def test_expressions_of_stored_deltas_equal_the_oracle_on_every_target(
    family: Family, data: st.DataObject, forms: tuple[Form, Form]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        opened = family.open(Path(folder))
        means = {role: family.means(role) for role in opened}
        cases: list[Case] = []
        for form, (one, other) in zip(forms, (("aligned", "unaligned"), ("finetuned", "aligned")), strict=True):
            place = Path(folder) / f"{one}-{other}"
            am.save_delta(opened[one] - opened[other], place, target=opened[other], form=form)
            stored = am.open_delta(place, target=opened[other])
            cases.append((stored, reference.subtract(means[one], means[other])))
        delta, meant = data.draw(expressions(cases))
        root = data.draw(st.sampled_from(sorted(opened)))
        expect(computed(opened[root] + delta, Path(folder) / "out"), family, root, meant, None)


@pytest.mark.parametrize("form", FORMS)
def test_tensors_of_several_pieces_are_whole_for_any_number_of_threads(tmp_path: Path, form: Form) -> None:
    base = normal(3, {"model.a.weight": (5_000_001,), "model.b.weight": (300, 700), "model.c.weight": (0, 4)})
    target = am.open(write(tmp_path / "base", base))
    patched = sparse_step(base, 0.01)
    delta = am.open(write(tmp_path / "patched", patched)) - target
    for threads in (1, 3):
        am.save_delta(delta, tmp_path / f"delta{threads}", target=target, form=form, threads=threads)
    one, three = ((tmp_path / f"delta{threads}" / DELTA_NAME).read_bytes() for threads in (1, 3))
    assert one == three
    assert len(one) < 4 * 5_300_000 * (0.03 if form == "sparse" else 1)
    stored = am.open_delta(tmp_path / "delta1", target=target)
    whole = computed(target + 0.5 * am.trim(delta, density=0.004), tmp_path / "whole")
    found = computed(target + 0.5 * am.trim(stored, density=0.004), tmp_path / "found")
    assert all(same_bits(found[name], value) for name, value in whole.items())
    assert am.norm(stored) == am.norm(delta)


def test_the_sparse_file_holds_indices_and_values_of_what_differs(
    pair: tuple[am.Checkpoint, am.Checkpoint], tmp_path: Path
) -> None:
    target, patched = pair
    saved = am.save_delta(patched - target, tmp_path / "delta", target=target, form="sparse")
    held = load_file(tmp_path / "delta" / DELTA_NAME)
    base, moved = load(tmp_path / "base"), load(tmp_path / "patched")
    changed = {name for name in base if not torch.equal(base[name], moved[name])}
    assert held.keys() == {f"{name}::{what}" for name in changed for what in ("indices", "values")}
    for name in changed:
        step = (moved[name] - base[name]).view(-1)
        places = torch.nonzero(step).view(-1)
        assert held[f"{name}::indices"].dtype == torch.int32
        assert torch.equal(held[f"{name}::indices"].long(), places)
        assert torch.equal(held[f"{name}::values"], step[places])
    record = saved.manifest.delta
    assert record is not None
    assert (record.form, record.target, record.tensors) == ("sparse", "base", len(changed))
    assert record.values == sum(value.numel() for name, value in held.items() if name.endswith("::values"))
    assert saved.manifest.expression == "(patched - base)"
    dense = am.save_delta(patched - target, tmp_path / "dense", target=target)
    assert saved.bytes < dense.bytes
    assert am.verify(tmp_path / "delta").files == 1
    stored = am.open_delta(tmp_path / "delta", target=target)
    assert am.explain(target + 0.5 * stored).expression == "base + 0.5 * delta(delta)"


def test_bfloat16_rounds_once_and_says_what_that_lost(
    pair: tuple[am.Checkpoint, am.Checkpoint], tmp_path: Path
) -> None:
    target, patched = pair
    saved = am.save_delta(patched - target, tmp_path / "delta", target=target, dtype="bfloat16")
    base, moved = load(tmp_path / "base"), load(tmp_path / "patched")
    held = load_file(tmp_path / "delta" / DELTA_NAME)
    for name, value in held.items():
        assert same_bits(value, (moved[name] - base[name]).bfloat16())
    exact = torch.cat([(moved[name] - base[name]).view(-1) for name in held])
    lost = torch.cat([value.float().view(-1) for value in held.values()]) - exact
    assert saved.manifest.rounding is not None
    assert saved.manifest.rounding.relative_error == pytest.approx(float(lost.norm() / exact.norm()), rel=1e-3)
    am.save_delta(patched - target, tmp_path / "sparse", target=target, form="sparse", dtype="bfloat16")
    dense, sparse = (am.open_delta(tmp_path / name, target=target) for name in ("delta", "sparse"))
    one, other = computed(target + dense, tmp_path / "one"), computed(target + sparse, tmp_path / "other")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("form", FORMS)
def test_a_delta_that_is_zero_everywhere_is_stored_and_changes_nothing(
    pair: tuple[am.Checkpoint, am.Checkpoint], tmp_path: Path, form: Form
) -> None:
    target, _ = pair
    saved = am.save_delta(target - target, tmp_path / "delta", target=target, form=form)
    assert saved.manifest.delta is not None
    assert (saved.manifest.delta.tensors, saved.manifest.delta.values) == (0, 0)
    found = computed(target + am.open_delta(tmp_path / "delta", target=target), tmp_path / "out")
    assert all(same_bits(found[name], value) for name, value in load(tmp_path / "base").items())


@pytest.mark.parametrize("form", FORMS)
def test_tied_copies_are_stored_once(tmp_path: Path, form: Form) -> None:
    base = normal(1, llama_shapes())
    base[HEAD] = base[EMBEDDING].clone()
    patched = near(base, 2)
    patched[HEAD] = patched[EMBEDDING].clone()
    target = am.open(write(tmp_path / "base", base, tie_word_embeddings=True))
    delta = am.open(write(tmp_path / "patched", patched, tie_word_embeddings=True)) - target
    am.save_delta(delta, tmp_path / "delta", target=target, form=form)
    names = {name.partition("::")[0] for name in load_file(tmp_path / "delta" / DELTA_NAME)}
    assert HEAD not in names
    assert EMBEDDING in names
    found = computed(target + am.open_delta(tmp_path / "delta", target=target), tmp_path / "out")
    assert same_bits(found[HEAD], found[EMBEDDING])
    assert same_bits(found[HEAD], base[HEAD] + (patched[HEAD] - base[HEAD]))
    one_name = {name: value for name, value in base.items() if name != EMBEDDING}
    other = am.open(write(tmp_path / "other", one_name, tie_word_embeddings=True))
    moved = computed(other + am.open_delta(tmp_path / "delta", target=target), tmp_path / "moved")
    assert same_bits(moved[HEAD], found[HEAD])


@pytest.mark.parametrize("form", FORMS)
def test_the_rows_that_a_larger_vocabulary_shares(tmp_path: Path, form: Form) -> None:
    base = normal(1, llama_shapes(vocabulary=12))
    target = am.open(write(tmp_path / "base", base))
    delta = am.open(write(tmp_path / "patched", near(base, 2))) - target
    am.save_delta(delta, tmp_path / "delta", target=target, form=form)
    stored = am.open_delta(tmp_path / "delta", target=target)
    larger = am.open(write(tmp_path / "larger", normal(3, llama_shapes(vocabulary=14))))
    with pytest.raises(MismatchError, match="resized vocabulary"):
        am.explain(larger + stored)
    whole = computed(larger + am.common_rows(delta), tmp_path / "whole")
    found = computed(larger + am.common_rows(stored), tmp_path / "found")
    assert all(torch.equal(found[name], value) for name, value in whole.items())


@pytest.mark.parametrize("form", FORMS)
def test_another_target_is_refused(pair: tuple[am.Checkpoint, am.Checkpoint], tmp_path: Path, form: Form) -> None:
    target, patched = pair
    am.save_delta(patched - target, tmp_path / "delta", target=target, form=form)
    wider = am.open(write(tmp_path / "wider", normal(1, llama_shapes(width=16))))
    with pytest.raises(MismatchError, match=r"delta is a delta on .*base, and .*wider is another by its headers"):
        am.open_delta(tmp_path / "delta", target=wider)
    with pytest.raises(MismatchError, match=r"which .*base lacks: open it with the same prefix"):
        am.open_delta(tmp_path / "delta", target=am.open(tmp_path / "base", prefix="language_model."))
    with pytest.raises(ParameterError, match="not the result of arithmetic"):
        am.open_delta(tmp_path / "delta", target=target + (patched - target))
    with pytest.raises(UnsupportedFormatError, match=r"is a stored delta \(delta\.safetensors\)"):
        am.open(tmp_path / "delta")


@pytest.mark.parametrize("form", FORMS)
def test_damaged_folders_are_refused(pair: tuple[am.Checkpoint, am.Checkpoint], tmp_path: Path, form: Form) -> None:
    target, patched = pair
    am.save_delta(patched - target, tmp_path / "delta", target=target, form=form)
    weights, manifest = tmp_path / "delta" / DELTA_NAME, tmp_path / "delta" / MANIFEST_NAME
    whole, told = weights.read_bytes(), json.loads(manifest.read_text())
    for length in (0, 5, 100, len(whole) - 1):
        weights.write_bytes(whole[:length])
        with pytest.raises(FileFormatError, match="truncated"):
            am.open_delta(tmp_path / "delta", target=target)
    weights.write_bytes(whole)
    for change, message in (
        ({"delta": told["delta"] | {"form": "folded"}}, "'dense' or 'sparse'"),
        ({"delta": None}, "does not say to what"),
        ({"delta": told["delta"] | {"target": "nobody"}}, "does not say to what"),
        ({"delta": told["delta"] | {"form": "sparse" if form == "dense" else "dense"}}, "save the delta again"),
    ):
        manifest.write_text(json.dumps(told | change))
        with pytest.raises(FileFormatError, match=message):
            am.open_delta(tmp_path / "delta", target=target)
    with pytest.raises(FileFormatError, match=r"has no delta\.safetensors"):
        am.open_delta(tmp_path / "base", target=target)


@pytest.mark.parametrize(
    "indices", [[3, 3, 9], [9, 3, 5], [-1, 3, 9], [3, 9, 128], [127, 0, 128], [3, 9, 1 << 30]], ids=str
)
def test_indices_that_do_not_increase_inside_the_tensor_are_refused(
    pair: tuple[am.Checkpoint, am.Checkpoint], tmp_path: Path, indices: list[int]
) -> None:
    target, patched = pair
    am.save_delta(patched - target, tmp_path / "delta", target=target, form="sparse")
    damaged = {f"{UP}::indices": torch.tensor(indices, dtype=torch.int32), f"{UP}::values": torch.ones(3)}
    save_file(damaged, tmp_path / "delta" / DELTA_NAME)
    stored = am.open_delta(tmp_path / "delta", target=target)
    with pytest.raises(FileFormatError, match="are not increasing places in 128 weights"):
        am.save(target + stored, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({f"{UP}::indices": torch.zeros(3, dtype=torch.int32)}, "lacks ::values"),
        ({f"{UP}::indices": torch.zeros(3), f"{UP}::values": torch.ones(3)}, "has indices of F32"),
        ({f"{UP}::indices": torch.zeros(2, dtype=torch.int64), f"{UP}::values": torch.ones(3)}, "values of \\[3\\]"),
        ({UP: torch.ones(3)}, "lacks ::indices"),
    ],
)
def test_tensors_that_are_no_sparse_pairs_are_refused(
    pair: tuple[am.Checkpoint, am.Checkpoint], tmp_path: Path, stored: Tensors, message: str
) -> None:
    target, patched = pair
    am.save_delta(patched - target, tmp_path / "delta", target=target, form="sparse")
    save_file(stored, tmp_path / "delta" / DELTA_NAME)
    with pytest.raises(FileFormatError, match=message):
        am.open_delta(tmp_path / "delta", target=target)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_not_finite_is_named(pair: tuple[am.Checkpoint, am.Checkpoint], tmp_path: Path, form: Form) -> None:
    target, patched = pair
    broken = load(tmp_path / "patched")
    broken[UP][0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match=rf"{UP} in .*broken.* holds NaN"):
        am.save_delta(am.open(write(tmp_path / "broken", broken)) - target, tmp_path / "out", target=target, form=form)
    large = {name: torch.full_like(value, 3.4e38) for name, value in load(tmp_path / "base").items()}
    delta = am.open(write(tmp_path / "large", large)) - target
    with pytest.raises(NonFiniteError, match="too large for BF16: write float32"):
        am.save_delta(delta, tmp_path / "out", target=target, form=form, dtype="bfloat16")
    with pytest.raises(NonFiniteError, match="overflows float32"):
        am.save_delta(4.0 * delta, tmp_path / "out", target=target, form=form)
    assert am.save_delta(delta, tmp_path / "huge", target=target, form=form).path.is_dir()
    assert not (tmp_path / "out").exists()
    am.save_delta(patched - target, tmp_path / "delta", target=target, form=form)
    held = load_file(tmp_path / "delta" / DELTA_NAME)
    name = UP if form == "dense" else f"{UP}::values"
    held[name].view(-1)[0] = torch.nan
    save_file(held, tmp_path / "delta" / DELTA_NAME)
    with pytest.raises(NonFiniteError, match=rf"{name} in delta/delta.safetensors holds NaN"):
        am.save(target + am.open_delta(tmp_path / "delta", target=target), tmp_path / "out")


def test_options_that_make_no_sense_are_refused(pair: tuple[am.Checkpoint, am.Checkpoint], tmp_path: Path) -> None:
    target, patched = pair
    delta = patched - target
    with pytest.raises(ParameterError, match="one of dense, sparse, not 'folded'"):
        am.save_delta(delta, tmp_path / "out", target=target, form="folded")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="float32, bfloat16, not 'float16'"):
        am.save_delta(delta, tmp_path / "out", target=target, dtype="float16")
    with pytest.raises(ParameterError, match="not the result of arithmetic"):
        am.save_delta(delta, tmp_path / "out", target=target + delta)
    with pytest.raises(OutputError, match="is one of the inputs"):
        am.save_delta(delta, tmp_path / "base", target=target, overwrite=True)
    am.save_delta(delta, tmp_path / "out", target=target)
    with pytest.raises(OutputError, match="not empty"):
        am.save_delta(delta, tmp_path / "out", target=target)
    am.save_delta(delta, tmp_path / "out", target=target, form="sparse", overwrite=True)
    assert am.open_delta(tmp_path / "out", target=target) != delta


def test_a_delta_of_private_models_is_private(pair: tuple[am.Checkpoint, am.Checkpoint], tmp_path: Path) -> None:
    target, patched = pair
    assert not am.save_delta(patched - target, tmp_path / "public", target=target).manifest.private
    mark_private(tmp_path / "patched", "a working file")
    assert am.save_delta(patched - target, tmp_path / "delta", target=target).manifest.private
    stored = am.open_delta(tmp_path / "delta", target=target)
    assert am.save_delta(0.5 * stored, tmp_path / "half", target=target).manifest.private
