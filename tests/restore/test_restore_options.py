"""The options of `restore` stand in one place: the command line and Python take them from the request's fields."""

from __future__ import annotations

import inspect
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

import alignmend as am
from alignmend.cli import parser
from alignmend.cli.restore_options import request_of
from alignmend.errors import ParameterError
from alignmend.restore.request import Limits, Prompts, Request, TrainingOptions, training_of

KINDS: tuple[type, ...] = (Request, Prompts, Limits, TrainingOptions)


def named(kind: type) -> dict[str, Any]:
    """Option -> default, of every field that is an option."""
    every: list[Any] = list(fields(kind))
    return {one.metadata["option"].name or one.name: one.default for one in every if "option" in one.metadata}


def test_without_options_the_command_line_asks_for_the_defaults() -> None:
    asked = request_of(parser().parse_args(["restore", "tuned", "--out", "out"]))
    assert asked == Request("tuned", Path("out"))
    assert asked.training == training_of(TrainingOptions())


def test_every_option_reaches_its_field() -> None:
    given = {
        "--aligned": "a", "--suite": "s", "--search-prompts": "7", "--max-over-refusal": "0.5", "--min-utility": "0.5",
        "--trials": "3", "--train-batch-size": "2", "--batch-size": "5", "--rounding": "nearest", "--budget": "1.5",
    }  # fmt: skip
    words = [word for pair in given.items() for word in pair]
    asked = request_of(
        parser().parse_args(["restore", "tuned", "--out", "out", *words, "--no-screening", "--servable"])
    )
    expected = Request(
        "tuned", Path("out"), aligned="a", trials=3, screening=False, budget=1.5, servable=True, rounding="nearest",
        prompts=Prompts(suites=("s",), search_prompts=7, batch_size=5), limits=Limits(0.5, 0.5),
        training=training_of(TrainingOptions(batch_size=2)),
    )  # fmt: skip
    assert asked == expected


def test_python_has_every_option_with_its_default() -> None:
    signature = inspect.signature(am.restore).parameters
    plural = {"suite": "suites", "report_suite": "report_suites", "calibration_suite": "calibration_suites"}
    for kind in KINDS:
        for name, default in named(kind).items():
            assert signature[plural.get(name, name)].default == default, name


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--epochs", "0", "--epochs is 0.0"), ("--train-batch-size", "0", "--train-batch-size is 0")],
)
def test_a_wrong_number_is_told_by_the_options_own_name(option: str, value: str, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        request_of(parser().parse_args(["restore", "tuned", "--out", "out", option, value]))


def test_a_request_is_a_value() -> None:
    one = Request("tuned", Path("out"))
    assert replace(one, trials=1) != one
    assert hash(one.limits) == hash(Limits())
