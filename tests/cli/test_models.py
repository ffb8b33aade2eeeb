"""`alignmend apply` on folders of `transformers`: it loads again, and computes what float64 arithmetic says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from tests.cli.models import ARCHITECTURES, TEMPLATE, load, load_tokenizer, logits, reference_logits, save_family
from tests.methods.tiny import read, resta_recipe

from alignmend.cli import main


@pytest.fixture(scope="module", params=ARCHITECTURES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    save_family(folder, request.param)
    return folder


def apply(folder: Path, *options: str, name: str = "out") -> Path:
    assert main(["apply", str(resta_recipe(folder)), "--out", str(folder / name), "--overwrite", *options]) == 0
    return folder / name


def test_logits_are_those_of_float64_arithmetic(family: Path) -> None:
    out = apply(family)
    expected = reference_logits(family, 0.5)
    torch.testing.assert_close(logits(load(out)), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(logits(load(family / "finetuned")), expected, rtol=1e-3, atol=1e-3)


def test_everything_beside_the_weights_is_carried(family: Path) -> None:
    out = apply(family)
    target = family / "finetuned"
    for path in target.iterdir():
        if path.suffix != ".safetensors" and not path.name.endswith(".index.json"):
            assert (out / path.name).read_bytes() == path.read_bytes(), path.name
    assert load_tokenizer(out).chat_template == TEMPLATE
    assert load_tokenizer(out)("the quick fox").input_ids == load_tokenizer(target)("the quick fox").input_ids
    assert load(out).generation_config.max_new_tokens == 7
    assert read(out).keys() == read(target).keys()


def test_verify_finds_one_flipped_bit(family: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = apply(family, name="flipped")
    assert main(["verify", str(out)]) == 0
    weights = out / "model.safetensors"
    whole = bytearray(weights.read_bytes())
    whole[-5] ^= 1
    weights.write_bytes(whole)
    capsys.readouterr()
    assert main(["verify", str(out)]) == 2
    assert "model.safetensors has other contents than were written (SHA-256 differs)" in capsys.readouterr().err


def test_the_card_is_a_card(family: Path) -> None:
    text = (apply(family) / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    card = yaml.safe_load(front)
    assert "base_model" not in card, "folders of this machine are no models of the hub"
    assert {"alignmend", "resta"} <= set(card["tags"])
    assert "2402.11746" in body and "coefficient: 0.5" in body
    assert str(family) not in front


def test_the_recipe_in_the_manifest_makes_the_same_weights_again(
    family: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = apply(family, "--set", "layer_coefficients={0: 0.5}", "--set", "output.dtype=float32")
    recipe = json.loads((out / "alignmend.json").read_text())["recipe"]
    (out / "again.yaml").write_text(yaml.safe_dump(recipe))
    again = ["apply", str(out / "again.yaml"), "--out", str(family / "again"), "--overwrite"]
    assert main(again) == 2, "an unaligned model is told by a hash"
    assert "give  --set models.unaligned=FOLDER" in capsys.readouterr().err
    assert main([*again, "--set", f"models.unaligned={family / 'unaligned'}"]) == 0
    assert (family / "again" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


@pytest.mark.parametrize("options", [("--set", "output.max_shard_size=4KB"), ("--threads", "3")])
def test_shards_and_threads_change_no_value(family: Path, options: tuple[str, ...]) -> None:
    plain = read(apply(family))
    other = apply(family, *options, name="other")
    assert all(torch.equal(tensor, plain[name]) for name, tensor in read(other).items())
    torch.testing.assert_close(logits(load(other)), logits(load(family / "out")), rtol=0, atol=0)


def test_a_bfloat16_output_is_within_one_rounding(family: Path) -> None:
    exact, rounded = read(apply(family)), read(apply(family, "--set", "output.dtype=bfloat16", name="rounded"))
    for name, tensor in exact.items():
        assert torch.equal(tensor.to(torch.bfloat16), rounded[name])
    assert json.loads((family / "rounded" / "config.json").read_text())["dtype"] == "bfloat16"


def test_fused_experts_are_three_dimensional_somewhere(tmp_path: Path) -> None:
    save_family(tmp_path, "gpt_oss")
    assert any(tensor.ndim == 3 for tensor in read(tmp_path / "aligned").values())
