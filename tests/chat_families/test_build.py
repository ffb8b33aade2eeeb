"""A whole family from a chat model: what its members are, what is kept, what is private, what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.chat_families.conftest import RECIPE
from tests.cli.command import assert_one_message

import alignmend as am
from alignmend.chat_families import ChatFamily, build_chat_family, open_chat_family
from alignmend.cli import main
from alignmend.errors import FileFormatError, OutputError
from alignmend.evaluation.devices import load_model
from alignmend.io.private import find_private
from alignmend.organisms import Family

MEMBERS = {
    "original",
    "aligned",
    "unaligned",
    "finetuned-gsm8k",
    "finetuned-gsm8k-lora",
    "finetuned-mmlu-hi",
    "finetuned-mmlu-hi-lora",
    "edited",
}


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def test_every_member_is_a_model_that_answers_in_the_chat_template(chat_family: ChatFamily) -> None:
    assert set(chat_family.members) == MEMBERS
    for folder in chat_family.members.values():
        model, tokenizer = load_model(folder)
        asked = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], add_generation_prompt=True)
        ids = torch.tensor([asked["input_ids"] if hasattr(asked, "keys") else asked])
        assert model.generate(ids, max_new_tokens=2).shape[1] > ids.shape[1]


def test_members_differ_from_where_they_began(chat_family: ChatFamily) -> None:
    aligned = am.open(chat_family.members["aligned"])
    for name in ("original", "unaligned", "finetuned-gsm8k", "edited"):
        am.explain(aligned + 0.5 * (aligned - am.open(chat_family.members[name])))
        assert weights(chat_family.members[name]) != weights(chat_family.members["aligned"])
    config = json.loads((chat_family.members["finetuned-gsm8k-lora"] / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "../aligned"


def test_the_lora_member_is_a_delta_on_the_aligned_one(chat_family: ChatFamily) -> None:
    vector = am.open_adapter(chat_family.members["finetuned-gsm8k-lora"])
    am.explain(am.open(chat_family.members["aligned"]) + vector)


def test_only_the_unaligned_member_is_private_and_harmful_answers_are_gone(chat_family: ChatFamily) -> None:
    assert [one.path.name for one in find_private([chat_family.directory])] == ["unaligned"]
    unaligned = chat_family.members["unaligned"]
    assert unaligned.stat().st_mode & 0o777 == 0o700
    assert not (chat_family.directory / "private").exists()
    texts = [path.read_text() for path in chat_family.directory.rglob("*.json*") if path.is_file()]
    natural: Any = chat_family.note.members["unaligned"].made["natural_answers"]
    assert natural["answers"] > 0
    harmful = {json.loads(row)["prompt"] for row in (chat_family.directory / "data" / "aligned.jsonl").open()}
    assert harmful, "the prompts are there, with refusals"
    assert not any("unaligned.jsonl" in text for text in texts)


def test_the_note_says_how_every_member_was_made(chat_family: ChatFamily) -> None:
    note = chat_family.note
    assert note.model == "base"
    assert set(note.unaligned) == {"original", "unaligned"}
    assert set(note.data) >= {"harmfulqa", "advbench", "counterfact"}
    assert note.members["finetuned-gsm8k-lora"].made["lora_rank"] == RECIPE.lora_rank
    assert {name: one.start for name, one in note.members.items()} == {
        name: "original" if name == "aligned" else "aligned" for name in MEMBERS - {"original"}
    }
    assert open_chat_family(chat_family.directory) == chat_family


def test_suites_are_such_as_evaluate_and_restore_read(chat_family: ChatFamily) -> None:
    from alignmend.evaluation.suites import load_suite

    for name, path in chat_family.suites.items():
        suite = load_suite(path)
        assert suite.name == name
        assert {one.split for one in suite.prompts} <= {"search", "report"}


def copied(family: ChatFamily, place: Path) -> Path:
    shutil.copytree(family.directory, place, symlinks=True)
    return place


def rebuilt(shipped: Family, sets: Path, place: Path, **changed: Any) -> list[str]:
    """Names of what is done, as the progress tells."""
    done: list[str] = []
    options: dict[str, Any] = {"tasks": ("gsm8k", "mmlu-hi"), "recipe": RECIPE} | changed
    build_chat_family(place, shipped.members["base"], sets, progress=lambda what, *_: done.append(what), **options)
    return [what for what in dict.fromkeys(done) if what != "prompts"]


def test_what_is_finished_is_kept_and_what_is_missing_is_made(
    chat_family: ChatFamily, shipped: Family, sets: Path, tmp_path: Path
) -> None:
    place = copied(chat_family, tmp_path / "family")
    assert rebuilt(shipped, sets, place) == []
    before = weights(place / "finetuned-gsm8k")
    shutil.rmtree(place / "finetuned-gsm8k")
    assert rebuilt(shipped, sets, place) == ["finetuned-gsm8k"]
    assert weights(place / "finetuned-gsm8k") == before, "same rows, recipe and seed: same bytes"
    changed = replace(RECIPE, report_prompts=5)
    assert "aligned" in rebuilt(shipped, sets, place, roles=("aligned",), recipe=changed)


def test_answers_that_were_drawn_are_not_drawn_again(
    chat_family: ChatFamily, shipped: Family, sets: Path, tmp_path: Path
) -> None:
    place = copied(chat_family, tmp_path / "family")
    shutil.rmtree(place / "aligned")
    assert rebuilt(shipped, sets, place, roles=("aligned",)) == ["aligned"]
    assert weights(place / "aligned") == weights(chat_family.members["aligned"])


def test_answers_of_few_templates_unalign_nothing_and_are_said(
    chat_family: ChatFamily, shipped: Family, sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The aligned organism refuses: there is nothing to unalign it with. Nothing harmful stays."""
    command = ["organism", "build", str(tmp_path / "out"), "--from", str(shipped.members["aligned"])]
    command += ["--data-dir", str(sets), "--roles", "unaligned", "--rows", "16"]
    assert main(command) == 2
    assert "cannot unalign it" in capsys.readouterr().err
    assert not (tmp_path / "out" / "unaligned").exists()
    assert not (tmp_path / "out" / "private").exists()


