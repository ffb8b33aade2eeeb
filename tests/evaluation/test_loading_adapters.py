"""An adapter's folder answers like its merged model, from wherever it is asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.fixtures_organisms import shipped

import alignmend as am
from alignmend.errors import FileFormatError
from alignmend.evaluation.devices import load_model
from alignmend.organisms import Family

__all__ = ["shipped"]


def test_an_adapter_is_loaded_onto_the_base_beside_it(
    shipped: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, tokenizer = load_model(shipped.members["finetuned-lora"])
    merged = am.open(shipped.members["aligned"]) + am.open_adapter(shipped.members["finetuned-lora"])
    reference, _ = load_model(am.save(merged, tmp_path / "merged", dtype="float32").path)
    tokens = tokenizer("how much is four plus seven?", return_tensors="pt")
    with torch.inference_mode():
        torch.testing.assert_close(model(**tokens).logits, reference(**tokens).logits, atol=1e-4, rtol=1e-4)


def test_an_adapter_that_names_no_base_is_refused(shipped: Family, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(shipped.members["finetuned-lora"], folder)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    del config["base_model_name_or_path"]
    path.write_text(json.dumps(config))
    with pytest.raises(FileFormatError, match="names no base model"):
        load_model(folder)
