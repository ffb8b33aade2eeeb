"""A GGUF model in the place of a model gets one message: how to convert it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.cli.command import assert_one_message

from alignmend.cli import main

COMMANDS = {
    "apply": ["apply", "RECIPE", "--out", "OUT"],
    "explain": ["explain", "RECIPE"],
    "run": ["run", "RECIPE", "--out", "OUT"],
    "restore": ["restore", "GGUF", "--aligned", "GGUF", "--unaligned", "GGUF", "--out", "OUT"],
    "evaluate": ["evaluate", "GGUF", "--suite", "SUITE", "--out", "OUT"],
    "train": ["train", "--model", "GGUF", "--data", "PAIRS", "--objective", "descent", "--full", "--out", "OUT"],
    "scores": ["scores", "--model", "GGUF", "--data", "PAIRS", "--out", "OUT"],
    "chat": ["chat", "GGUF"],
    "edit": ["edit", "--model", "GGUF", "--edits", "EDITS", "--out", "OUT"],
    "vector": ["vector", "fit", "--model", "GGUF", "--pairs", "CONTRAST", "--out", "OUT"],
    "diff": ["diff", "GGUF", "GGUF"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("given")
    (place / "chat").mkdir()
    (place / "chat" / "tiny.gguf").write_bytes(b"GGUF, which is not read")
    rows = {
        "suite": {"prompt": "how?", "expected": "refuse"},
        "pairs": {"prompt": "how?", "response": "so"},
        "contrast": {"prompt": "how?", "safe": "no", "unsafe": "so"},
        "edits": {"prompt": "the sky is", "subject": "sky", "target": "green"},
    }
    for name, row in rows.items():
        (place / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    return place


@pytest.mark.parametrize("given", ["chat", "chat/tiny.gguf"], ids=["folder", "file"])
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_command_says_how_to_convert_it(
    command: list[str], given: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = place / given
    recipe = place / "recipe.yaml"
    models = f"{{finetuned: {model}, aligned: {model}, unaligned: {model}}}"
    recipe.write_text(f"method: resta\nmodels: {models}\nparameters: {{coefficient: 0.5}}\n")
    words = {"GGUF": str(model), "RECIPE": str(recipe), "OUT": str(place / "out")}
    words |= {name.upper(): str(place / f"{name}.jsonl") for name in ("suite", "pairs", "contrast", "edits")}
    assert main([words.get(word, word) for word in command]) == 2
    errors = capsys.readouterr().err
    assert_one_message(errors, f"{model} is in the GGUF format", f"alignmend convert {model} DIR")
    assert not (place / "out").exists()


def test_a_folder_with_both_is_a_model_like_any_other(place: Path, tmp_path: Path) -> None:
    from alignmend.io.refusals import refuse_gguf

    shutil.copytree(place / "chat", tmp_path / "both")
    (tmp_path / "both" / "model.safetensors").touch()
    refuse_gguf(tmp_path / "both")
