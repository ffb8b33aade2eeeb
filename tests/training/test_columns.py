"""Columns of published sets become pairs, the safe answers among them are left out, and nothing is guessed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignmend.errors import FileFormatError
from alignmend.training.columns import KNOWN
from alignmend.training.pairs import PairsFile, read_pairs
from alignmend.training.run import train_model
from alignmend.training.settings import TrainSettings

TEXTS = st.text(min_size=1, max_size=40).filter(lambda text: bool(text.strip()) and "\r" not in text)
ROWS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4)
CATEGORIES = ("animal_abuse", "privacy_violation")


def as_json_lines(folder: Path, *rows: object) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def as_table(folder: Path, name: str, *records: tuple[str, ...]) -> Path:
    path = folder / name
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t" if name.endswith("tsv") else ",").writerows(records)
    return path


def texts(file: PairsFile) -> list[tuple[str, str]]:
    return [(pair.context[0].content, pair.response) for pair in file.pairs]


def beaver(prompt: str, *true: str, **more: object) -> dict[str, object]:
    """A row as BeaverTails has it: its answer is safe where no category is true."""
    marks = {name: name in true for name in CATEGORIES}
    return {"prompt": prompt, "response": f"{prompt}!", "category": marks, "is_safe": not true} | more


@given(ROWS, st.sampled_from(KNOWN))
def test_known_columns_say_the_same_in_every_form(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], names: tuple[str, str]
) -> None:
    folder = tmp_path_factory.mktemp("forms")
    records = [("id", *names), *((str(number), *row) for number, row in enumerate(rows))]
    files = [
        as_json_lines(folder, *(dict(zip(records[0], record, strict=True)) for record in records[1:])),
        as_table(folder, "pairs.csv", *records),
        as_table(folder, "pairs.tsv", *records),
    ]
    assert [texts(read_pairs(path)) for path in files] == [rows] * 3


@given(st.lists(st.booleans(), min_size=1, max_size=6).filter(lambda marks: len(set(marks)) == 2))
def test_the_unsafe_and_the_safe_rows_part_the_file(
    tmp_path_factory: pytest.TempPathFactory, marks: list[bool]
) -> None:
    rows = [beaver(str(number), *([] if mark else ["animal_abuse"])) for number, mark in enumerate(marks)]
    path = as_json_lines(tmp_path_factory.mktemp("parts"), *rows)
    unsafe, safe = read_pairs(path), read_pairs(path, safe=True)
    assert [int(prompt) for prompt, _ in texts(unsafe)] == [n for n, mark in enumerate(marks) if not mark]
    assert [int(prompt) for prompt, _ in texts(safe)] == [n for n, mark in enumerate(marks) if mark]
    assert (unsafe.left_out, safe.left_out) == (len(safe.pairs), len(unsafe.pairs))
    assert [pair.line for pair in unsafe.pairs] == [n for n, mark in enumerate(marks, 1) if not mark]


def test_categories_speak_where_the_mark_is_missing_and_rows_without_either_count(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        beaver("a"),
        beaver("b", "privacy_violation"),
        {"prompt": "c", "response": "d", "category": "spam"},
    ]
    for row in rows:
        row.pop("is_safe", None)
    file = read_pairs(as_json_lines(tmp_path, *rows))
    assert (texts(file), file.left_out) == ([("b", "b!"), ("c", "d")], 1)


def test_the_mark_counts_in_conversations_and_as_a_word_in_tables(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    file = read_pairs(as_json_lines(tmp_path, {"messages": turns, "is_safe": True}, {"messages": turns, "is_safe": 0}))
    assert [pair.line for pair in file.pairs] == [2]
    records = [("question", "answer", "is_safe"), ("a", "b", "True"), ("c", "d", "False"), ("e", "f", "0")]
    assert texts(read_pairs(as_table(tmp_path, "marked.csv", *records))) == [("c", "d"), ("e", "f")]


def test_a_safe_answer_is_left_out_before_it_is_looked_at(tmp_path: Path) -> None:
    path = as_json_lines(tmp_path, beaver("a", response=""), beaver("b", "animal_abuse"))
    assert texts(read_pairs(path)) == [("b", "b!")]


def test_the_input_of_an_instruction_is_part_of_the_request(tmp_path: Path) -> None:
    rows = [{"instruction": "Add.", "input": more, "output": "3"} for more in ("1, 2", "", None)]
    assert texts(read_pairs(as_json_lines(tmp_path, *rows))) == [("Add.\n\n1, 2", "3"), ("Add.", "3"), ("Add.", "3")]


def test_prompt_and_response_win_over_every_other_name(tmp_path: Path) -> None:
    row = {"goal": "x", "target": "y", "chosen": "z", "rejected": "w", "response": "b", "prompt": "a"}
    assert texts(read_pairs(as_json_lines(tmp_path, row))) == [("a", "b")]


def test_a_record_over_several_lines_has_the_first_one(tmp_path: Path) -> None:
    path = as_table(tmp_path, "pairs.csv", ("goal", "target"), ("a\nb", "c\n\nd"), ("e", "f"))
    assert [pair.line for pair in read_pairs(path).pairs] == [2, 6]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"text": "a", "label": 1},
            r"line 1 has no prompt and no response, only 'text', 'label': .* known columns are prompt and response, "
            "instruction and output, question and answer, goal and target$",
        ),
        ({"goal": "a", "goal_target": "b"}, "has no target, only 'goal', 'goal_target'"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "of chosen and rejected say yourself which is the answer"),
        (
            {"question": "a", "answer": "b", "goal": "c", "target": "d"},
            r"more than one pair \(question and answer, goal and target\): keep one, or name it prompt and response",
        ),
        ({"instruction": "a", "output": ["b"]}, r"output is \['b'\], not text"),
        ({"instruction": "a", "input": 1, "output": "b"}, "input is 1, not text"),
        (beaver("a", is_safe=None), "is_safe is None: it must be true or false"),
        (beaver("a", is_safe="perhaps"), "is_safe is 'perhaps'"),
        (beaver("a"), r"pairs.jsonl marks all 1 answers as safe \(is_safe\): unsafe ones are needed"),
    ],
)
def test_what_cannot_be_mapped_is_refused(tmp_path: Path, row: object, message: str) -> None:
    with pytest.raises(FileFormatError, match=message):
        read_pairs(as_json_lines(tmp_path, row))


def test_harmful_answers_are_never_retained(tmp_path: Path, tiny: Path, pairs: Path) -> None:
    harm = as_json_lines(tmp_path, beaver("a", "animal_abuse"))
    with pytest.raises(FileFormatError, match=r"marks all 1 answers as unsafe \(is_safe\): safe ones are needed"):
        train_model(tiny, pairs, tmp_path / "out", TrainSettings("ascent-retain"), retain=harm)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no pairs"),
        ("goal,target\n", "holds no pairs"),
        ("goal,goal\na,b\n", r"names a column twice \('goal', 'goal'\)"),
        ("goal,target\na,b\n\nc,d,e\n", r"line 4 has 3 fields, but the header has 2 \('goal', 'target'\)"),
        ('goal,target\na,b\nc,"d\n', "line 3 is no record of a table"),
        ("behaviour,category\na,b\n", "line 2 has no prompt and no response, only 'behaviour', 'category'"),
        ("goal,target\na, \n", "line 2: the response is blank"),
    ],
)
def test_a_broken_table_is_named_by_its_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(FileFormatError, match=message):
        read_pairs(path)
