from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from alignmend.cli import main
from alignmend.errors import MismatchError, MissingExtraError
from alignmend.evaluation.fingerprint import folder_fingerprint
from alignmend.evaluation.vllm_backend import VllmBackend


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vllm is installed")
def test_without_vllm_the_extra_is_named(model_folder: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'alignmend\[vllm\]'"):
        VllmBackend.from_folder(model_folder)


def test_weights_on_disk_are_told_apart(model_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in model_folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert folder_fingerprint(copy) == folder_fingerprint(model_folder)
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1000:] = bytes(1000)
    weights.write_bytes(content)
    assert folder_fingerprint(copy) != folder_fingerprint(model_folder)
    assert folder_fingerprint("org/one") != folder_fingerprint("org/two")


@pytest.mark.parametrize("option", ["--batch-size", "--device"])
def test_what_vllm_chooses_itself_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    value = {"--batch-size": "4", "--device": "cpu"}[option]
    command = ["evaluate", "org/model", "--vllm", option, value, "--suite", "starter-benign", "--out", "runs/none"]
    assert main(command) == 2
    assert f"{option} is not for --vllm" in capsys.readouterr().err


def test_an_adapter_of_too_high_a_rank_is_refused(tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "r": 600, "lora_alpha": 600, "target_modules": ["q_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(MismatchError, match="rank 600, and vLLM takes 512 at most: write it with --adapter-rank 512"):
        VllmBackend.from_folder(tmp_path)
