"""A LoRA fine-tune answers by its own tokenizer and chat template, so what is made from it carries them."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cli.command import assert_one_message
from tests.fixtures_organisms import shipped
from tests.methods.tiny import contents

import alignmend as am
from alignmend.algebra.nodes import AdapterDelta
from alignmend.cli import main
from alignmend.errors import OutputError
from alignmend.evaluation.devices import load_model
from alignmend.execution.adapter_output import save_adapter
from alignmend.io.adapter import open_adapter_folder
from alignmend.io.manifest import read_manifest
from alignmend.organisms import Family
from alignmend.restore.opening import load, open_all

__all__ = ["shipped"]
TEMPLATE = "chat_template.jinja"
NOTE = "{# the fine-tune's own #}"


@pytest.fixture
def adapter(shipped: Family, tmp_path: Path) -> Path:
    """The shipped LoRA, with a template of other bytes and the same words."""
    folder = tmp_path / "adapter"
    shutil.copytree(shipped.members["finetuned-lora"], folder)
    with (folder / TEMPLATE).open("a") as file:
        file.write(NOTE)
    return folder


@pytest.fixture
def recipe(shipped: Family, adapter: Path, tmp_path: Path) -> str:
    """The fine-tune minus its own delta, which is a sum of adapters too."""
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"method: resta\nmodels: {{finetuned: {adapter}, aligned: {shipped.members['aligned']}, "
        f"unaligned: {shipped.members['finetuned-lora']}}}\nparameters: {{coefficient: 0.25}}\n"
    )
    return str(path)


def listed(out: Path) -> set[str]:
    return {output.file for output in read_manifest(out).outputs}


def model_of(adapter: Path, aligned: Path) -> am.Checkpoint:
    delta = am.open_adapter(adapter)
    assert isinstance(delta.node, AdapterDelta)
    return replace(am.open(aligned) + delta, speaker=open_adapter_folder(adapter))


def test_saving_writes_what_the_adapter_has(adapter: Path, shipped: Family, tmp_path: Path) -> None:
    aligned = shipped.members["aligned"]
    model = model_of(adapter, aligned)
    moved = model + 0.5 * am.open_adapter(adapter)
    am.save(moved, tmp_path / "out")
    save_adapter(moved, tmp_path / "as-adapter")
    am.save(am.open(aligned) + am.open_adapter(adapter), tmp_path / "plain")
    for name in (TEMPLATE, "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (adapter / name).read_bytes()
        assert (tmp_path / "as-adapter" / name).read_bytes() == (adapter / name).read_bytes()
        assert name in listed(tmp_path / "out") & listed(tmp_path / "as-adapter")
    assert (tmp_path / "out" / "generation_config.json").is_file()
    assert (tmp_path / "plain" / TEMPLATE).read_bytes() == (aligned / TEMPLATE).read_bytes()


def test_an_unfinished_output_goes_on_with_the_same_template_only(
    adapter: Path, shipped: Family, tmp_path: Path
) -> None:
    def interrupted(folder: Path) -> list[str]:
        raise KeyboardInterrupt

    model = model_of(adapter, shipped.members["aligned"])
    for place in ("same", "changed"):
        with pytest.raises(KeyboardInterrupt):
            am.save(model, tmp_path / place, completion=interrupted)
    am.save(model, tmp_path / "same", resume=True)
    (adapter / TEMPLATE).write_text("another")
    with pytest.raises(OutputError, match="other inputs"):
        am.save(model, tmp_path / "changed", resume=True)


@pytest.mark.parametrize("options", [[], ["--as-adapter"]], ids=["checkpoint", "adapter"])
def test_the_output_has_the_adapters_template_and_is_repeated(
    options: list[str], recipe: str, adapter: Path, tmp_path: Path
) -> None:
    for place in ("a", "b"):
        assert main(["apply", recipe, "--out", str(tmp_path / place / "out"), *options]) == 0
    out = tmp_path / "a" / "out"
    assert (out / TEMPLATE).read_bytes() == (adapter / TEMPLATE).read_bytes()
    assert contents(out) == contents(tmp_path / "b" / "out")
    assert main(["verify", str(out)]) == 0
    (out / TEMPLATE).write_text("another")
    assert main(["verify", str(out)]) == 2


@pytest.mark.parametrize("change", ["text", "gone", "older"])
@pytest.mark.parametrize("options", [[], ["--as-adapter"]], ids=["checkpoint", "adapter"])
def test_another_template_is_another_output(
    options: list[str], change: str, recipe: str, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = adapter.parent / "out"
    out = ["--out", str(place), *options]
    assert main(["apply", recipe, *out]) == 0
    assert main(["apply", recipe, *out, "--resume"]) == 0
    template, long_ago = adapter / TEMPLATE, 1_000_000_000
    if change == "gone":
        template.unlink()
    else:
        template.write_text(template.read_text() + NOTE)
    if change == "older":
        os.utime(template, (long_ago, long_ago))
    capsys.readouterr()
    assert main(["apply", recipe, *out, "--resume"]) == 2
    assert_one_message(capsys.readouterr().err, "not empty", "--overwrite")
    assert main(["apply", recipe, *out, "--overwrite"]) == 0
    written = place / TEMPLATE
    assert written.exists() == template.exists() == (change != "gone")
    assert not template.exists() or written.read_bytes() == template.read_bytes()


def test_a_template_alone_goes_with_the_bases_tokenizer(recipe: str, adapter: Path, tmp_path: Path) -> None:
    for path in adapter.glob("tokenizer*"):
        path.unlink()
    assert main(["apply", recipe, "--out", str(tmp_path / "out")]) == 0
    assert main(["apply", recipe, "--out", str(tmp_path / "again"), "--as-adapter"]) == 0
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    assert not (tmp_path / "again" / "tokenizer.json").exists()
    for folder in (tmp_path / "out", tmp_path / "again"):
        tokenizer = load_model(folder)[1]
        assert tokenizer.chat_template == (adapter / TEMPLATE).read_text()
        assert tokenizer("how much is one")["input_ids"]


@pytest.mark.parametrize("alone", [False, True], ids=["whole tokenizer", "template alone"])
@pytest.mark.parametrize("written", ["{adapter}", "~/adapter", "someone/adapter"], ids=["folder", "home", "hub"])
def test_a_restore_measures_by_the_template_that_it_writes(
    alone: bool, written: str, adapter: Path, shipped: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    if alone:
        for path in adapter.glob("tokenizer*"):
            path.unlink()
    monkeypatch.setenv("HOME", str(adapter.parent))
    monkeypatch.setattr("alignmend.io.hub._download", lambda location, revision: adapter)
    opened = open_all(written.format(adapter=adapter), str(shipped.members["aligned"]), None)
    _, tokenizer = load(opened, device="cpu", dtype="float32")
    assert tokenizer.chat_template == (adapter / TEMPLATE).read_text()
