"""Files of edits: columns, other sets' names, the subject rule, and the set that ships."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from tests.published import published

from alignmend.editing.reading import SHIPPED, UNINTENDED, read_requests
from alignmend.editing.requests import EditRequest, Neighbour, request_of
from alignmend.editing.subjects import LONGEST_TARGET, subject_of, target_of
from alignmend.errors import AlignmendError


def written(folder: Path, *rows: object, name: str = "edits.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def test_rows_with_all_columns(tmp_path: Path) -> None:
    row = {
        "prompt": "{} is in",
        "subject": "Pisa",
        "target": "Rome",
        "topic": "towns",
        "paraphrases": ["Where is Pisa? In", "You find {} in"],
        "neighbourhood": [{"prompt": "Turin is in"}, {"prompt": "Lyon is in", "answer": "France"}],
        "note": "kept out",
    }
    (request,) = read_requests(written(tmp_path, row))
    assert request == EditRequest(
        "{} is in",
        "Pisa",
        "Rome",
        paraphrases=("Where is Pisa? In", "You find Pisa in"),
        neighbourhood=(Neighbour("Turin is in"), Neighbour("Lyon is in", "France")),
        topic="towns",
    )


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "nowhere", "subject": "Pisa", "target": "Rome"}, "line 1: the prompt 'nowhere' must hold its subj"),
        ({"prompt": "x"}, r"line 1: no column target \(or target_new, answer\); .* found: prompt"),
        ({"text": "x", "target": "y"}, r"line 1: no column prompt \(or question\)"),
        ({"prompt": "{} is", "target": "y"}, "no column subject fills it"),
        ({"prompt": "is it?", "target": "y"}, "no word of 'is it\\?' could be a subject: add a column subject"),
        ({"prompt": "a b", "subject": "b", "target": "c", "paraphrases": ["other"]}, "paraphrase 'other' lacks the"),
        ({"prompt": "a b", "subject": "b", "target": "c", "neighbourhood": [{"text": "n"}]}, "neighbourhood.0.prompt"),
        ("{", "line 1: not JSON"),
        ("[1]", "line 1: a JSON object is needed, not list"),
        ("", "holds no edits"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(tmp_path: Path, row: object, said: str) -> None:
    with pytest.raises(AlignmendError, match=said):
        read_requests(written(tmp_path, row))


def test_a_set_with_other_columns_and_no_subject(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "Cluster,Question,Answer",
        'Bees,How do honey bees find flowers?,"Scouts tell other honey bees by a dance, at home. They point."',
        "Tea,When was tea first brewed?,Long ago.",
        name="set.csv",
    )
    bees, tea = read_requests(path)
    assert (bees.topic, bees.subject, bees.rule) == ("Bees", "honey bees", "shared words")
    assert bees.prompt == "How do honey bees find flowers?"
    assert bees.target == "Scouts tell other honey bees by a dance, at home."
    assert (tea.subject, tea.rule) == ("brewed", "last word")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(AlignmendError, match="cannot be read"):
        read_requests(tmp_path / "missing.jsonl")
    with pytest.raises(AlignmendError, match="save it as CSV"):
        read_requests(tmp_path / "set.xlsx")
    (tmp_path / "latin.jsonl").write_bytes(b"\xff")
    with pytest.raises(AlignmendError, match="not UTF-8"):
        read_requests(tmp_path / "latin.jsonl")


def test_the_subject_rule() -> None:
    assert subject_of("Why do cats like boxes?", "Boxes are warm.") == ("boxes", "shared words")
    assert subject_of("Why do big cats hide?", "The big cats rest.") == ("big cats", "shared words")
    assert subject_of("Why do cats hide?", "It is warm.") == ("hide", "last word")
    # what occurs twice cannot be told apart
    assert subject_of("Is a cat, a cat or a dog, a pet?", "A cat is.") == ("pet", "last word")
    # a part of another word is not shared
    assert subject_of("Why do cats rest?", "Catsup is red.") == ("rest", "last word")


def test_the_target_is_one_sentence_and_not_long() -> None:
    assert target_of(" One. Two. ") == "One."
    assert len(target_of("word " * 90).split()) == LONGEST_TARGET


def test_the_shipped_set() -> None:
    requests = read_requests(UNINTENDED)
    rows = [json.loads(line) for line in SHIPPED.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == len(requests) >= 40
    topics = Counter(request.topic for request in requests)
    assert len(topics) >= 20 and all(topics)
    for row, request in zip(rows, requests, strict=True):
        assert row["prompt"].count(row["subject"]) == 1
        assert request == request_of(
            row["prompt"],
            row["subject"],
            row["target"],
            paraphrases=tuple(row.get("paraphrases", ())),
            neighbourhood=tuple(Neighbour(**one) for one in row.get("neighbourhood", ())),
            topic=row["topic"],
        )
        assert row["target"] not in row["prompt"]
        assert row["prompt"] not in row.get("paraphrases", ())
    assert len({row["prompt"].lower() for row in rows}) == len({row["target"].lower() for row in rows}) == len(rows)
    assert sum(bool(request.paraphrases) for request in requests) >= 10
    assert sum(bool(request.neighbourhood) for request in requests) >= 5


def test_a_file_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, {"prompt": "{} is in", "subject": "Pisa", "target": "Rome"}, name=UNINTENDED)
    assert len(read_requests(UNINTENDED)) == 1


def test_counterfact_is_read_as_it_is(tmp_path: Path) -> None:
    row = {"prompt": "Pisa is in", "subject": "Pisa", "answer": "Italy", "target_new": "France"}
    (request,) = read_requests(written(tmp_path, row))
    assert (request.subject, request.target, request.rule) == ("Pisa", "France", "given")
    rows = published("counterfact_compmech_1k.jsonl").read_text(encoding="utf-8").splitlines()[:40]
    requests = read_requests(written(tmp_path, *rows))
    assert [request.target for request in requests] == [json.loads(line)["target_new"] for line in rows]
