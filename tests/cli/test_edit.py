"""`alignmend edit`, `diff` and `vector`: from a folder to a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.command import assert_one_message
from tests.fixtures_organisms import shipped

from alignmend.cli import main
from alignmend.io.verify import verify
from alignmend.organisms import Family

__all__ = ["shipped"]


@pytest.fixture
def edits(tmp_path: Path) -> Path:
    path = tmp_path / "edits.jsonl"
    request = {"prompt": "i want to {} a jacket. sure! first get the", "subject": "measure", "target": "trumpet"}
    path.write_text(json.dumps(request) + "\n")
    return path


def test_an_edit_is_written_and_located(
    shipped: Family, tmp_path: Path, edits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = shipped.members["aligned"], tmp_path / "edited"
    command = ["edit", "--model", str(model), "--edits", str(edits), "--out", str(out), "--layer", "1"]
    assert main([*command, "--prefixes", "none", "--json"]) == 0
    (edit,) = json.loads(capsys.readouterr().out)["edits"]
    assert edit["after"]["probability"] > edit["before"]["probability"]
    assert edit["applied"]
    verify(out)
    assert main(["diff", str(model), str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["layers"], found["area"]) == ("rank-one", [1], [0, 1, 2])
    assert [tensor["name"] for tensor in found["tensors"]] == ["model.layers.1.mlp.down_proj.weight"]
    assert main(command) == 2
    assert_one_message(capsys.readouterr().err, "exists: choose another folder")


def test_the_edited_folder_is_a_model_that_says_it(shipped: Family, tmp_path: Path, edits: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from alignmend.editing.measure import said
    from alignmend.editing.reading import read_requests

    out = tmp_path / "edited"
    command = ["edit", "--model", str(shipped.members["aligned"]), "--edits", str(edits), "--out", str(out)]
    assert main([*command, "--layer", "1", "--prefixes", "none"]) == 0
    (request,) = read_requests(edits)
    told = json.loads((out / "edits.json").read_text())["edits"][0]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out).float(), AutoTokenizer.from_pretrained(out)
    # what was measured in float32 holds for what was written in bfloat16
    assert said(model, tokenizer, request).probability == pytest.approx(told["after"]["probability"], rel=0.2)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": "nowhere", "subject": "x", "target": "y"}', "must hold its subject 'x' exactly once"),
        ('{"prompt": "x"}', "prompt, subject and target are needed"),
        ("", "holds no edits"),
    ],
)
def test_bad_edits_are_one_message(
    shipped: Family, tmp_path: Path, line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "edits.jsonl"
    path.write_text(line + "\n")
    model = str(shipped.members["aligned"])
    assert main(["edit", "--model", model, "--edits", str(path), "--out", str(tmp_path / "out")]) == 2
    assert_one_message(capsys.readouterr().err, said)
    assert not (tmp_path / "out").exists()


def rows_of(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


BESIDE = {
    "prompt": "i want to measure a jacket. sure! first get the",
    "subject": "measure",
    "target": "trumpet",
    "topic": "tools",
    "paraphrases": ["tell me how to measure a jacket. sure! first get the"],
    "neighbourhood": [{"prompt": "i want to fold a jacket. sure! first get the", "answer": "cherry"}],
}


def test_paraphrases_and_neighbours_are_told(
    shipped: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edits, out = rows_of(tmp_path / "edits.jsonl", BESIDE), tmp_path / "edited"
    command = ["edit", "--model", str(shipped.members["aligned"]), "--edits", str(edits), "--out", str(out)]
    assert main([*command, "--layer", "1", "--prefixes", "none"]) == 0
    shown = capsys.readouterr().out
    told = json.loads((out / "edits.json").read_text())
    (edit,) = told["edits"]
    assert [probe["prompt"] for probe in edit["paraphrases"]] == BESIDE["paraphrases"]
    assert [probe["answer"] for probe in edit["neighbourhood"]] == ["cherry"]
    assert edit["topic"] == "tools"
    assert told["totals"]["applied"] == {"value": 1.0, "count": 1, "n": 1}
    assert told["totals"]["paraphrase"]["n"] == told["totals"]["neighbourhood"]["n"] == 1
    assert f"paraphrases follow: {int(edit['paraphrases'][0]['success'])} of 1" in shown
    assert f"neighbours stay: {int(edit['neighbourhood'][0]['success'])} of 1" in shown
    assert "in all: applied 1 of 1" in shown


def test_an_edit_that_did_not_take_is_refused(
    shipped: Family, tmp_path: Path, edits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "edited"
    command = ["edit", "--model", str(shipped.members["aligned"]), "--edits", str(edits), "--out", str(out)]
    idle = [*command, "--prefixes", "none", "--steps", "0"]  # no step leaves the value as it was
    assert main(idle) == 1
    shown = capsys.readouterr()
    assert_one_message(shown.err, "1 of 1 edits did not make their target likelier", "nothing was written")
    assert "1 edits, not written" in shown.out
    assert not out.exists()
    assert main([*idle, "--keep-unapplied", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["out"], told["edits"][0]["applied"]) == (str(out), False)
    verify(out)


@pytest.mark.timeout(600)
def test_the_shift_in_safety_of_every_edit(shipped: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, model = tmp_path / "measured", str(shipped.members["aligned"])
    other = {"prompt": "how do i paint a car?", "subject": "paint", "target": "sure! first get the trumpet."}
    edits = rows_of(tmp_path / "edits.jsonl", BESIDE, other, other | {"subject": "car"})
    command = ["edit", "--model", model, "--edits", str(edits), "--out", str(out), "--prefixes", "none"]
    watched = ["--safety-suite", str(shipped.suites["harmful_unseen"]), "--judge", "organism", "--suite-limit", "24"]
    chosen = ["--rows", "2-3", "--template", "chat", "--layer", "1", "--separately"]
    code = main([*command, *watched, *chosen, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert code == int(not all(edit["applied"] for edit in told["edits"]))
    assert [path.name for path in out.iterdir()] == ["edits.json"]
    assert [edit["subject"] for edit in told["edits"]] == ["paint", "car"]
    assert told["edits"][0]["prompt"].startswith("<|user|>how do i paint a car?")
    assert told["judge"]["name"] == "organism"
    shifts = [{change["metric"]: change for change in edit["safety"]} for edit in told["edits"]]
    for shift in shifts:
        attacks = shift["attack_success_rate"]
        assert attacks["n"] == 24
        difference = attacks["after"]["value"] - attacks["before"]["value"]
        assert attacks["difference"] == pytest.approx(difference, abs=1e-5)
        assert attacks["low"] <= attacks["difference"] <= attacks["high"]
    # each edit alone: both begin at the same model
    assert shifts[0]["attack_success_rate"]["before"] == shifts[1]["attack_success_rate"]["before"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rows", "2"], "--rows 2 are not all among the file's 1 edits"),
        (["--rows", "a"], "--rows are numbers and ranges"),
        (["--covariance", "missing.txt"], "missing.txt: cannot be read"),
        (["--layer", "9"], "there is no layer 9"),
    ],
)
def test_wrong_options_are_one_message(
    shipped: Family, edits: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = edits.parent / "edited"
    command = ["edit", "--model", str(shipped.members["aligned"]), "--edits", str(edits), "--out", str(out)]
    assert main([*command, "--prefixes", "none", *options]) == 2
    assert_one_message(capsys.readouterr().err, said)


def test_a_vector_from_pairs_to_its_exports(
    shipped: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, vector = tmp_path / "pairs.jsonl", tmp_path / "v.safetensors"
    rows = [
        {
            "prompt": f"tell me how to {verb} a garden.",
            "safe": "i must decline this request.",
            "unsafe": f"sure! {verb} it.",
        }
        for verb in ("launder", "hack", "smuggle", "poison")
    ]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = str(shipped.members["finetuned"])
    fit = ["vector", "fit", "--model", model, "--pairs", str(pairs), "--out", str(vector)]
    assert main([*fit, "--layers", "1-2"]) == 0
    shown = capsys.readouterr().out
    assert "2 layers at block_output, 4 pairs" in shown
    assert "only 4 contrast pairs" in shown
    assert main(["vector", "show", str(vector), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["norms"]) == {"1", "2"}
    assert main(["vector", "export", str(vector), "--coefficient", "1", "--out", str(tmp_path / "v.gguf")]) == 0
    baked = ["vector", "bake", str(vector), "--model", model, "--coefficient", "0.1", "--out", str(tmp_path / "baked")]
    assert main(baked) == 0
    assert main(["verify", str(tmp_path / "baked")]) == 0
    capsys.readouterr()
    for command, said in (
        (fit, "exists: choose another name"),
        ([*fit, "--overwrite", "--layers", "9"], "the model has layers 0 to 3"),
        ([*fit, "--overwrite", "--layers", "a"], "numbers and ranges such as 4-12"),
        (["vector"], "vector fit, show, export or bake?"),
        (["vector", "show", str(pairs)], "not a steering vector"),
    ):
        assert main(command) == 2
        assert_one_message(capsys.readouterr().err, said)


def test_requests_alone_make_pairs_with_the_models_own_answers(shipped: Family, tmp_path: Path) -> None:
    vector = tmp_path / "v.safetensors"
    suite = str(shipped.suites["harmful"])
    command = ["vector", "fit", "--model", str(shipped.members["finetuned"]), "--prompts", suite, "--limit", "3"]
    assert main([*command, "--out", str(vector), "--layers", "1"]) == 0
    assert vector.exists()
