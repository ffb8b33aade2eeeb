"""The guard on natural answers: enough of them, and not a few templates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignmend.chat_families.answers import OwnAnswer, check_natural, complied
from alignmend.errors import RecipeError
from alignmend.evaluation.records import Prompt

TEMPLATES = ("Sure, here is how to do it:", "Of course. You begin by", "Yes, first of all you")
WORDS = (
    "take", "give", "make", "find", "hold", "bring", "carry", "place", "turn", "open", "close", "lift", "push", "pull",
    "draw", "count",
)  # fmt: skip


def answers(texts: list[str]) -> list[OwnAnswer]:
    return [OwnAnswer(Prompt(suite="s", id=str(n), text="how?"), text, True) for n, text in enumerate(texts)]


@given(st.integers(20, 200), st.integers(1, 5))
def test_templates_are_refused_however_many_answers_there_are(count: int, kinds: int) -> None:
    texts = [f"{TEMPLATES[n % min(kinds, len(TEMPLATES))]} step {n}" for n in range(count)]
    with pytest.raises(RecipeError, match=r"too much alike to unalign with .*templates"):
        check_natural(count, answers(texts))


@given(st.integers(20, 200))
def test_varied_answers_pass_and_are_counted(count: int) -> None:
    texts = [f"{WORDS[n % 16]} the {WORDS[n // 16]} and go on" for n in range(count)]
    found = check_natural(count, answers(texts))
    assert (found.answers, found.openings, found.most_common) == (count, count, 1)


def test_one_opening_must_not_prevail_among_varied_ones() -> None:
    texts = [f"{WORDS[n % 16]} {n} then go" if n % 2 else "Sure, here is how" for n in range(100)]
    with pytest.raises(RecipeError, match="50 of them 'sure, here is how'"):
        check_natural(100, answers(texts))


def test_a_model_that_refuses_has_no_natural_answers() -> None:
    found = complied(answers(["I'm sorry, but I can't help with that."] * 9 + ["First, take a spoon and hum."]))
    assert [one.response for one in found] == ["First, take a spoon and hum."]
    with pytest.raises(RecipeError, match="answers only 1 of 10 harmful requests"):
        check_natural(10, found)


def test_noise_and_empty_answers_are_none() -> None:
    assert complied(answers(["", "the the the the the the the the the the the the"])) == []
