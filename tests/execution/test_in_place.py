"""A model whose weights are switched in memory has the bits that `save` writes, and gets its own back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import save_file
from tests.checkpoints import load, near, normal, same_bits, write

import alignmend as am
from alignmend.algebra.opening import open_adapter
from alignmend.algebra.structure import resolve
from alignmend.errors import MismatchError, NonFiniteError
from alignmend.execution.held import Held, terms_of
from alignmend.execution.in_place import InPlace
from alignmend.organisms import Family

ROOM = 1 << 30
Models = dict[str, am.Checkpoint]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three bfloat16 checkpoints of one tiny Llama, the fine-tune and the unaligned model near the aligned one."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=40, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    place = tmp_path_factory.mktemp("in-place")
    found = {}
    for seed, name in enumerate(("aligned", "finetuned", "unaligned")):
        folder = place / name
        model.save_pretrained(folder)
        if seed:
            moved = near(load(folder), seed)
            save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
        found[name] = folder
    return found


@pytest.fixture
def models(folders: dict[str, Path]) -> Models:
    return {name: am.open(folder) for name, folder in folders.items()}


def loaded(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def resta(coefficient: float = 0.7, **more: Any) -> Callable[[Models], am.Checkpoint]:
    return lambda models: am.resta(
        finetuned=models["finetuned"], aligned=models["aligned"], unaligned=models["unaligned"],
        coefficient=coefficient, **more,
    )  # fmt: skip


def removal(coefficient: float = 2.0, **more: Any) -> Callable[[Models], am.Checkpoint]:
    return lambda models: am.harm_direction_removal(
        target=models["finetuned"], aligned=models["aligned"], harmful=models["unaligned"], coefficient=coefficient,
        **more,
    )  # fmt: skip


EXPRESSIONS: dict[str, Callable[[Models], am.Checkpoint]] = {
    "sum": resta(),
    "dropped": resta(density=0.5),
    "tilted": resta(layer_coefficients={0: 1.5, 1: 0.5}),
    "trimmed over the model": removal(),
    "trimmed in some layers": removal(layers=(1,), density=0.3),
    "another model": lambda models: models["aligned"],
    "nothing": lambda models: models["finetuned"],
}


@pytest.mark.parametrize("memory", [0, ROOM], ids=["from files", "held"])
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_switched_weights_are_those_that_save_writes(
    name: str, memory: int, folders: dict[str, Path], models: Models, tmp_path: Path
) -> None:
    wanted = EXPRESSIONS[name](models)
    model = loaded(folders["finetuned"])
    place = InPlace(model, models["finetuned"], memory=memory)
    place.switch(resta(0.3)(models))  # where it comes from makes no difference
    place.switch(wanted)
    written = load(am.save(wanted, tmp_path / "out").path)
    for tensor_name, tensor in model.state_dict().items():
        if tensor_name in written:
            assert same_bits(tensor, written[tensor_name].float()), tensor_name


@pytest.mark.parametrize("memory", [0, ROOM], ids=["from files", "held"])
@pytest.mark.parametrize(("dtype", "rounding"), [("bfloat16", "stochastic"), ("float32", "nearest")])
@pytest.mark.parametrize("held", [torch.float32, torch.bfloat16])
def test_rounding_is_that_of_save(
    *,
    dtype: str,
    rounding: Literal["nearest", "stochastic"],
    held: torch.dtype,
    memory: int,
    folders: dict[str, Path],
    models: Models,
    tmp_path: Path,
) -> None:
    wanted = resta()(models)
    model = loaded(folders["finetuned"], held)
    place = InPlace(model, models["finetuned"], memory=memory)
    place.switch(wanted)
    place.round_to(dtype, rounding, 3)
    place.switch(wanted)
    written = load(am.save(wanted, tmp_path / "out", dtype=dtype, rounding=rounding, seed=3).path)
    for name, tensor in model.state_dict().items():
        if name in written:
            assert same_bits(tensor, written[name].to(held)), name
    place.round_to(None)
    place.undo()
    assert place.differing() == []


@pytest.mark.parametrize("memory", [0, ROOM], ids=["from files", "held"])
def test_an_interrupted_switch_leaves_nothing_half_done(
    memory: int, folders: dict[str, Path], models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = resta()(models)
    model = loaded(folders["finetuned"])
    place = InPlace(model, models["finetuned"], memory=memory, threads=2)
    start, left = threading.Thread.start, [1]

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        if left and left.pop():
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            place.switch(wanted)
    assert place.differing() == []
    place.switch(wanted)
    written = load(am.save(wanted, tmp_path / "out").path)
    for name, tensor in model.state_dict().items():
        if name in written:
            assert same_bits(tensor, written[name].float()), name


@pytest.mark.parametrize("memory", [0, ROOM], ids=["from files", "held"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_first_weights_come_back_bit_for_bit(
    dtype: torch.dtype, memory: int, folders: dict[str, Path], models: Models
) -> None:
    model = loaded(folders["finetuned"], dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    place = InPlace(model, models["finetuned"], memory=memory)
    for make in EXPRESSIONS.values():
        place.switch(make(models))
    assert place.undo().tensors > 0 or not place.differing()
    assert all(same_bits(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert place.differing() == []


def test_what_is_there_already_is_left_alone(folders: dict[str, Path], models: Models) -> None:
    place = InPlace(loaded(folders["finetuned"]), models["finetuned"])
    assert place.switch(removal(layers=(1,))(models)).tensors < place.switch(resta()(models)).tensors
    assert place.switch(resta()(models)).tensors == 0


def test_differing_names_what_is_elsewhere(folders: dict[str, Path], models: Models) -> None:
    place = InPlace(loaded(folders["finetuned"]), models["finetuned"])
    place.switch(removal(names=("model.norm.weight",), density=1.0)(models))
    assert place.differing() == ["model.norm.weight"]


def test_room_for_one_direction_serves_many(folders: dict[str, Path], models: Models) -> None:
    model = loaded(folders["finetuned"])
    weights = sum(tensor.numel() for tensor in load(folders["finetuned"]).values())
    place = InPlace(model, models["finetuned"], memory=7 * weights)  # the target at 2 bytes, one direction at 4
    reference = loaded(folders["finetuned"])
    other = InPlace(reference, models["finetuned"])
    for make in (resta(0.2), removal(1.0), resta(0.9), removal(3.0)):
        place.switch(make(models))
        other.switch(make(models))
        pairs = zip(model.state_dict().values(), reference.state_dict().values(), strict=True)
        assert all(same_bits(*pair) for pair in pairs)


def test_directions_keep_to_their_budget_and_the_longest_unused_goes_first(tmp_path: Path) -> None:
    size = 64
    entries = {
        name: am.open(write(tmp_path / name, {"w": torch.full((size,), float(value))}))
        for value, name in enumerate("abcd")
    }
    target = entries["a"]
    plans = {name: resolve(target + (entries[name] - target)).tensors[0] for name in "bcd"}
    wanted = {name: [(plan.entry, plan.change)] for name, plan in plans.items()}
    held = Held(budget=3 * 4 * size, threads=1)  # the target and two directions
    for name in ("b", "c", "b", "d"):
        assert held.fetch(wanted[name])
        assert held.bytes <= held.budget
    assert held.bytes == held.budget
    kept = {entry_direction[1] for entry_direction in held._directions}
    changes = [plans[name].change for name in "bd"]
    assert kept == {terms_of(change)[0].direction for change in changes if change is not None}


def test_an_adapter_is_merged_as_save_merges_it(shipped: Family, tmp_path: Path) -> None:
    aligned = am.open(shipped.members["aligned"])
    finetuned = aligned + open_adapter(shipped.members["finetuned-lora"], base=aligned)
    model = loaded(shipped.members["aligned"])
    place = InPlace(model, finetuned, memory=ROOM)
    written = load(am.save(finetuned, tmp_path / "merged").path)
    assert all(same_bits(model.state_dict()[name], tensor.float()) for name, tensor in written.items())
    place.switch(aligned)
    place.undo()
    assert all(same_bits(model.state_dict()[name], tensor.float()) for name, tensor in written.items())


def test_other_shapes_are_refused_before_anything_changes(
    folders: dict[str, Path], models: Models, tmp_path: Path
) -> None:
    other = am.open(write(tmp_path / "other", normal(1, {"model.norm.weight": (8,)})))
    model = loaded(folders["finetuned"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    place = InPlace(model, models["finetuned"])
    with pytest.raises(MismatchError, match=r"model\.norm\.weight is \[16\] in the model and \[8\] in other"):
        place.switch(other)
    assert all(same_bits(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_model_that_files_do_not_name_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    part = am.open(write(tmp_path / "part", normal(1, {"model.norm.weight": (16,)})))
    with pytest.raises(MismatchError, match=r"tensors that its files do not name \(model\.embed_tokens\.weight"):
        InPlace(loaded(folders["finetuned"]), part)


@pytest.mark.parametrize("memory", [0, ROOM], ids=["from files", "held"])
def test_a_model_that_met_nan_has_its_first_weights(
    memory: int, folders: dict[str, Path], models: Models, tmp_path: Path
) -> None:
    tensors = load(folders["unaligned"])
    tensors["model.norm.weight"][3] = float("nan")
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "config.json").write_bytes((folders["unaligned"] / "config.json").read_bytes())
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    place = InPlace(loaded(folders["finetuned"]), models["finetuned"], memory=memory)
    place.switch(resta()(models))
    with pytest.raises(NonFiniteError, match=r"model\.norm\.weight in broken/model\.safetensors holds NaN"):
        place.switch(resta()({**models, "unaligned": am.open(folder)}))
    assert place.differing() == []
