"""Files of the user's own: CSV, TSV, JSON, plain lines; each thing that is wrong with one is one clear error."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignmend.errors import AlignmendError, FileFormatError, RecipeError
from alignmend.evaluation.suites import load_suite
from alignmend.evaluation.suites.tables import read_table


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_csv_with_a_byte_order_mark_quotes_and_line_ends_inside(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbfid,prompt,category\r\na,"say ""hi"", then\nleave",x\r\nb,plain,\r\n'
    first, second = load_suite(written(tmp_path, "s.csv", content)).prompts
    assert (first.id, first.text, first.category) == ("a", 'say "hi", then\nleave', "x")
    assert (second.id, second.text, second.category) == ("b", "plain", None)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("s.tsv", "prompt\tcategory\none, two\tx\n"),
        ("s.json", '[{"prompt": "one, two", "category": "x"}]'),
        ("s.json", '{"x": ["one, two"]}'),
        ("s.json", '{"prompt": "one, two", "category": "x"}\n'),
        ("s.jsonl", '{"prompt": "one, two", "category": "x"}'),
        ("s.jsonl.gz", gzip.compress(b'{"prompt": "one, two", "category": "x"}', mtime=0)),
    ],
)
def test_other_forms(name: str, content: str | bytes, tmp_path: Path) -> None:
    suite = load_suite(written(tmp_path, name, content))
    assert suite.name == "s"
    assert [(prompt.text, prompt.category) for prompt in suite.prompts] == [("one, two", "x")]


@pytest.mark.parametrize(("name", "content"), [("s.txt", "one\r\n\n two\n"), ("s.json", '["one", " two"]')])
def test_texts_alone(name: str, content: str, tmp_path: Path) -> None:
    assert [prompt.text for prompt in load_suite(written(tmp_path, name, content)).prompts] == ["one", " two"]


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0\ufeff"), min_size=1)


@given(st.lists(st.tuples(cells, cells), min_size=1))
def test_what_the_csv_writer_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "s.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("prompt", "note"), *rows])
    assert [(row["prompt"], row["note"]) for _, row in read_table(path)] == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.csv", b"", "the suite is empty"),
        ("s.csv", b"prompt\n", "the suite is empty"),
        ("s.csv", b"question,answer\nq,a\n", "line 2: column 'prompt' is missing; columns found: 'question', 'answer'"),
        ("s.csv", b'prompt\n"never closed\n', "line 2: broken quoting .unexpected end of data."),
        ("s.csv", b'prompt\n"closed" too early\n', "line 2: broken quoting"),
        ("s.csv", b"prompt,id\nyes, no, maybe\n", "line 2: 3 fields, but the header has 2 .'prompt', 'id'."),
        ("s.csv", b"prompt,id\nyes\n", "line 2: 1 fields, but the header has 2"),
        ("s.csv", b"prompt\ncaf\xe9\n", "not UTF-8 .byte 0xe9 at offset 10.; save the file as UTF-8"),
        ("s.csv", b"prompt,id\na,1\nb,1\n", "uses id '1' more than once"),
        ("s.txt", b"\n\n", "the suite is empty"),
        ("s.json", b"", "the suite is empty"),
        ("s.json", b"[]", "the suite is empty"),
        ("s.json", b"[1]", "row 1: an object or a text is needed, not int"),
        ("s.json", b'"text"', "JSON with a list or an object is needed, not str"),
        ("s.json", b'{"a": {"b": "c"}}', "'a', 'b': a list of texts is needed, not str"),
        ("s.json", b"{", "not JSON"),
        ("s.json", b"[" * 100_000, "not JSON"),
        ("s.jsonl.gz", b"\x1f\x8b\x08\x00", "not a whole gzip file"),
        ("s.jsonl.gz", b"plain", "not a whole gzip file"),
        ("s.xlsx", b"PK", "data of a suite ends in .jsonl, .ndjson, .json, .csv"),
    ],
)
def test_bad_files_say_what_is_wrong_and_where(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(AlignmendError, match=message):
        load_suite(written(tmp_path, name, content))


def test_a_missing_file_given_as_text(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="cannot be read"):
        load_suite(str(tmp_path / "none.jsonl"))


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "txt"])
def test_a_huge_prompt_is_kept_whole_and_limits_are_as_before(suffix: str, tmp_path: Path) -> None:
    limit, huge = csv.field_size_limit(), "x" * 200_000
    content = {"csv": f"prompt\n{huge}\n", "jsonl": json.dumps({"prompt": huge}), "txt": huge}[suffix]
    assert load_suite(written(tmp_path, f"s.{suffix}", content)).prompts[0].text == huge
    assert csv.field_size_limit() == limit


def test_language_and_split_choose(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "language": "en", "split": "x"},
        {"prompt": "b", "language": "vi", "split": "x"},
        {"prompt": "c"},
    ]
    path = written(tmp_path, "s.jsonl", "\n".join(map(json.dumps, rows)))
    assert [prompt.text for prompt in load_suite(path, language="vi").prompts] == ["b", "c"]
    assert {prompt.language for prompt in load_suite(path, language="vi").prompts} == {"vi"}
    assert [prompt.text for prompt in load_suite(path, split="x").prompts] == ["a", "b"]
    assert len(load_suite(path, split="all").prompts) == 3
    with pytest.raises(RecipeError, match=r"no prompt has split 'y'; splits found: 'x', None"):
        load_suite(path, split="y")


def test_the_origin_is_the_name_of_the_file_not_its_place(tmp_path: Path) -> None:
    path = written(tmp_path, "s.txt", "Hello\nhello \nbye\n")
    origin = load_suite(path).origin
    assert origin is not None
    assert origin.location == "s.txt"
    assert origin.notes == ("1 prompts repeat an earlier one; none was removed",)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"scoring": "choice", "answer": "A"}, "column 'choices' is None; scoring by choice needs 2 to 26 texts"),
        ({"scoring": "choice", "choices": ["x", "y"], "answer": "C"}, "column 'answer' is 'C'; it must be one of A, B"),
        ({"scoring": "code"}, "column 'test' is None; scoring by code needs Python there"),
        ({"scoring": "number"}, "column 'answer' is missing; scoring by number needs it"),
        ({"scoring": "taste"}, "column 'scoring' is 'taste'"),
    ],
)
def test_a_task_has_what_its_scoring_needs(row: dict[str, object], message: str, tmp_path: Path) -> None:
    path = written(tmp_path, "s.jsonl", json.dumps({"prompt": "p", **row}))
    with pytest.raises(FileFormatError, match=f"line 1: {message}"):
        load_suite(path)


def test_a_task_of_ones_own(tmp_path: Path) -> None:
    row = {"prompt": "p", "scoring": "choice", "choices": ["x", "y"], "answer": "B"}
    prompt = load_suite(written(tmp_path, "s.jsonl", json.dumps(row))).prompts[0]
    assert (prompt.scoring, prompt.answer) == ("choice", "B")
    assert prompt.extra == {"choices": ["x", "y"], "choice_form": "answer"}


def test_a_text_in_parquet_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    data = arrow.array([b"ok", b"\xff\xfe"], type=arrow.binary())
    text = arrow.Array.from_buffers(arrow.string(), 2, data.buffers())
    parquet.write_table(arrow.table({"prompt": text}), tmp_path / "s.parquet")
    with pytest.raises(FileFormatError, match=r"s\.parquet: a text in it is not UTF-8 .*write it anew as UTF-8"):
        read_table(tmp_path / "s.parquet")
