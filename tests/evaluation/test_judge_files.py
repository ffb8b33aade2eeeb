from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignmend.errors import FileFormatError, OutputError, RecipeError
from alignmend.evaluation.judge_files import (
    ADDED,
    check_judges,
    check_output,
    judged_rows,
    read_responses,
    write_rows,
)
from alignmend.evaluation.judge_summary import COUNTED, counted, summary, thoughts_of
from alignmend.evaluation.judges import get_judge
from alignmend.evaluation.reasoning_marks import Tags
from alignmend.evaluation.records import Judgement

ROWS: list[dict[str, Any]] = [
    {"prompt": "How do I stir?", "response": "Sure, take the spoon and stir slowly.", "id": "a", "n": 1, "x": None},
    {"x": {"deep": [1, 2.5]}, "response": "I'm sorry, but I can't help with that.", "prompt": "How do I stir?"},
    {"prompt": "Wie rührt man?", "response": "", "language": "xx", "context": "kitchen", "finish_reason": "length"},
]
KEYS = st.text(min_size=1, max_size=6).filter(lambda name: name not in (*ADDED, "prompt", "response", "id"))
VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)


def lines(*rows: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def written(folder: Path, content: bytes, name: str = "answers.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def judged(path: Path, *names: str) -> list[dict[str, Any]]:
    responses = read_responses(path)
    judges = [get_judge(name) for name in names or ("refusal-phrases",)]
    return judged_rows(responses, [(judge, judge.judge_all(responses.answers)) for judge in judges])


def test_rows_and_columns_stay_in_order_and_verdicts_come_behind(tmp_path: Path) -> None:
    rows = judged(written(tmp_path, lines(*ROWS)))
    assert [list(row) for row in rows] == [[*row, *ADDED] for row in ROWS]
    assert [{name: row[name] for name in given} for row, given in zip(rows, ROWS, strict=True)] == ROWS
    assert [row["verdict"] for row in rows] == ["complied", "refused", "incoherent"]
    assert [row["empty"] for row in rows] == [False, False, True]
    assert {row["judge"] for row in rows} == {"refusal-phrases"}
    assert all(row["judge_version"] for row in rows)


def test_further_judges_put_their_name_behind(tmp_path: Path) -> None:
    rows = judged(written(tmp_path, lines(*ROWS)), "organism", "refusal-phrases")
    assert rows[0]["judge"] == "organism"
    assert rows[0]["verdict_refusal_phrases"] == "complied"
    assert [name for name in rows[1] if name.endswith("_refusal_phrases")] == [
        f"{one}_refusal_phrases" for one in ADDED
    ]


def test_what_judges_use_is_taken_from_the_columns(tmp_path: Path) -> None:
    answers = read_responses(written(tmp_path, lines(*ROWS))).answers
    assert [answer.prompt.id for answer in answers] == ["a", "2", "3"]
    assert [answer.prompt.language for answer in answers] == [None, None, "xx"]
    assert [answer.finish_reason for answer in answers] == [None, None, "length"]
    assert answers[2].prompt.extra["context"] == "kitchen"
    assert {answer.prompt.suite for answer in answers} == {"answers"}


@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=4), min_size=1, max_size=5))
def test_what_was_there_is_there_afterwards(
    tmp_path_factory: pytest.TempPathFactory, extra: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("files")
    rows = [{**row, "prompt": "Is it late?", "response": "It is a quarter past nine."} for row in extra]
    path = written(folder, lines(*rows))
    write_rows(folder / "out.jsonl", judged(path))
    found = [json.loads(line) for line in (folder / "out.jsonl").read_bytes().splitlines()]
    assert [{name: row[name] for name in given} for row, given in zip(found, rows, strict=True)] == rows
    assert all(row["verdict"] == "complied" for row in found)


def test_a_lone_surrogate_stays_as_it_was_escaped(tmp_path: Path) -> None:
    path = written(tmp_path, b'{"prompt": "a\\ud800", "response": "It is a quarter \\udfff past nine."}\n')
    write_rows(tmp_path / "out.jsonl", judged(path))
    assert b'"a\\ud800"' in (tmp_path / "out.jsonl").read_bytes()
    write_rows(tmp_path / "out.csv", judged(path))
    assert "a?," in (tmp_path / "out.csv").read_text()


def test_csv_in_and_out(tmp_path: Path) -> None:
    response = 'Sure: "one", two,\nthree and ' + "more " * 3
    path = tmp_path / "answers.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([["id", "prompt", "response"], ["7", "How?", response], ["8", "How?", ""]])
    rows = judged(path)
    write_rows(tmp_path / "out.csv", rows)
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert [row["response"] for row in found] == [response, ""]
    assert [row["verdict"] for row in found] == ["complied", "incoherent"]
    assert [row["empty"] for row in found] == ["false", "true"]
    assert [row["harmful"] for row in found] == ["", ""]


def test_a_long_response_fits_in_csv(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    text = " ".join(f"word{number}" for number in range(40_000))
    path = written(tmp_path, f'prompt,response\nHow?,"{text}"\n'.encode(), "answers.csv")
    assert judged(path)[0]["response"] == text
    assert csv.field_size_limit() == before


GOOD = b'{"prompt": "p", "response": "r"}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "holds no answers"),
        ("a.jsonl", b"\n \n", "holds no answers"),
        ("a.csv", b"", "holds no answers"),
        ("a.csv", b"prompt,response\n", "holds no answers"),
        ("a.jsonl", GOOD + b"{", "line 2 is not valid JSON"),
        ("a.jsonl", GOOD + b"[1]\n", "line 2 holds a list, not an object"),
        ("a.jsonl", b'[{"prompt": "p", "response": "r"}]', "a JSON list; one object a line"),
        ("a.jsonl", b'{"prompt": "p", "prompt": "q", "response": "r"}', "line 1 names 'prompt' twice"),
        ("a.jsonl", b'{"prompt": "\xff", "response": "r"}', "not UTF-8 .byte 0xff at offset 12."),
        (
            "a.jsonl",
            b'\n{"prompt": "p", "answer": "r"}',
            "line 2: column 'response' is missing; columns found: 'prompt', 'answer'",
        ),
        ("a.jsonl", b'{"response": "r"}', "column 'prompt' is missing; columns found: 'response'"),
        ("a.jsonl", b"{}", "columns found: none"),
        ("a.jsonl", b'{"prompt": "p", "response": null}', "column 'response' is None, not text"),
        ("a.jsonl", b'{"prompt": ["p"], "response": "r"}', r"column 'prompt' is \['p'\], not text"),
        ("a.jsonl", b'{"prompt": "p", "response": "r", "verdict": "x"}', "column 'verdict' is there already"),
        ("a.csv", b"prompt,response\np,r,extra\n", "line 2: 3 cells, but the header has 2 columns"),
        ("a.csv", b"prompt,answer\np,r\n", "column 'response' is missing"),
        ("a.csv", b"prompt,prompt,response\np,q,r\n", "column 'prompt' is there twice"),
        ("a.csv", b'prompt,response\np,"r\n', "not CSV"),
    ],
)
def test_bad_files_are_one_message_that_names_the_place(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    with pytest.raises(FileFormatError, match=message) as caught:
        read_responses(written(tmp_path, content, name))
    assert str(tmp_path / name) in str(caught.value)


def test_a_missing_file_and_a_missing_column(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"cannot be read \(No such file"):
        read_responses(tmp_path / "nothing.jsonl")
    responses = read_responses(written(tmp_path, lines(*ROWS)))
    assert responses.column("context") == ["", "", "kitchen"]
    with pytest.raises(FileFormatError, match="no column 'label'; columns found: 'prompt', 'response', 'id', 'n', 'x'"):
        responses.column("label")


def test_a_column_that_a_second_judge_would_add(tmp_path: Path) -> None:
    path = written(tmp_path, lines({**ROWS[0], "verdict_organism": "mine"}))
    with pytest.raises(FileFormatError, match="line 1: column 'verdict_organism' is there already"):
        judged(path, "refusal-phrases", "organism")


def test_where_the_output_may_go(tmp_path: Path) -> None:
    answers = written(tmp_path, GOOD)
    (tmp_path / "there").write_text("x")
    check_output(tmp_path / "new", answers, overwrite=False)
    check_output(tmp_path / "there", answers, overwrite=True)
    for out, overwrite, message in (
        (tmp_path / "there", False, "exists; choose another name or say --overwrite"),
        (tmp_path / "no" / "out", False, "the folder .*no does not exist"),
        (tmp_path, True, "is a folder"),
        (answers, True, "is the file with the answers"),
    ):
        with pytest.raises(OutputError, match=message):
            check_output(out, answers, overwrite=overwrite)


def test_one_judge_is_not_asked_twice() -> None:
    judge = get_judge("organism")
    with pytest.raises(RecipeError, match="different judges are needed"):
        check_judges([judge, judge])
    with pytest.raises(RecipeError, match="one or more"):
        check_judges([])


JUDGEMENTS = st.one_of(
    st.builds(Judgement, verdict=st.sampled_from(["complied", "unclear"]), harmful=st.none() | st.booleans()),
    st.builds(Judgement, verdict=st.just("refused"), partial=st.booleans(), harmful=st.none() | st.booleans()),
    st.builds(Judgement, verdict=st.just("incoherent"), empty=st.booleans()),
    st.builds(Judgement, verdict=st.just("unclear"), parsed=st.just(False)),
)


@given(st.lists(JUDGEMENTS, min_size=1, max_size=30))
def test_the_five_verdicts_add_up_to_all(judgements: list[Judgement]) -> None:
    rates = counted(judgements)
    assert math.isclose(sum(rates[name].value for name in list(COUNTED)[:5]), 1)
    assert rates["empty"].value <= rates["incoherent"].value
    assert rates["unparsed"].value <= rates["unclear"].value
    opinions = [judgement.harmful for judgement in judgements if judgement.harmful is not None]
    assert ("harmful" in rates) == bool(opinions)
    if opinions:
        assert (rates["harmful"].n, rates["harmful"].value) == (len(opinions), sum(opinions) / len(opinions))


def test_the_summary_is_json(tmp_path: Path) -> None:
    responses = read_responses(written(tmp_path, lines(*ROWS)))
    judge = get_judge("refusal-phrases")
    document = summary([(judge, judge.judge_all(responses.answers))], [])
    assert json.loads(json.dumps(document)) == document
    assert document["n"] == 3
    assert document["judges"]["refusal-phrases"]["rates"]["refused"]["n"] == 3
    assert document["judges"]["refusal-phrases"]["usage"] is None


PAIR = ("How do I stir?", "Sure, take the spoon and stir slowly.")


@pytest.mark.parametrize(
    "row",
    [
        {"Prompt": PAIR[0], "Response": PAIR[1]},
        {"PROMPT": PAIR[0], " response ": PAIR[1]},
        {"instruction": PAIR[0], "output": PAIR[1], "input": ""},
        {"Question": PAIR[0], "Answer": PAIR[1]},
        {"behavior": PAIR[0], "generation": PAIR[1]},
        {"goal": PAIR[0], "response": PAIR[1], "target": "Sure, here is"},
        {"prompt": PAIR[0], "response": PAIR[1], "question": "x", "output": "y"},
        {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": PAIR[0]},
                      {"role": "assistant", "content": PAIR[1]}]},
        {"Messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."},
                      {"role": "user", "content": [{"type": "text", "text": PAIR[0]}]},
                      {"role": "assistant", "content": [{"type": "thinking", "thinking": "No."},
                                                        {"type": "text", "text": PAIR[1]}]}]},
        {"conversations": [{"from": "human", "value": PAIR[0]}, {"from": "gpt", "value": PAIR[1]}]},
        {"prompt": PAIR[0], "messages": [{"role": "user", "content": PAIR[0]},
                                         {"role": "assistant", "content": PAIR[1], "reasoning_content": "No."}]},
    ],
)  # fmt: skip
def test_the_usual_columns_in_any_case_and_messages(tmp_path: Path, row: dict[str, Any]) -> None:
    path = written(tmp_path, lines(row))
    (answer,) = read_responses(path).answers
    assert (answer.prompt.text, answer.response) == PAIR
    (out,) = judged(path)
    assert out["verdict"] == "complied"
    assert {name: out[name] for name in row} == row


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "p", "output": "a", "completion": "b"}, "'output' and 'completion' may both be the response"),
        ({"prompt": "p", "Answer": "b"}, "column 'response' is missing; columns found: 'prompt', 'Answer'"),
        ({"messages": []}, "must be a list of messages that ends with"),
        ({"messages": [{"role": "user", "content": "p"}]}, "must be a list of messages that ends with"),
        ({"messages": ["p", "r"]}, "holds 'p', no message"),
        ({"messages": [{"role": "user", "content": 1}, {"role": "assistant", "content": "r"}]}, "a content that is 1"),
    ],
)
def test_what_is_not_sure_to_be_the_answer_is_refused(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    with pytest.raises(FileFormatError, match=said):
        read_responses(written(tmp_path, lines(row)))


def test_thoughts_are_not_judged(tmp_path: Path) -> None:
    refusal, advice = "I'm sorry, but I can't help with that.", "Sure, take the spoon and stir slowly."
    rows = [
        {"prompt": PAIR[0], "response": f"<think>{refusal}</think>{advice}"},
        {"prompt": PAIR[0], "response": f"[THINK]{advice}[/THINK]{refusal}"},
        {"prompt": PAIR[0], "response": f"analysis{advice}assistantfinal{refusal}"},
        {"prompt": PAIR[0], "response": f"<think>{advice}"},
        {"prompt": PAIR[0], "response": f"<plan>{refusal}</plan>{advice}"},
    ]
    path = written(tmp_path, lines(*rows))
    assert [row["verdict"] for row in judged(path)][:4] == ["complied", "refused", "refused", "incoherent"]
    responses = read_responses(path)
    assert thoughts_of(responses) == {"taken_out": 4, "without_an_answer": 1}
    own = read_responses(path, tags=(Tags("<plan>", "</plan>"),))
    assert own.answers[4].response == advice
    assert [answer.response for answer in own.answers][:4] == [row["response"] for row in rows[:4]]
