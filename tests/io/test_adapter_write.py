"""PEFT itself finds a sum of adapters, written as one adapter, equal to the dense sum of their merges."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tests.io.adapter_models import gpt2, llama, merged_by_peft, randomise, read
from torch import Tensor

from alignmend.algebra.low_rank import Factors, concatenate
from alignmend.errors import ParameterError, UnsupportedFormatError
from alignmend.io.adapter import AdapterFolder, low_rank_parts, open_adapter_folder
from alignmend.io.adapter_write import write_adapter_files

GAMMA = 0.5


def saved_adapter(model: Any, folder: Path, seed: int, **options: Any) -> AdapterFolder:
    adapted = get_peft_model(copy.deepcopy(model), LoraConfig(task_type="CAUSAL_LM", **options))
    randomise(adapted, seed)
    adapted.save_pretrained(folder)
    return open_adapter_folder(folder)


def factors_of(adapter: AdapterFolder) -> dict[str, Factors]:
    parts = low_rank_parts(adapter).items()
    return {module: Factors(read(part.a), read(part.b), part.scale) for module, part in parts}


def write_sum(path: Path, terms: list[tuple[float, AdapterFolder]], embeddings: tuple[str, ...] = ()) -> Path:
    summed = concatenate([(coefficient, factors_of(adapter)) for coefficient, adapter in terms])
    pairs = {module: (factors.a, factors.b) for module, factors in summed.items()}
    path.mkdir()
    write_adapter_files(path, pairs, terms[0][1].config, base="org/base", embeddings=embeddings)
    return path


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(torch.arange(12).reshape(2, 6)).logits
    return found


def two_adapters(model: Any, folder: Path) -> tuple[AdapterFolder, AdapterFolder]:
    """Of different ranks, scales and targets; some modules are in one only."""
    tuned = saved_adapter(
        model,
        folder / "tuned",
        1,
        r=4,
        lora_alpha=6,
        target_modules=["q_proj", "v_proj"],
        rank_pattern={"v_proj": 3},
    )
    harm = saved_adapter(
        model, folder / "harm", 2, r=2, lora_alpha=5, use_rslora=True, target_modules=["q_proj", "down_proj"]
    )
    return tuned, harm


def test_peft_gives_the_concatenated_adapter_the_logits_of_the_dense_sum(tmp_path: Path) -> None:
    model = llama()
    tuned, harm = two_adapters(model, tmp_path)
    written = write_sum(tmp_path / "sum", [(1.0, tuned), (-GAMMA, harm)])
    first, second = (merged_by_peft(model, adapter.path) for adapter in (tuned, harm))
    dense = copy.deepcopy(model)
    dense.load_state_dict(
        {name: weight + first[name] - GAMMA * second[name] for name, weight in model.state_dict().items()}
    )
    loaded = PeftModel.from_pretrained(copy.deepcopy(model), written).eval()
    torch.testing.assert_close(logits(loaded), logits(dense), rtol=0, atol=1e-5)
    torch.testing.assert_close(logits(loaded.merge_and_unload()), logits(dense), rtol=0, atol=1e-5)


def test_every_module_has_scale_one_and_one_rank_without_patterns(tmp_path: Path) -> None:
    model = llama()
    written = write_sum(tmp_path / "sum", [(1.0, a) for a in two_adapters(model, tmp_path)])
    loaded = PeftModel.from_pretrained(copy.deepcopy(model), written)
    layers = {name: module for name, module in loaded.named_modules() if hasattr(module, "lora_A")}
    assert {module.scaling["default"] for module in layers.values()} == {1.0}
    ranks = {name.rsplit(".", 1)[1]: module.r["default"] for name, module in layers.items()}
    assert ranks == {"q_proj": 6, "v_proj": 6, "down_proj": 6}
    config = json.loads((written / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 6
    assert config["rank_pattern"] == config["alpha_pattern"] == {}


def test_a_linear_combination_of_factors_is_not_the_sum_of_the_updates(tmp_path: Path) -> None:
    """PEFT's `linear` adds A's and B's separately; with a negative weight that is not task arithmetic."""
    model = llama()
    options: dict[str, Any] = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"]}
    tuned, harm = (saved_adapter(model, tmp_path / str(seed), seed, **options) for seed in (1, 2))
    first, second = (merged_by_peft(model, adapter.path) for adapter in (tuned, harm))
    name = "model.layers.0.self_attn.q_proj.weight"
    expected = first[name] - GAMMA * second[name]

    combined = PeftModel.from_pretrained(copy.deepcopy(model), tuned.path, adapter_name="tuned")
    combined.load_adapter(harm.path, "harm")
    combined.add_weighted_adapter(["tuned", "harm"], [1.0, -GAMMA], "linear", combination_type="linear")
    combined.set_adapter("linear")
    layer = combined.base_model.model.model.layers[0].self_attn.q_proj
    assert (layer.get_delta_weight("linear") - expected).abs().max() > 0.05

    ours = merged_by_peft(model, write_sum(tmp_path / "sum", [(1.0, tuned), (-GAMMA, harm)]))
    torch.testing.assert_close(ours[name], expected, rtol=0, atol=1e-5)


