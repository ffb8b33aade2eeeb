"""A GGUF model as a Hugging Face folder: the same model, with its tokenizer and its way to end an answer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conversion.gguf_models import TEMPLATE, tiny_llama, tokens, write_gguf

import alignmend as am
from alignmend.cli import main
from alignmend.conversion.gguf import convert_gguf
from alignmend.errors import AlignmendError, FileFormatError, OutputError, ParameterError, UnsupportedFormatError
from alignmend.io.verify import verify


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_llama()


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory, model: Any) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny-F32.gguf", model)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, model: Any) -> Path:
    return write_gguf(tmp_path_factory.mktemp("packed") / "tiny-Q8_0.gguf", model, quantized=True)


@pytest.fixture(scope="module")
def converted(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_gguf(gguf, tmp_path_factory.mktemp("out") / "tiny", dtype="float32").path


def loaded(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(3, 40).unsqueeze(0)).logits
    return found


def test_whole_weights_give_the_same_model(model: Any, converted: Path) -> None:
    made, _ = loaded(converted)
    assert torch.equal(logits(made), logits(model))
    assert made.get_input_embeddings().weight is made.get_output_embeddings().weight
    assert json.loads((converted / "config.json").read_text()).get("quantization_config") is None


def test_the_folder_is_a_checkpoint_like_any_other(converted: Path) -> None:
    assert am.open(converted).root.folder.config["model_type"] == "llama"
    assert verify(converted).contents_checked


def test_quantized_weights_are_those_that_the_blocks_stand_for(packed: Path, model: Any, tmp_path: Path) -> None:
    from gguf import GGMLQuantizationType, quants

    made = convert_gguf(packed.parent, tmp_path / "out", dtype="float32")
    assert "what that rounding lost stays lost" in made.notes[0]
    assert "Q8_0 (15 tensors)" in made.notes[0]
    name = "model.layers.0.mlp.up_proj.weight"
    blocks = quants.quantize(model.state_dict()[name].numpy(), GGMLQuantizationType.Q8_0)
    expected = quants.dequantize(blocks, GGMLQuantizationType.Q8_0)
    assert torch.equal(loaded(tmp_path / "out")[0].state_dict()[name], torch.from_numpy(expected))


@pytest.mark.parametrize(("dtype", "kind"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)])
def test_weights_are_rounded_once_to_the_dtype_asked_for(
    gguf: Path, model: Any, tmp_path: Path, dtype: Any, kind: torch.dtype
) -> None:
    convert_gguf(gguf, tmp_path / "out", dtype=dtype)
    found = loaded(tmp_path / "out")[0].state_dict()
    assert all(torch.equal(found[name], weight.to(kind)) for name, weight in model.state_dict().items())


def test_the_tokenizer_has_the_vocabulary_and_the_template(converted: Path) -> None:
    _, tokenizer = loaded(converted)
    assert tokenizer.convert_ids_to_tokens(range(len(tokenizer))) == tokens()
    assert tokenizer.chat_template == TEMPLATE
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
    )


def test_text_is_cut_as_the_vocabulary_was_learned(model: Any, converted: Path, tmp_path: Path) -> None:
    """smollm keeps every digit apart, so that the merge of two is never made; GPT-2 makes it."""
    assert loaded(converted)[1].tokenize("hi 12") == ["hi", "Ġ", "1", "2"]
    write_gguf(tmp_path / "gpt2.gguf", model, pre="gpt-2")
    made = convert_gguf(tmp_path / "gpt2.gguf", tmp_path / "gpt2")
    assert loaded(tmp_path / "gpt2")[1].tokenize("hi12") == ["hi", "12"]
    assert made.notes == []


def test_an_unknown_way_to_cut_text_is_told_and_a_tokenizer_can_be_given(
    model: Any, converted: Path, tmp_path: Path
) -> None:
    write_gguf(tmp_path / "odd.gguf", model, pre="viking")
    told = convert_gguf(tmp_path / "odd.gguf", tmp_path / "told")
    assert "does not know the way of 'viking'" in told.notes[0]
    given = convert_gguf(tmp_path / "odd.gguf", tmp_path / "given", tokenizer=converted)
    assert given.notes == []
    assert loaded(tmp_path / "given")[1].tokenize("12") == ["1", "2"]


@pytest.mark.parametrize(
    ("ends", "expected"), [({"eos": 2}, 2), ({"eos": 0}, [0, 2]), ({"eos": 0, "eot": 1}, [0, 1, 2])]
)
def test_an_answer_ends_where_file_or_template_end_it(
    model: Any, tmp_path: Path, ends: dict[str, int], expected: int | list[int]
) -> None:
    write_gguf(tmp_path / "tiny.gguf", model, ends=ends)
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == expected


def test_a_missing_template_is_told(model: Any, tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", model, template=None)
    assert "no chat template" in convert_gguf(tmp_path / "tiny.gguf", tmp_path / "out").notes[0]


def test_same_file_same_bytes(gguf: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        convert_gguf(gguf, tmp_path / name / "tiny")
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / name / "tiny").iterdir()} for name in ("one", "two"))
    assert one == two


def refused(problem: str, kind: type[AlignmendError], source: Path, out: Path, **options: Any) -> None:
    with pytest.raises(kind, match=problem):
        convert_gguf(source, out, **options)
    assert not out.exists()
    assert not [path for path in out.parent.iterdir() if "alignmend" in path.name]


def test_what_cannot_be_converted_is_said_and_leaves_nothing(model: Any, gguf: Path, tmp_path: Path) -> None:
    out = tmp_path / "places" / "out"
    out.parent.mkdir()
    refused("no such file or folder", FileFormatError, tmp_path / "nowhere", out)
    refused("holds no .gguf file", FileFormatError, out.parent, out)
    (tmp_path / "text.gguf").write_text("hello")
    refused("does not begin with GGUF", FileFormatError, tmp_path / "text.gguf", out)
    (tmp_path / "cut.gguf").write_bytes(gguf.read_bytes()[:3000])
    refused("is damaged or cut off", FileFormatError, tmp_path / "cut.gguf", out)
    shutil.copy(gguf, tmp_path / "big-00001-of-00003.gguf")
    refused("part 1 of 3 .*llama-gguf-split --merge", UnsupportedFormatError, tmp_path / "big-00001-of-00003.gguf", out)
    refused("holds 3 GGUF files: give the path of one", FileFormatError, tmp_path, out)
    strange = write_gguf(tmp_path / "strange.gguf", model, architecture="rwkv9")
    refused(
        "cannot read this model of architecture 'rwkv9'|cannot read its tokenizer", UnsupportedFormatError, strange, out
    )
    adapter = write_gguf(tmp_path / "adapter.gguf", model, kind="adapter")
    refused("a LoRA adapter, not a model", UnsupportedFormatError, adapter, out)
    partial = write_gguf(tmp_path / "partial.gguf", model, leave_out="layers.1.mlp.up_proj")
    refused("no tensor for 1 weights .*would be random", UnsupportedFormatError, partial, out)
    refused("dtype must be one of", ParameterError, gguf, out, dtype="int8")


def test_a_value_that_the_dtype_cannot_hold_is_refused(tmp_path: Path) -> None:
    large = tiny_llama(1)
    with torch.no_grad():
        large.model.layers[0].mlp.up_proj.weight[0, 0] = 1e6
    source = write_gguf(tmp_path / "large.gguf", large)
    with pytest.raises(FileFormatError, match=r"up_proj.weight has NaN or infinity as float16: convert to bfloat16"):
        convert_gguf(source, tmp_path / "out", dtype="float16")


def test_a_folder_that_is_taken_is_kept(gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(OutputError, match="not empty"):
        convert_gguf(gguf, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_the_command_says_what_was_written(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(packed), str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "tiny-Q8_0.gguf, unpacked, bfloat16" in told
    assert "stays lost" in told
    assert main(["convert", str(packed), str(tmp_path / "out"), "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"]["formats"]["Q8_0"] == 15
