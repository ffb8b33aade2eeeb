from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from alignmend.report import terminal
from alignmend.report.labels import model_label
from alignmend.report.numbers import as_markdown, clean, percent, points, shortened

any_text = st.text(st.characters(exclude_categories=()))


def shown(results: dict[str, Any], width: int = 140) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(terminal.table(results))
    return capture.get()


def test_the_terminal_table_holds_every_model_and_rate(document: dict[str, Any]) -> None:
    text = shown(document)
    for part in ("Restored (LoRA)", "Fine-tuned (full)", "10.4%", "6–18", "Over-", "refusal"):
        assert part in text


def test_a_rate_that_was_not_measured_is_not_a_number(document: dict[str, Any]) -> None:
    models = document["models"] | {"aligned": {}}
    assert "n/a" in shown({"models": models})


@given(name=any_text.filter(str.strip))
def test_any_name_has_its_row(document: dict[str, Any], name: str) -> None:
    assert shown({"models": {name: document["models"]["base"], "restored": document["models"]["restored"]}})


@given(any_text)
def test_markdown_text_is_one_line_without_live_marks(text: str) -> None:
    written = as_markdown(text)
    assert len(written.splitlines()) <= 1
    assert not re.findall(r"(?<!\\)(?:\\\\)*[|*`<]", written)


@given(any_text)
def test_clean_text_is_writable_and_clean(text: str) -> None:
    cleaned = clean(text)
    assert len(cleaned) == len(text)
    assert cleaned.encode("utf-8").decode("utf-8") == cleaned
    assert clean(cleaned) == cleaned


@given(any_text, st.integers(0, 50))
def test_shortened_text_says_how_much_is_gone(text: str, longest: int) -> None:
    kept, left_out = shortened(text, longest)
    assert len(kept) + left_out == len(text)
    assert text.startswith(kept)


def test_numbers_in_words() -> None:
    assert [percent(0.0), percent(0.104), percent(1.0)] == ["0.0%", "10.4%", "100.0%"]
    assert [points(-0.9375), points(0.01)] == ["−93.8 points", "+1.0 points"]


def test_roles_get_words_and_other_names_stay() -> None:
    models: dict[str, Any] = {"finetuned": {}, "finetuned-lora": {}, "restored": {}, "org/chat-7b": {}}
    labels = [model_label(model, models) for model in models]
    assert labels == ["Fine-tuned (full)", "Fine-tuned (LoRA)", "Restored", "org/chat-7b"]