def test_embeddings_and_conv1d_survive_the_round_trip(tmp_path: Path) -> None:
    model = gpt2()
    adapter = saved_adapter(
        model, tmp_path / "one", 1, r=3, lora_alpha=4, target_modules=["wte", "c_attn"], fan_in_fan_out=True
    )
    written = write_sum(tmp_path / "sum", [(2.0, adapter)], embeddings=("transformer.wte",))
    before, after = merged_by_peft(model, adapter.path), merged_by_peft(model, written)
    for name, delta in before.items():
        torch.testing.assert_close(after[name], 2.0 * delta, rtol=0, atol=1e-5)


def test_a_written_adapter_opens_again_with_the_same_factors(tmp_path: Path) -> None:
    tuned, harm = two_adapters(llama(), tmp_path)
    again = open_adapter_folder(write_sum(tmp_path / "sum", [(1.0, tuned), (-GAMMA, harm)]))
    expected = concatenate([(1.0, factors_of(tuned)), (-GAMMA, factors_of(harm))])
    assert again.base == "org/base"
    for module, factors in factors_of(again).items():
        assert factors.scale == 1.0
        rank = expected[module].a.shape[0]
        assert torch.equal(factors.a[:rank], expected[module].a)
        assert torch.equal(factors.b[:, :rank], expected[module].b)
        assert not factors.a[rank:].any()
        assert not factors.b[:, rank:].any()


def test_the_written_options_keep_the_task_and_drop_what_no_longer_holds(tmp_path: Path) -> None:
    tuned, _ = two_adapters(llama(), tmp_path)
    config = json.loads((write_sum(tmp_path / "sum", [(1.0, tuned)]) / "adapter_config.json").read_text())
    assert config["task_type"] == "CAUSAL_LM"
    assert config["lora_alpha"] == config["r"]
    assert config["modules_to_save"] is None


@pytest.mark.parametrize(
    ("factors", "dtype", "message"),
    [
        ({}, "F32", "no factors"),
        ({"q": (torch.ones(2, 3), torch.ones(3, 1))}, "F32", "q: A .* share no rank"),
        ({"q": (torch.ones(1, 3), torch.ones(3, 1))}, "F64", "dtype is 'F64'"),
    ],
)
def test_unfit_factors_are_refused(
    factors: dict[str, tuple[Tensor, Tensor]], dtype: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ParameterError, match=message):
        write_adapter_files(tmp_path, factors, {}, base=None, dtype=dtype)
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_with_dense_parts_cannot_become_an_adapter_again(tmp_path: Path) -> None:
    adapter = saved_adapter(llama(), tmp_path / "one", 1, target_modules=["q_proj"], modules_to_save=["lm_head"])
    with pytest.raises(
        UnsupportedFormatError, match=r"holds a whole copy of the weight for lm_head\.weight, so the result cannot"
    ):
        low_rank_parts(adapter)
