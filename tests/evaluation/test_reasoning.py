"""What a model thought and what it said: the marks of many families, and answers that only speak of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluation.conftest import make_tokenizer

from alignmend.errors import ParameterError
from alignmend.evaluation.asking import Asking, Wishes
from alignmend.evaluation.reasoning import opens_thought, split_reasoning
from alignmend.evaluation.reasoning_marks import Tags
from alignmend.evaluation.thinking import Thinking

THOUGHT, SAID = "First the yeast.", "Knead it well."

PAIRS = {
    "think": ("<think>", "</think>"),
    "upper case": ("<THINK>", "</THINK>"),
    "capital": ("<Think>\n", "\n</Think>\n\n"),
    "attribute": ("<think duration='3'>", "</think>"),
    "thinking": ("<thinking>", "</thinking>"),
    "thought (EXAONE)": ("<thought>\n", "\n</thought>\n\n"),
    "reasoning": ("<reasoning>", "</reasoning>"),
    "Seed-OSS": ("<seed:think>", "</seed:think>"),
    "LongCat": ("<longcat_think>", "</longcat_think>"),
    "Mistral": ("[THINK]", "[/THINK]"),
    "Kimi": ("◁think▷", "◁/think▷"),
    "begin and end": ("<|begin_of_thought|>", "<|end_of_thought|>"),
    "Cohere": ("<|START_THINKING|>", "<|END_THINKING|>"),
    "bare pipes": ("<|think|>", "<|/think|>"),
    "Gemma": ("<|channel>thought\n", "<channel|>"),
    "MedGemma": ("<unused94>thought\n", "<unused95>"),
    "Granite": ("Here is my thought process: ", "\nHere is my response: "),
    "Granite, short": ("Here's my thought process: ", "\n\nHere's my response: "),
    "Apriel": ("Here are my reasoning steps:\n", "\n[BEGIN FINAL RESPONSE]\n"),
    "harmony": ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    "harmony, stripped": ("analysis", "assistantfinal"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_marks_of_a_family(name: str) -> None:
    opening, closing = PAIRS[name]
    assert split_reasoning(f"{opening}{THOUGHT}{closing}{SAID}") == (SAID, THOUGHT)
    assert split_reasoning(f"  \n{opening}{THOUGHT}{closing}{SAID}\n") == (SAID, THOUGHT)


@pytest.mark.parametrize("name", PAIRS)
def test_a_thought_that_is_cut_off_is_no_answer(name: str) -> None:
    assert split_reasoning(f"{PAIRS[name][0]}{THOUGHT}") == ("", THOUGHT)


@pytest.mark.parametrize("name", sorted(PAIRS.keys() - {"harmony", "harmony, stripped"}))
def test_a_thought_that_the_template_opens(name: str) -> None:
    opening, closing = PAIRS[name]
    prompt = f"<user>How?<assistant>{opening}"
    assert opens_thought(prompt)
    assert split_reasoning(f"{THOUGHT}{closing}{SAID}", prompt) == (SAID, THOUGHT)
    assert split_reasoning(THOUGHT, prompt) == ("", THOUGHT)
    if "\n[BEGIN" not in closing and "Here" not in closing:
        assert split_reasoning(SAID, prompt + closing) == (SAID, None)
        assert not opens_thought(prompt + closing)


@pytest.mark.parametrize(
    ("response", "prompt", "visible", "thought"),
    [
        ("<|channel|>final<|message|>b<|return|>", "", "b", None),
        ("a<|end|><|start|>assistant<|channel|>final<|message|>b",
         "<|start|>assistant<|channel|>analysis<|message|>", "b", "a"),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary<|message|>Let me see.<|end|>"
         "<|start|>assistant<|channel|>final<|message|>b", "<|start|>assistant", "Let me see.\n\nb", "a"),
        ("<|channel|>ana", "<|start|>assistant", "", None),
        ("analysisOne.assistantanalysisTwo.assistantfinalb", "", "b", "One.\n\nTwo."),
        ("analysisWe need to see", "", "", "We need to see"),
    ],
)  # fmt: skip
def test_channels(response: str, prompt: str, visible: str, thought: str | None) -> None:
    assert split_reasoning(response, prompt) == (visible, thought)


@pytest.mark.parametrize(
    ("response", "visible", "thought"),
    [
        ("<think>a</think><answer>b</answer>", "b", "a"),
        ("<Thought>a</Thought>\n<Output>b</Output>", "b", "a"),
        ("<|begin_of_thought|>a<|end_of_thought|><|begin_of_solution|>b<|end_of_solution|>", "b", "a"),
        ("a[BEGIN FINAL RESPONSE]b[END FINAL RESPONSE]", "b", "a"),
        ("<think>a</think>\n<tool_call>{}</tool_call>", "<tool_call>{}</tool_call>", "a"),
        ("<answer>b</answer>", "<answer>b</answer>", None),
        ("<think>x <think>y</think> z</think>b", "b", "x <think>y</think> z"),
        ("<think>a<think>b</think>c", "c", "a<think>b"),
        ("<think>a</think>b<think>c</think>d", "bd", "a\n\nc"),
        ("<think>They ask of <think> and </think> tags. Fine.</think>b", "b",
         "They ask of <think> and </think> tags. Fine."),
        ("<think>Use ```\ncode</think>Here: ```\nx\n```", "Here: ```\nx\n```", "Use ```\ncode"),
        ("so be it\n</think>\n\nAnswer", "Answer", "so be it"),
        ("so ```\ncode\n</think>\n\nAnswer ```\nx\n```", "Answer ```\nx\n```", "so ```\ncode"),
        ("思考</think>答案", "答案", "思考"),
        ("<think></think>", "", None),
    ],
)  # fmt: skip
def test_frames_nests_and_lone_ends(response: str, visible: str, thought: str | None) -> None:
    assert split_reasoning(response) == (visible, thought)


MENTIONS = [
    "To show thoughts, a model writes <think> and then the text; b follows.",
    "Use the HTML-like tag `<think>` like this:\n```\n<think>a</think>\n```\nDone.",
    "The tag </think> ends a thought. That is all.",
    "Models such as R1 wrap thoughts in <think>...</think> tags, and the answer follows.",
    "R1 wraps it with <think> and </think>\nThat is the whole secret.",
    "<think> is the tag that opens a thought.",
    "```\n<think>\na\n</think>\n```\nThe block above is what R1 writes.",
    "```xml\n<thought>\nx\n</thought>\n```",
    "`</think>` closes a thought.",
    'The tags "<think>" and "</think>" are special tokens.',
    "Close it with </think>.",
    "Mistral writes [THINK] before and [/THINK] behind a thought.",
    "Harmony uses <|channel|>analysis<|message|> for thoughts and <|channel|>final<|message|> for answers.",
    "analysis of the text: fine",
    "Analysis: the assistant finalizes the work.",
    "标签 <think> 表示开始，</think> 表示结束。",
    "The model thinks: <thinking about it> is no tag.",
]


@pytest.mark.parametrize("answer", MENTIONS)
def test_an_answer_that_speaks_of_a_tag_loses_nothing(answer: str) -> None:
    assert split_reasoning(answer) == (answer, None)
    assert split_reasoning(f"<think>\na\n</think>\n\n{answer}") == (answer, "a")
    assert split_reasoning(f"a\n</think>\n\n{answer}", "<assistant><think>\n") == (answer, "a")


@given(st.text(st.characters(exclude_characters="<>[]◁▷")), st.sampled_from(sorted(PAIRS)))
def test_what_has_no_tags_stays(said: str, name: str) -> None:
    opening, closing = PAIRS[name]
    assert split_reasoning(f"{opening}a{closing}\nThus {said}")[0] == f"Thus {said}".strip()


def test_a_model_s_own_tags_take_the_place_of_the_known_ones() -> None:
    tags = (Tags("<plan>", "</plan>"),)
    assert split_reasoning("<PLAN>a</plan>b", tags=tags) == ("b", "a")
    assert split_reasoning("<think>a</think>b", tags=tags) == ("<think>a</think>b", None)
    assert split_reasoning("a###b", tags=(Tags("", "###"),)) == ("b", "a")
    assert split_reasoning("a", tags=(Tags("", "###"),)) == ("", "a")
    for opening, closing in (("x", " "), ("x", "x")):
        with pytest.raises(ParameterError, match="reasoning tag"):
            Tags(opening, closing)


def test_reasoning_that_comes_apart_goes_first() -> None:
    assert split_reasoning("<think>a</think>b", separate="apart") == ("b", "apart\n\na")
    assert split_reasoning("b", separate="apart") == ("b", "apart")
    assert split_reasoning("", separate="apart") == ("", "apart")


def asking(tokenizer: Any, **wishes: Any) -> Asking:
    return Asking("m", tokenizer, generation_config=None, positions=None, wishes=Wishes(**wishes))


@pytest.mark.parametrize("name", ["Mistral", "Gemma", "harmony"])
def test_marks_that_are_special_tokens_count_and_are_taken_out(name: str) -> None:
    tokenizer = make_tokenizer()
    special = ["[THINK]", "[/THINK]", "<|channel>", "<channel|>", "<|channel|>", "<|message|>", "<|end|>", "<|start|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    opening, closing = PAIRS[name]
    tokens = tokenizer(f"{opening}{THOUGHT}{closing}{SAID}<user><eos>")["input_ids"]
    assert asking(tokenizer).apart(tokens, "<assistant>") == (SAID, THOUGHT)
    plain = tokenizer(f"{SAID}<user><eos>")["input_ids"]
    assert asking(tokenizer).apart(plain, "<assistant>") == (SAID, None)


def test_a_tokenizer_s_own_response_template_decides() -> None:
    tokenizer = make_tokenizer()
    tokenizer.response_template = {
        "start_anchor": "<assistant>",
        "fields": {"thinking": {"open": "~~", "close": "^^"}, "content": {"close": "<eos>"}},
    }
    how = asking(tokenizer)

    def apart(text: str, prompt: str = "<user>How?<end><assistant>") -> tuple[str, str | None]:
        return how.apart(tokenizer(text)["input_ids"], prompt)

    assert apart(f"~~{THOUGHT}^^{SAID}<eos>") == (SAID, THOUGHT)
    assert apart(f"{THOUGHT}^^{SAID}<eos>", "<user>How?<end><assistant>~~") == (SAID, THOUGHT)
    assert apart(f"{SAID}<eos>") == (SAID, None)
    assert apart("It writes ~~ first.<eos>") == ("It writes ~~ first.", None)


def test_own_tags_are_used_for_answers_and_stand_in_the_records() -> None:
    how = asking(make_tokenizer(), thinking=Thinking(tags=(Tags("<plan>", "</plan>"),)))
    tokens = how.tokenizer("<plan>a</plan>b")["input_ids"]
    assert how.apart(tokens, "") == ("b", "a")
    assert "reasoning tags <plan>...</plan>" in how.settings
