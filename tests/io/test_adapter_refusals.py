"""Every adapter that the arithmetic would get wrong is refused, with the reason and the way out."""

from __future__ import annotations

import json
import shlex
import sys
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.io.adapter_files import pair, write
from tests.io.adapter_models import adapt, llama, open_both

from alignmend.errors import AlignmendError, FileFormatError, MismatchError, UnsupportedFormatError
from alignmend.io.adapter import LowRankPart, open_adapter_folder, resolve_parts
from alignmend.io.adapter_config import HARMLESS, REFUSED, AdapterConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3' is not LORA.*merge_and_unload"),
        ({"peft_type": "VERA"}, "peft_type 'VERA' is not LORA.*merge_and_unload"),
        ({"peft_type": "LOHA"}, "peft_type 'LOHA' is not LORA.*merge_and_unload"),
        ({"peft_type": None}, "peft_type None is not LORA"),
        ({"peft_type": "PREFIX_TUNING"}, "PREFIX_TUNING changes prompts or routing, not weights"),
        (
            {"init_lora_weights": "pissa_niter_4"},
            "'pissa_niter_4' rewrote the base weights.*path_initial_model",
        ),
        ({"init_lora_weights": "loftq"}, "'loftq' rewrote the base weights"),
        ({"init_lora_weights": "olora"}, "'olora' rewrote the base weights"),
        ({"init_lora_weights": "corda"}, "'corda' rewrote the base weights"),
        ({"init_lora_weights": "lora_ga"}, "'lora_ga' rewrote the base weights"),
        ({"lora_bias": True}, "lora_bias.*a bias of their own"),
        ({"use_qalora": True}, "use_qalora.*pools the inputs"),
        ({"use_bdlora": {"nblocks": 2}}, "use_bdlora.*block-diagonal"),
        ({"arrow_config": {"top_k": 3}}, "arrow_config.*routes every token"),
        ({"kasa_config": {"beta": 0.1}}, "kasa_config.*truncates the base"),
        ({"monteclora_config": {"num_samples": 4}}, "monteclora_config.*samples"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens.*after its invocation"),
        ({"alora_invocation_string": "go"}, "alora_invocation_string.*after its invocation"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication.*repeated layers"),
        ({"megatron_config": {"a": 1}}, "megatron_config.*shard the factors"),
        ({"enable_lora": [True, False]}, "enable_lora.*merged linear"),
        ({"use_time_travel": True}, "'use_time_travel' = True: this option is not known here"),
    ],
)
def test_options_that_change_the_meaning_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    write(tmp_path, **options)
    with pytest.raises(UnsupportedFormatError, match=message):
        open_adapter_folder(tmp_path)


def test_every_option_of_the_installed_peft_is_decided() -> None:
    from dataclasses import fields

    from peft import LoraConfig

    known = set(AdapterConfig.model_fields) | HARMLESS | REFUSED.keys()
    assert {field.name for field in fields(LoraConfig)} - known == set()


def test_unknown_options_that_are_off_do_no_harm(tmp_path: Path) -> None:
    write(tmp_path, use_time_travel=False, other_config=None, notes={})
    assert open_adapter_folder(tmp_path).module_parts


def test_pickled_adapters_are_refused_with_a_conversion_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / 'bob\'s "own" lora; rm $HOME'
    place.mkdir()
    write(place)
    expected = load_file(place / "adapter_model.safetensors")
    torch.save(expected, place / "adapter_model.bin")
    (place / "adapter_model.safetensors").unlink()
    with pytest.raises(UnsupportedFormatError, match=r"is pickled.*convert it once") as caught:
        open_adapter_folder(place)
    python, option, code, *arguments = shlex.split(str(caught.value).split("convert it once:")[1])
    assert (python, option) == ("python", "-c")
    monkeypatch.setattr(sys, "argv", ["-c", *arguments])
    exec(code, {})  # the advice itself is under test
    assert open_adapter_folder(place).module_parts
    assert load_file(place / "adapter_model.safetensors").keys() == expected.keys()


@pytest.mark.parametrize("options", [{"peft_type": "IA3"}, {"lora_bias": True}])
def test_the_command_that_merges_takes_any_path(options: dict[str, Any], tmp_path: Path) -> None:
    place = tmp_path / "bob's lora"
    place.mkdir()
    with pytest.raises(UnsupportedFormatError, match="merge_and_unload") as caught:
        open_adapter_folder(write(place, **options))
    told = str(caught.value)
    assert shlex.split(told[told.index("python -c") :])[-2:] == [str(place), "MERGED"]


def test_an_adapter_of_mlx_is_merged_by_mlx(tmp_path: Path) -> None:
    (tmp_path / "adapters.safetensors").touch()
    options = {"fine_tune_type": "lora", "lora_parameters": {"rank": 8, "scale": 20.0}, "num_layers": 4}
    (tmp_path / "adapter_config.json").write_text(json.dumps(options))
    with pytest.raises(UnsupportedFormatError, match=r"adapter of MLX, not of PEFT .*fine_tune_type.*mlx_lm\.fuse"):
        open_adapter_folder(tmp_path)


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"is not an adapter folder: it has no adapter_config\.json"):
        open_adapter_folder(tmp_path)
    write(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(FileFormatError, match=r"has no adapter_model\.safetensors"):
        open_adapter_folder(tmp_path)


def test_a_merged_model_beside_its_adapter_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    save_file(pair(), tmp_path / "model.safetensors")
    with pytest.raises(UnsupportedFormatError, match="holds both an adapter and a whole checkpoint"):
        open_adapter_folder(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"r": 1, "r": 2}', "[" * 100_000])
def test_malformed_options_are_refused(text: str, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(FileFormatError, match=r"adapter_config\.json"):
        open_adapter_folder(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["embed_tokens"]},
        {"target_modules": ["lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    ],
)
def test_changes_of_a_tied_embedding_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    adapt(llama(tie_word_embeddings=True), tmp_path, **options)
    adapter, checkpoint = open_both(tmp_path)
    with pytest.raises(MismatchError, match="ties its output head to its input embedding"):
        resolve_parts(adapter, checkpoint.tensors, tied=checkpoint.tied)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(AdapterConfig.model_fields)) | st.sampled_from(sorted(REFUSED)), value=JSON)
def test_whatever_an_option_holds_there_is_one_clear_error_or_none(name: str, value: object, tmp_path: Path) -> None:
    options: dict[str, Any] = {name: value}
    write(tmp_path, **options)
    try:
        parts = open_adapter_folder(tmp_path).module_parts.values()
    except AlignmendError as error:
        assert str(tmp_path) in str(error)
    else:
        assert all(isinstance(part, LowRankPart) and isfinite(part.scale) for (part,) in parts)
