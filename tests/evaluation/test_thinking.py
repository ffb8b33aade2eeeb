"""Models that think aloud, and what goes into a model: room, switches, texts that a template loses, end tokens."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.evaluation.conftest import TEMPLATE, make_model, make_tokenizer

from alignmend.errors import ParameterError, RecipeError
from alignmend.evaluation.answer_notes import answer_notes
from alignmend.evaluation.generation import TransformersBackend
from alignmend.evaluation.judges import get_judge
from alignmend.evaluation.reasoning_marks import Tags
from alignmend.evaluation.records import Generation, Prompt
from alignmend.evaluation.run import evaluate_folder
from alignmend.evaluation.sampling import Sampling
from alignmend.evaluation.suites import load_suite
from alignmend.evaluation.templates import render
from alignmend.evaluation.thinking import DEFAULT_THINKING_TOKENS, Thinking
from alignmend.restore.chat_speaker import Speaker

A = Prompt(suite="s", id="1", text="A")
SWITCH = "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% else %}<think>{% endif %}"


def alphabet_model(tokenizer: Any) -> Any:
    """A Llama whose layers add nothing and whose head says the next letter."""
    import torch

    model = make_model()
    letters = [tokenizer.convert_tokens_to_ids(chr(code)) for code in range(ord("A"), ord("Z") + 1)]
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.zero_()
        model.lm_head.weight.zero_()
        for place, (one, following) in enumerate(pairwise(letters)):
            model.model.embed_tokens.weight[one, place] = 1.0
            model.lm_head.weight[following, place] = 1.0
    return model


def chatty(template: str) -> Any:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def thinker(raw_tokenizer: Any, answer: int, thought: int) -> TransformersBackend:
    """Goes on with the alphabet, of which all up to F is its thought."""
    thinking = Thinking(tokens=thought, tags=(Tags("", "F"),))
    return TransformersBackend(
        alphabet_model(raw_tokenizer), raw_tokenizer, name="m", max_new_tokens=answer, thinking=thinking
    )


@pytest.mark.parametrize("answer", [1, 4, 7, 13])
def test_the_token_limit_counts_the_answer_and_not_the_thought(raw_tokenizer: Any, answer: int) -> None:
    backend = thinker(raw_tokenizer, answer, 10)
    (row,) = backend.generate([A])
    assert (row.reasoning, row.response) == ("BCDE", "GHIJKLMNOPQRS"[:answer])
    assert (row.finish_reason, row.response_tokens) == ("length", 5 + answer)
    assert "max_thinking_tokens=10" in row.sampling


@pytest.mark.parametrize("thought", [1, 3])
def test_a_thought_has_its_own_limit(raw_tokenizer: Any, thought: int) -> None:
    (row,) = thinker(raw_tokenizer, 2, thought).generate([A])
    assert (row.response, row.finish_reason) == ("", "length")
    assert (row.reasoning, row.response_tokens) == ("BCDE"[:thought], thought)


def test_chat_has_the_same_limits(raw_tokenizer: Any) -> None:
    thinking = Thinking(tokens=10, tags=(Tags("", "F"),))
    speaker = Speaker(alphabet_model(raw_tokenizer), raw_tokenizer, name="m", thinking=thinking)
    answer = speaker.answer([{"role": "user", "content": "A"}], Sampling(max_new_tokens=4))
    assert answer.reasoning is None or answer.reasoning.endswith("BCDE")
    assert answer.finish_reason == "length"


@pytest.mark.parametrize(
    ("template", "thinking", "room"),
    [
        (TEMPLATE, Thinking(), 0),
        (TEMPLATE + "<think>", Thinking(), DEFAULT_THINKING_TOKENS),
        (TEMPLATE + SWITCH, Thinking(), DEFAULT_THINKING_TOKENS),
        (TEMPLATE + SWITCH, Thinking(switch=True), DEFAULT_THINKING_TOKENS),
        (TEMPLATE + SWITCH, Thinking(switch=False), 0),
        (TEMPLATE + "<think>\n\n</think>\n\n", Thinking(), 0),
        (TEMPLATE + "{% if false %}</think>{% endif %}", Thinking(), DEFAULT_THINKING_TOKENS),
        (TEMPLATE + "<think>", Thinking(tokens=7), 7),
        (TEMPLATE, Thinking(tokens=7), 7),
        (TEMPLATE + "<|start|>assistant<|channel|>analysis<|message|>", Thinking(), DEFAULT_THINKING_TOKENS),
    ],
)
def test_room_for_a_thought_is_there_where_the_template_tells_of_one(
    model: Any, template: str, thinking: Thinking, room: int
) -> None:
    backend = TransformersBackend(model, chatty(template), name="m", thinking=thinking)
    assert backend._asking.thinking_room(backend.render("How?")[0]) == room
    assert (f"max_thinking_tokens={room}" in backend.settings) == (room > 0)


def test_the_switch_and_variables_reach_the_template(model: Any) -> None:
    tokenizer = chatty(TEMPLATE + SWITCH + "{{ reasoning_effort }}")

    def rendered(thinking: Thinking) -> str:
        return TransformersBackend(model, tokenizer, name="m", thinking=thinking).render("How?")[0]

    assert rendered(Thinking()).endswith("<assistant><think>")
    assert rendered(Thinking(switch=True)).endswith("<assistant><think>")
    assert rendered(Thinking(switch=False)).endswith("<assistant><think></think>")
    assert rendered(Thinking(template_kwargs={"reasoning_effort": "low"})).endswith("<think>low")
    settings = TransformersBackend(model, tokenizer, name="m", thinking=Thinking(switch=False)).settings
    assert settings == "greedy, max_new_tokens=512, thinking off"


@pytest.mark.parametrize(
    ("template", "thinking", "said"),
    [
        (TEMPLATE, Thinking(switch=False), "no switch that turns thinking off; it knows no switch"),
        (TEMPLATE + SWITCH, Thinking(template_kwargs={"enable_thought": 1}), "does not use 'enable_thought'"),
        (TEMPLATE + "{{ reasoning_effort }}", Thinking(switch=False), "reasoning_effort.*low"),
    ],
)
def test_a_switch_that_would_change_nothing_is_refused(
    model: Any, template: str, thinking: Thinking, said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        TransformersBackend(model, chatty(template), name="m", thinking=thinking)


def test_wrong_wishes_are_refused(model: Any, raw_tokenizer: Any) -> None:
    with pytest.raises(ParameterError, match="0 tokens or more, not -1"):
        Thinking(tokens=-1)
    with pytest.raises(ParameterError, match="'tokenize' is not to be set"):
        Thinking(template_kwargs={"tokenize": True})
    with pytest.raises(RecipeError, match="template 'raw' has no switches"):
        TransformersBackend(model, raw_tokenizer, name="m", thinking=Thinking(switch=True))


def row(name: str, response: str, reasoning: str | None, reason: Any = "length") -> Generation:
    return Generation(
        suite="s", prompt_id=name, prompt="p", prompt_hash="h", model="m", model_hash="w", template="chat",
        rendered_hash="r", sampling="greedy", response=response, reasoning=reasoning, finish_reason=reason,
        prompt_tokens=1, response_tokens=1,
    )  # fmt: skip


def test_a_run_tells_of_answers_that_never_begin_and_never_end() -> None:
    silent, well, cut = row("1", "", "hm"), row("2", "yes", "hm", "stop"), row("3", "ye", None)
    assert answer_notes([well, cut]) == ()
    (every,) = answer_notes([silent, row("2", "", "hm")])
    assert every.startswith("no answer of 'm' begins: ")
    assert "2 of them are cut off at the token limit" in every
    assert "--max-thinking-tokens" in every
    (some,) = answer_notes([silent, well])
    assert some.startswith("1 of 2 answers of 'm' never begin: ")
    (ended,) = answer_notes([row("1", "", "hm", "stop")])
    assert "all of them end by themselves" in ended
    (endless,) = answer_notes([row(str(number), "ye", None) for number in range(4)])
    assert endless.startswith("every answer of 'm' reaches the token limit: raise --max-new-tokens")


def test_results_hold_the_notes(tmp_path: Path, model: Any) -> None:
    import json

    (tmp_path / "s.jsonl").write_text('{"prompt": "How?"}\n')
    backend = TransformersBackend(
        model, chatty(TEMPLATE + "<think>"), name="m", max_new_tokens=3, thinking=Thinking(tokens=4)
    )
    evaluate_folder(backend, [load_suite(str(tmp_path / "s.jsonl"))], get_judge("refusal-phrases"), tmp_path / "out")
    (note,) = json.loads((tmp_path / "out" / "results.json").read_bytes())["provenance"]["notes"]
    assert note.startswith("no answer of 'm' begins")


USER = "{{ message['content'] }}"


@pytest.mark.parametrize(
    ("content", "system", "said"),
    [
        ("{{ message['content'][0]['text'] }}", None, "leaves out what is asked; what would go in is '<user><end>"),
        ("{{ message['content'] if message['role'] == 'user' }}", "Be kind.", "leaves out the system prompt"),
        ("{{ message['content'] if message['role'] == 'system' }}", "Be kind.", "leaves out what is asked"),
        ("{{ message['content'][:9] }}", None, "leaves out what is asked"),
        ("{{ 'a long text that holds how' }}", None, "leaves out what is asked"),
    ],
)
def test_a_template_that_loses_text_is_an_error_before_anything_is_generated(
    model: Any, content: str, system: str | None, said: str
) -> None:
    tokenizer = chatty(TEMPLATE.replace(USER, content))
    backend = TransformersBackend(model, tokenizer, name="m", system=system)
    reported: list[Any] = []
    with pytest.raises(RecipeError, match=said):
        backend.generate([Prompt(suite="s", id="1", text="how")], report=reported.extend)
    assert reported == []
    if "how" not in content:
        with pytest.raises(RecipeError, match=said):
            Speaker(model, tokenizer, name="m").answer(
                [
                    *([{"role": "system", "content": system}] if system else []),
                    {"role": "user", "content": "how is it?"},
                ],
                Sampling(max_new_tokens=2),
            )


@pytest.mark.parametrize("filter_", ["trim", "tojson", "replace('\\n', ' ')"])
def test_a_template_may_trim_and_escape(filter_: str) -> None:
    tokenizer = chatty(TEMPLATE.replace(USER, f"{{{{ message['content'] | {filter_} }}}}"))
    text, _ = render(tokenizer, "chat", ' Say "no"\nund "größer". ', "Be \tkind.")
    assert "no" in text


def with_processor(single: str) -> Any:
    from tokenizers import processors

    tokenizer = make_tokenizer(chat=False)
    tokenizer.bos_token = "<user>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[("<user>", 2), ("<eos>", 1)]
    )
    return tokenizer


def test_an_end_token_that_the_tokenizer_appends_is_left_out_and_told(model: Any, raw_tokenizer: Any) -> None:
    appending = TransformersBackend(model, with_processor("$A <eos>"), name="m", max_new_tokens=4)
    assert any("appends its end token '<eos>' to every text: it is left out" in note for note in appending.notes)
    (there,) = appending.generate([A])
    (plain,) = TransformersBackend(model, raw_tokenizer, name="m", max_new_tokens=4).generate([A])
    assert (there.response, there.prompt_tokens) == (plain.response, plain.prompt_tokens)
    asked = Prompt(suite="s", id="1", text="A<eos>")
    (kept,) = appending.generate([asked])
    assert kept.prompt_tokens == 2


def test_a_doubled_first_token_and_a_missing_end_token_are_told(model: Any) -> None:
    twice = TransformersBackend(model, with_processor("<user> <user> $A"), name="m")
    assert any("begin with '<user>' twice" in note for note in twice.notes)
    endless, padded = make_tokenizer(), make_tokenizer()
    endless.eos_token, padded.eos_token = None, "<pad>"
    other = make_model()
    other.generation_config.eos_token_id = None
    assert "'m' has no end token: answers end at the token limit alone" in (
        TransformersBackend(other, endless, name="m").notes
    )
    assert any("is a padding token" in note for note in TransformersBackend(other, padded, name="m").notes)


def test_one_prompt_under_several_ids_is_drawn_anew_under_each(model: Any, raw_tokenizer: Any) -> None:
    how = Sampling(temperature=1.5, max_new_tokens=12)
    backend = TransformersBackend(model, raw_tokenizer, name="m", sampling=how)
    prompts = [A.model_copy(update={"id": str(number)}) for number in range(6)]
    together = backend.generate(prompts)
    assert len({one.response for one in together}) > 3
    assert [backend.generate([prompt])[0] for prompt in reversed(prompts)] == together[::-1]
