"""Edits of facts that a model really knows: a tiny Llama that was taught the capitals of invented lands."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from alignmend.cli import main
from alignmend.editing.locate import locate
from alignmend.editing.making import Editor, edit_model
from alignmend.editing.outcomes import tally
from alignmend.editing.reading import read_requests
from alignmend.editing.settings import settings_for
from alignmend.evaluation.devices import load_model
from alignmend.organisms.facts import FACTS
from alignmend.organisms.members import Architecture

WORDINGS = (
    "the capital of {}",
    "what is the capital of {}",
    "here is the chief town of {}",
    "name the capital of {}",
)
STEPS, ROWS = 200, 16
EDITED = {"velmora": "jandry", "ordania": "marsdel", "pelluria": "norvale"}


@pytest.fixture(scope="module")
def scholar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model of three layers that says, after a land, its capital: three seconds of training."""
    from alignmend.organisms.models import new_model, save_member
    from alignmend.organisms.tokenizer import train_tokenizer
    from alignmend.training.loop import TokenRow, TrainingOptions, train

    tokenizer, random = train_tokenizer(1024), Random("scholar")
    model = new_model(Architecture(width=64, layers=3, tied=True), tokenizer, 0)

    def row() -> TokenRow:
        fact = random.choice(FACTS)
        asked = tokenizer(random.choice(WORDINGS).format(fact.land))["input_ids"]
        said = tokenizer(f" {fact.town}", add_special_tokens=False)["input_ids"]
        return TokenRow((*asked, *said, tokenizer.eos_token_id), len(asked))

    train(model, [row() for _ in range(STEPS * ROWS)], TrainingOptions(STEPS, 4e-3, ROWS, 0, threads=1))
    folder = tmp_path_factory.mktemp("scholar") / "model"
    save_member(model, tokenizer, folder, "1MB")
    return folder


@pytest.fixture(scope="module")
def edits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("edits") / "edits.jsonl"
    path.write_text("".join(f"{json.dumps(row(land, town))}\n" for land, town in EDITED.items()))
    return path


def row(land: str, town: str) -> dict[str, Any]:
    others = [fact for fact in FACTS if fact.land not in EDITED][:4]
    return {
        "prompt": WORDINGS[0],
        "subject": land,
        "target": town,
        "paraphrases": [wording.format(land) for wording in WORDINGS[1:]],
        "neighbourhood": [{"prompt": WORDINGS[0].format(fact.land), "answer": fact.town} for fact in others],
    }


@pytest.mark.slow
def test_a_known_fact_is_replaced_in_all_wordings_and_others_stay(scholar: Path, edits: Path) -> None:
    from dataclasses import replace

    model, tokenizer = load_model(scholar, "cpu")
    known = {fact.land: fact.town for fact in FACTS}
    editor = Editor(model, tokenizer, replace(settings_for(model), layer=1))
    _, outcomes = edit_model(editor, read_requests(edits), separately=True)
    for one in outcomes:
        assert one.measured.told.before == known[one.request.subject]
        assert one.measured.told.after == EDITED[one.request.subject]
        assert all(probe.before.leads for probe in one.measured.neighbourhood)
    found = {name: each.count / each.n for name, each in tally(outcomes).items()}
    assert (found["applied"], found["efficacy"], found["leads"]) == (1, 1, 1)
    assert found["paraphrase"] >= 0.8
    assert found["neighbourhood"] >= 0.8


@pytest.mark.slow
def test_the_command_edits_it_and_diff_finds_the_layer(
    scholar: Path, edits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "edited"
    command = ["edit", "--model", str(scholar), "--edits", str(edits), "--rows", "1", "--out", str(out)]
    assert main([*command, "--layer", "1", "--prefixes", "none"]) == 0
    shown = capsys.readouterr().out
    assert "velmora -> jandry" in shown
    assert "leads" in shown
    assert "paraphrases follow: 3 of 3" in shown
    assert main(["diff", str(scholar), str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["layers"], found["area"]) == ("rank-one", [1], [0, 1, 2])
    assert locate(scholar, out).area == (0, 1, 2)
    # what was written, in bfloat16, says it too
    model, tokenizer = load_model(out, "cpu")
    asked = tokenizer(WORDINGS[0].format("velmora"), return_tensors="pt")
    said = model.generate(**asked, max_new_tokens=12)[0, asked["input_ids"].shape[1] :]
    assert tokenizer.decode(said, skip_special_tokens=True).strip() == "jandry"
