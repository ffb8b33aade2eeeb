"""An error carries its parts, and its message is made of them."""

from __future__ import annotations

import pickle

import pytest

from alignmend.errors import AlignmendError, FileFormatError, ParameterError, RecipeError


@pytest.mark.parametrize(
    ("error", "message", "statement"),
    [
        (AlignmendError("a is wrong"), "a is wrong", "a is wrong"),
        (AlignmendError("a is wrong", advice="rename it"), "a is wrong: rename it", "a is wrong"),
        (AlignmendError("a is wrong;", advice="supply b"), "a is wrong; supply b", "a is wrong"),
        (FileFormatError("not JSON", where="f.json", advice="look"), "f.json: not JSON: look", "f.json: not JSON"),
        (ParameterError("is 0", option="epochs", where="line 3"), "line 3: epochs is 0", "line 3: epochs is 0"),
    ],
)
def test_the_message_is_where_option_problem_and_advice(error: AlignmendError, message: str, statement: str) -> None:
    assert (str(error), error.statement) == (message, statement)
    back = pickle.loads(pickle.dumps(error))
    assert (str(back), back.advice, back.where, back.option) == (message, error.advice, error.where, error.option)


def test_parts_stay_where_an_error_is_passed_on() -> None:
    error = ParameterError("is 0;", advice="give more", option="batch_size")
    moved = error.at("r.yaml, line 2", RecipeError)
    assert isinstance(moved, RecipeError)
    assert (str(moved), moved.advice) == ("r.yaml, line 2: batch_size is 0; give more", "give more")
    assert str(error.named("--train-batch-size")) == "--train-batch-size is 0; give more"
    error.add(" (kept)")
    assert str(error) == "batch_size is 0; give more (kept)"
    plain = AlignmendError("refused")
    plain.advise("leave it out")
    assert (str(plain), plain.advice) == ("refused; leave it out", "leave it out")
