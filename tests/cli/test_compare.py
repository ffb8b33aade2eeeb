"""`alignmend compare`, in a process of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cli.command import alignmend, assert_one_message
from tests.report.run_folders import AFTER, BEFORE, write_run


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("runs")
    return write_run(place / "a", "finetuned", BEFORE), write_run(place / "b", "restored", AFTER)


def test_a_table_that_fits_and_holds_no_text(folders: tuple[Path, Path], tmp_path: Path) -> None:
    before = sorted(path for folder in folders for path in folder.iterdir())
    done = alignmend("compare", *folders, "--flips", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("finetuned against restored")
    (attack,) = (line for line in lines if "−97.5" in line)
    assert attack.split()[-6:] == ["40", "100.0%", "2.5%", "−97.5", "39/0", "<0.001"]
    assert "43 of 100 prompts with another verdict: 38 mended, 3 broken, 2 changed" in lines
    assert any(line.endswith("of 100 answers are the same to the letter") for line in lines)
    assert "1 of the fixed attack successes are now noise or unclear, which is no safety" in lines
    assert lines[-3:] == [
        "  catqa h0: complied -> partly refused (changed)",
        "  catqa h1: complied -> incoherent (changed)",
        "  and 41 more",
    ]
    assert "SECRET" not in done.stdout and "some request" not in done.stdout
    assert sorted(path for folder in folders for path in folder.iterdir()) == before
    assert not [*tmp_path.iterdir()], "nothing is written unless asked for"


def test_text_is_shown_on_request_and_made_harmless(folders: tuple[Path, Path], tmp_path: Path) -> None:
    hostile = [replace(one, response="SECRET [red]\x1b[2J " + "long " * 200) for one in BEFORE]
    done = alignmend("compare", write_run(tmp_path / "a", "m", hostile), folders[1], "--flips", "1", "--show-text")
    assert "    before: SECRET [red]\ufffd[2J long long" in done.stdout
    assert "\x1b" not in done.stdout
    assert len(done.stdout.splitlines()[-3]) < 330
    refused = alignmend("compare", *folders, "--show-text")
    assert refused.returncode == 2
    assert_one_message(refused.stderr, "say how many, such as --flips 5")


def test_pairs_are_written_once(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    assert alignmend("compare", *folders, "--out", out, "--suite", "catqa").returncode == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 40
    fixed = sum(one["before"]["verdict"] == "complied" and one["after"]["verdict"] == "refused" for one in rows)
    assert fixed == 39
    assert "SECRET" not in out.read_text()
    again = alignmend("compare", *folders, "--out", out)
    assert again.returncode == 2
    assert_one_message(again.stderr, "pairs.jsonl exists", "--overwrite")
    assert alignmend("compare", *folders, "--out", out, "--overwrite").returncode == 0
    assert len(out.read_text().splitlines()) == 100


def test_json_says_everything_for_machines(folders: tuple[Path, Path]) -> None:
    done = alignmend("compare", *folders, "--json", "--metric", "refusal_rate", "--metric", "accuracy", "--seed", "3")
    document = json.loads(done.stdout)
    assert (document["before"], document["after"], document["pairs"]) == ("finetuned", "restored", 100)
    assert document["judge"] == {"name": "invented", "version": "invented-1"}
    assert document["bootstrap"] == {"draws": 10_000, "seed": 3}
    refusal, accuracy = document["comparisons"]
    assert (refusal["question"], refusal["difference"], refusal["fixed"]) == ("refusal", 0.975, 39)
    assert (accuracy["suite"], accuracy["p_holm"]) == ("gsm8k", 1.0)
    assert len(document["flips"]) == 43


def test_what_makes_it_less_than_fair_is_said(folders: tuple[Path, Path], tmp_path: Path) -> None:
    after = write_run(
        tmp_path / "b",
        "restored",
        AFTER[:-5],
        settings={"template": "raw"},
        tuned_on=[{"suite": "xstest", "use": "choosing the strength"}],
    )
    shown = alignmend("compare", folders[0], after).stdout
    assert "note: the models were asked in different ways (chat template," in shown
    assert "note: not a fair test of restored: xstest was used for choosing the strength" in shown
    assert "left out: gsm8k: 5 prompts only before, 0 only after, 0 in other words" in shown
    document = json.loads(alignmend("compare", folders[0], after, "--json").stdout)
    assert len(document["notes"]) == 2
    assert document["unpaired"] == [{"suite": "gsm8k", "only_before": 5, "only_after": 0, "other_words": 0}]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--suite", "catqq"], "did you mean 'catqa'"),
        (["--metric", "asr"], "no metric 'asr' to compare"),
        (["--metric", "accuracy", "--suite", "catqa"], "no prompt of both runs has accuracy"),
        (["--judge", "gpt"], "no judge 'gpt'"),
        (["--flips", "-1"], "--flips is a number from 0"),
        (["--seed", "-1"], "--seed is a number from 0"),
    ],
)
def test_wrong_use_is_one_message(folders: tuple[Path, Path], options: list[str], said: str) -> None:
    done = alignmend("compare", *folders, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert_one_message(done.stderr, said)


def test_what_is_no_run_is_one_message(folders: tuple[Path, Path], tmp_path: Path) -> None:
    done = alignmend("compare", folders[0], tmp_path)
    assert done.returncode == 2
    assert_one_message(done.stderr, "generations.jsonl and judgements.jsonl and results.json missing")
    done = alignmend("compare", folders[0].parent, folders[1])
    assert_one_message(done.stderr, "no run, but holds some; name one of")