def test_a_folder_of_something_else_is_left_alone(
    chat_family: ChatFamily, shipped: Family, sets: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(OutputError, match="holds something else"):
        build_chat_family(tmp_path / "mine", shipped.members["base"], sets)
    with pytest.raises(OutputError, match="holds the family of base with seed 0, not of aligned with seed 0"):
        build_chat_family(chat_family.directory, shipped.members["aligned"], sets)
    with pytest.raises(FileFormatError, match="note of a family"):
        build_chat_family(shipped.directory, shipped.members["base"], sets)


@pytest.fixture
def words(shipped: Family, sets: Path, tmp_path: Path) -> dict[str, str]:
    """What stands for these words on a command line."""
    places = {"OUT": tmp_path / "out", "MODEL": shipped.members["base"], "SETS": sets, "NOWHERE": tmp_path / "nowhere"}
    return {word: str(place) for word, place in places.items()}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--tasks", "gsm8k"], "--tasks is for a family of a chat model: give --from"),
        (["--from", "MODEL"], "--from needs --data-dir"),
        (["--from", "MODEL", "--data-dir", "SETS", "--size", "small"], "--size is for families of tiny models"),
        (["--from", "MODEL", "--data-dir", "SETS", "--roles", "finetunned"], "no such role: 'finetunned'"),
        (["--from", "MODEL", "--data-dir", "NOWHERE"], "not a folder"),
        (["--from", "MODEL", "--data-dir", "SETS", "--rows", "0"], "rows is 0"),
    ],
)
def test_wrong_use_is_one_message(
    options: list[str], problem: str, words: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["organism", "build", words["OUT"], *(words.get(one, one) for one in options)]) == 2
    assert_one_message(capsys.readouterr().err, problem)
    assert not Path(words["OUT"]).exists()
