"""Damaged files of a model are named in one message; code that comes with a model is never run, and nobody is asked."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cli.models import save_family
from tests.test_house import SOURCE

from alignmend.errors import FileFormatError
from alignmend.evaluation.devices import load_model

Harm = Callable[[Path], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("family")
    save_family(folder, "llama")
    return folder / "aligned"


@pytest.fixture
def model(whole: Path, tmp_path: Path) -> Path:
    """Links to the weights, copies of the rest."""
    folder = tmp_path / "model"
    folder.mkdir()
    for path in whole.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def text(name: str, content: str | bytes) -> Harm:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def field(name: str, **changed: Any) -> Harm:
    def harm(folder: Path) -> None:
        said = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(said | changed))

    return harm


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is not valid JSON"),
        ('{"a": ', "is not valid JSON"),
        ("[]", "holds a list, not an object"),
        ("null", "holds a NoneType, not an object"),
        ("7", "holds a int, not an object"),
        (b"\xff\xfe{}", "is not UTF-8"),
        ("[" * 100_000, "is nested too deeply"),
    ],
)
def test_a_damaged_file_is_named(model: Path, name: str, content: str | bytes, said: str) -> None:
    text(name, content)(model)
    with pytest.raises(FileFormatError, match=rf"model/{name} {said}.*download it anew"):
        load_model(model, "cpu")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (text("tokenizer.json", "{}"), "KeyError: 'added_tokens'"),
        (
            field("tokenizer.json", model={"type": "BPE", "vocab": {"a": 0}, "merges": ["a b c"]}),
            "transformers can load",
        ),
        (field("tokenizer_config.json", eos_token=7), "eos_token has to be either str or AddedToken"),
        (field("tokenizer_config.json", model_max_length="x"), "model_max_length must be a number, not 'x'"),
        (field("tokenizer_config.json", extra_special_tokens=7), "extra_special_tokens"),
        (field("config.json", num_attention_heads=0), "transformers can load"),
        (field("config.json", rope_parameters={"rope_type": "x"}), "KeyError: 'x'"),
        (field("config.json", hidden_act="x"), "KeyError: 'x'"),
        (field("config.json", vocab_size="many"), "expected int, got str"),
        (field("config.json", hidden_size=32), "its weights have other shapes than its config.json says"),
        (field("config.json", model_type="../../x"), "does not recognize this architecture"),
        (field("generation_config.json", eos_token_id="x"), "eos_token_id must be the number of a token, not 'x'"),
        (field("generation_config.json", eos_token_id=[1.5]), r"must be the number of a token, not \[1.5\]"),
        (field("generation_config.json", temperature="hot"), "temperature must be a number, not 'hot'"),
    ],
)
def test_what_the_library_makes_of_odd_values_is_one_message(model: Path, harm: Harm, said: str) -> None:
    harm(model)
    with pytest.raises(FileFormatError, match=said) as told:
        load_model(model, "cpu")
    assert "\n" not in str(told.value) and str(model) in str(told.value)


def with_code(folder: Path) -> None:
    """A model of an architecture that only its own code knows; the code would leave a trace."""
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass OwnConfig: pass\nclass Own: pass\n")
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"}
    field("config.json", model_type="own", auto_map=own)(folder)
    field("tokenizer_config.json", tokenizer_class="Own", auto_map={"AutoTokenizer": ["own.Own", None]})(folder)


def test_code_that_comes_with_a_model_is_never_run_and_nobody_is_asked(model: Path) -> None:
    with_code(model)
    code = f"from alignmend.evaluation.devices import load_model\nload_model({str(model)!r}, 'cpu')"
    ended = subprocess.run([sys.executable, "-c", code], input="y\ny\ny\n", capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "it can only be loaded by code that comes with it, which is never run" in ended.stderr.splitlines()[-1]
    assert "[y/N]" not in ended.stdout + ended.stderr
    assert not (model / "ran").exists()


def test_code_beside_an_architecture_that_is_known_is_left_alone(model: Path) -> None:
    with_code(model)
    field("config.json", model_type="llama")(model)
    field("tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")(model)
    assert type(load_model(model, "cpu")[0]).__name__ == "LlamaForCausalLM"
    assert not (model / "ran").exists()


def test_every_call_that_loads_refuses_code() -> None:
    loaders = {"from_pretrained", "from_config"}
    for module in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in loaders:
                said = {each.arg: ast.unparse(each.value) for each in node.keywords}
                assert said.get("trust_remote_code") == "False", f"{module}:{node.lineno}"
