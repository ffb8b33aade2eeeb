"""What cannot be asked of a restore is told before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alignmend.errors import ParameterError
from alignmend.restore.preflight_ways import look_at_ways
from alignmend.restore.request import Prompts, Request


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trials": 0}, "--trials must be at least 1, not 0"),
        ({"budget": 0.0}, "--budget is a number of minutes above 0"),
        ({"budget": float("nan")}, "--budget is a number of minutes above 0"),
        ({"seed": -1}, "--seed is a whole number from 0"),
        ({"adapter_rank": 4}, "give --as-adapter"),
        ({"adapter_rank": 0, "as_adapter": True}, "--adapter-rank must be at least 1"),
    ],
)
def test_numbers_out_of_range(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        Request(finetuned="a", out=Path("b"), **options)


@pytest.mark.parametrize("name", ["search_prompts", "search_tokens", "max_new_tokens", "batch_size"])
def test_counts_of_prompts_are_at_least_one(name: str) -> None:
    options: dict[str, Any] = {name: 0}
    with pytest.raises(ParameterError, match="must be at least 1, not 0"):
        Prompts(**options)


def test_a_number_format_that_no_model_has() -> None:
    with pytest.raises(ParameterError, match="--dtype is one of"):
        Prompts(dtype="int8")


def test_ways_to_ask_are_known_before_a_model_is_loaded() -> None:
    assert not list(look_at_ways(Prompts(template="alpaca", device="cpu", judge="organism")))
    found = list(look_at_ways(Prompts(template="alpacca", device="toaster", judge="harmbench")))
    assert [one.check for one in found] == ["device", "template", "judge"]
    assert all(one.remedy for one in found)
    assert "did you mean 'alpaca'" in found[1].found + found[1].remedy
