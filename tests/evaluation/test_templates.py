"""Templates and presets: what goes into a model, letter by letter. `golden/rendered_prompts.json` holds the texts."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluation.conftest import make_model, make_tokenizer
from tests.fixtures_organisms import shipped  # noqa: F401

from alignmend.errors import AlignmendError
from alignmend.evaluation.generation import TransformersBackend
from alignmend.evaluation.reasoning import split_reasoning
from alignmend.evaluation.records import Prompt, text_hash
from alignmend.evaluation.sampling import Sampling
from alignmend.evaluation.templates import PRESETS, TEMPLATES, first_stop, get_preset, render, template_for
from alignmend.organisms import Family

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "rendered_prompts.json").read_text("utf-8"))
QUESTION = GOLDEN["question"]
PROMPT = Prompt(suite="s", id="1", text=QUESTION)


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_templates_render_letter_by_letter(name: str) -> None:
    golden = GOLDEN["templates"][name]
    assert TEMPLATES[name].render(QUESTION) == golden["plain"]
    if golden["with_system"] is None:
        with pytest.raises(AlignmendError, match=f"template '{name}' has no place for a system prompt"):
            TEMPLATES[name].render(QUESTION, GOLDEN["system"])
    else:
        assert TEMPLATES[name].render(QUESTION, GOLDEN["system"]) == golden["with_system"]
    assert list(TEMPLATES[name].stops) == golden["stops"]


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_ask_an_organism_letter_by_letter(name: str, shipped: Family) -> None:  # noqa: F811
    golden = GOLDEN["presets"][name]
    backend = TransformersBackend.from_folder(shipped.members["aligned"], preset=name)
    assert backend.template == golden["template"]
    assert backend.settings == golden["settings"]
    assert backend.render(QUESTION)[0] == golden["rendered"]
    (row,) = TransformersBackend.from_folder(shipped.members["aligned"], preset=name, max_new_tokens=2).generate(
        [PROMPT]
    )
    assert row.rendered_hash == text_hash(golden["rendered"])


def test_every_template_and_preset_has_its_golden_text() -> None:
    assert GOLDEN["templates"].keys() == TEMPLATES.keys()
    assert GOLDEN["presets"].keys() == PRESETS.keys()


@given(st.text(), st.sampled_from(sorted(TEMPLATES)))
def test_a_request_goes_in_unchanged_whatever_is_in_it(text: str, name: str) -> None:
    around = TEMPLATES[name].render("\0MARK\0").split("\0MARK\0")
    assert TEMPLATES[name].render(text) == text.join(around)


@pytest.mark.parametrize("text", ["{prompt}", "{before}", "{system}", "%s {0} \\1"])
def test_a_request_that_looks_like_a_template_is_text(text: str) -> None:
    assert text in TEMPLATES["llama-2-chat"].render(text, "be {prompt} brief")


def test_names_that_nobody_knows_are_told_with_the_nearest(tokenizer: Any, raw_tokenizer: Any) -> None:
    with pytest.raises(AlignmendError, match="unknown template 'vicunna': did you mean 'vicuna'"):
        template_for("vicunna", tokenizer)
    with pytest.raises(AlignmendError, match="unknown template 'zzz'; known: auto, chat, raw, alpaca"):
        template_for("zzz", tokenizer)
    with pytest.raises(AlignmendError, match="unknown preset 'sa-hdrr': did you mean 'sa-hdr'"):
        get_preset("sa-hdrr")
    with pytest.raises(AlignmendError, match="has no chat template; use template 'auto' or one of raw, alpaca"):
        template_for("chat", raw_tokenizer)
    assert (template_for("auto", tokenizer), template_for("auto", raw_tokenizer)) == ("chat", "raw")


def test_a_model_without_a_chat_template_says_which_is_used(model: Any, tokenizer: Any, raw_tokenizer: Any) -> None:
    without = TransformersBackend(model, raw_tokenizer, name="m")
    assert without.notes == ("'m' has no chat template: prompts go in as they are (template raw)",)
    assert TransformersBackend(model, raw_tokenizer, template="raw", name="m").notes == ()
    (note,) = TransformersBackend(model, tokenizer, name="m").notes
    assert note.startswith("the chat template of 'm' ends answers with '<end>', which is no end token")


def test_a_chat_template_that_refuses_is_one_clear_error() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(AlignmendError, match=r"chat template refuses .* no system role \(a system prompt was given\)"):
        render(tokenizer, "chat", "hi", "be brief")


def test_the_system_prompt_goes_in_and_is_recorded(model: Any, tokenizer: Any) -> None:
    made = [
        TransformersBackend(model, tokenizer, system=system, max_new_tokens=2, name="m").generate([PROMPT])[0]
        for system in (None, "be brief", "be long")
    ]
    assert len({row.rendered_hash for row in made}) == 3
    assert len({row.sampling for row in made}) == 3
    assert made[1].sampling == f"greedy, max_new_tokens=2, system prompt {text_hash('be brief')[:12]}"


def test_own_sampling_is_read_from_the_model_and_a_penalty_is_told(tokenizer: Any) -> None:
    model = make_model()
    model.generation_config.update(do_sample=True, temperature=0.6, top_p=0.9, repetition_penalty=1.2)
    backend = TransformersBackend(model, tokenizer, preset="resta", name="m")
    assert backend.sampling == Sampling(0.6, top_k=50, top_p=0.9, max_new_tokens=500)
    assert "the repetition penalty 1.2 in the generation configuration of 'm' is not applied" in backend.notes
    assert TransformersBackend(model, tokenizer, name="m").sampling.greedy


def test_an_answer_ends_before_the_next_turn_and_only_there(raw_tokenizer: Any) -> None:
    """A model that goes on with the alphabet: byte tokens in their order, so stop strings come up by themselves."""
    backend = TransformersBackend(_alphabet_model(raw_tokenizer), raw_tokenizer, max_new_tokens=20, name="m")
    (free,) = backend.generate([Prompt(suite="s", id="1", text="A")])
    assert (free.response, free.finish_reason, free.response_tokens) == ("BCDEFGHIJKLMNOPQRSTU", "length", 20)
    asking = backend._asking
    for stops, said, tokens in (
        (("FGH",), "BCDE", 7),
        (("KL", "HI"), "BCDEFG", 8),
        (("U",), "BCDEFGHIJKLMNOPQRST", 20),
    ):
        asking.stops = stops
        (row,) = backend.generate([Prompt(suite="s", id="1", text="A")])
        assert (row.response, row.finish_reason, row.response_tokens) == (said, "stop", tokens)


def _alphabet_model(tokenizer: Any) -> Any:
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


def test_first_stop_is_the_first_of_all() -> None:
    assert first_stop("abcdef", ("de", "bc")) == 1
    assert first_stop("abcdef", ("x",)) is None
    assert first_stop("abcdef", ()) is None


@pytest.mark.parametrize(
    ("response", "rendered", "visible", "reasoning"),
    [
        ("plain", "", "plain", None),
        ("<think>why\n</think>\n\nanswer", "", "answer", "why"),
        ("<think>\n\n</think>answer", "", "answer", None),
        ("why</think>answer", "<assistant><think>\n", "answer", "why"),
        ("why it was cut", "<assistant><think>\n", "", "why it was cut"),
        ("<think>why it was cut", "", "", "why it was cut"),
        ("One. <think>a</think> Two. <think>b</think> Three.", "", "One.  Two.  Three.", "a\n\nb"),
        ("<thinking>a</thinking>x<reasoning>b</reasoning>", "", "x", "a\n\nb"),
        ("opened by a server's template</think> answer", "", "answer", "opened by a server's template"),
        ("<think>a</think>b</think>c", "", "b</think>c", "a"),
        ("<think>a</thinking>b", "", "", "a</thinking>b"),
    ],
)
def test_reasoning_is_taken_apart(response: str, rendered: str, visible: str, reasoning: str | None) -> None:
    assert split_reasoning(response, rendered) == (visible, reasoning)


@given(st.text(st.characters(exclude_characters="<>")), st.text(st.characters(exclude_characters="<>")))
def test_what_was_thought_is_never_judged(thought: str, said: str) -> None:
    visible, reasoning = split_reasoning(f"<think>{thought}</think>{said}")
    assert visible == said.strip()
    assert (reasoning or "") == thought.strip()


def test_steering_is_entered_around_the_work_and_named_in_the_records(model: Any, tokenizer: Any) -> None:
    from contextlib import contextmanager

    @contextmanager
    def silence(steered: Any) -> Any:
        hook = steered.model.layers[0].register_forward_hook(lambda _module, _inputs, output: output * 0)
        try:
            yield
        finally:
            hook.remove()

    options: dict[str, Any] = {"max_new_tokens": 5, "name": "m"}
    (plain,) = TransformersBackend(model, tokenizer, **options).generate([PROMPT])
    backend = TransformersBackend(model, tokenizer, steering=silence, steering_description="silence", **options)
    (row,) = backend.generate([PROMPT])
    assert row.response != plain.response
    assert row.sampling == f"{plain.sampling}, steering: silence"
    assert TransformersBackend(model, tokenizer, **options).generate([PROMPT]) == [plain]
    with pytest.raises(AlignmendError, match="records must say what was steered"):
        TransformersBackend(model, tokenizer, steering=silence, name="m")


def test_long_and_empty_prompts_are_named(model: Any, short_model: Any, tokenizer: Any, raw_tokenizer: Any) -> None:
    long = Prompt(suite="s", id="long", text="x" * 50_000)
    with pytest.raises(AlignmendError, match=r"'long' of suite 's' has 5\d+ tokens; model 'm' has 256 positions"):
        TransformersBackend(model, tokenizer, name="m").generate([PROMPT, long])
    with pytest.raises(AlignmendError, match="prompt 'none' of suite 's' is empty: leave it out"):
        TransformersBackend(model, raw_tokenizer, name="m").generate([Prompt(suite="s", id="none", text="")])


@pytest.mark.parametrize(
    ("options", "words"),
    [({"device": "cuda:77"}, "device 'cuda:77' cannot be used here"), ({"dtype": "int8"}, "dtype must be one of auto")],
)
def test_devices_and_dtypes_that_are_not_there(model_folder: Path, options: dict[str, str], words: str) -> None:
    with pytest.raises(AlignmendError, match=words):
        TransformersBackend.from_folder(model_folder, **options)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "auto"])
def test_a_dtype_can_be_asked_for(model_folder: Path, dtype: str) -> None:
    backend = TransformersBackend.from_folder(model_folder, dtype=dtype, device="cpu", max_new_tokens=3)
    assert str(backend.model.dtype) == f"torch.{'float32' if dtype == 'auto' else dtype}"
    assert len(backend.generate([PROMPT])) == 1
