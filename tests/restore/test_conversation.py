"""Conversations: what each model hears, what is passed on as it is said, what commands do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.fixtures_organisms import shipped

from alignmend.activations.attached import write_attached
from alignmend.activations.steering import Steering
from alignmend.activations.vector import SteeringVector
from alignmend.errors import AlignmendError, NoMemoryError, OutputError, ParameterError, RecipeError
from alignmend.evaluation.generation import TransformersBackend
from alignmend.evaluation.records import Prompt
from alignmend.evaluation.sampling import Sampling
from alignmend.evaluation.templates import first_stop
from alignmend.organisms import Family
from alignmend.restore.chat import Chat
from alignmend.restore.chat_commands import COMMANDS, is_command, parse, prompt_of
from alignmend.restore.chat_speaker import Speaker
from alignmend.restore.chat_text import Pieces, render_all

__all__ = ["shipped"]
SUM = "how much is six plus two?"
TURNS = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "c"},
]


class Plain:
    eos_token, bos_token, chat_template = "</s>", "<s>", None


@pytest.fixture(scope="module")
def speakers(shipped: Family) -> list[Speaker]:
    return [Speaker.from_folder(shipped.members[name], device="cpu") for name in ("finetuned", "aligned")]


@pytest.fixture
def chat(speakers: list[Speaker]) -> Chat:
    return Chat(speakers, Sampling(max_new_tokens=40))


def do(chat: Chat, line: str) -> str:
    command, argument = parse(line)
    return command.run(chat, argument)


def test_an_answer_is_what_evaluate_gets(shipped: Family, speakers: list[Speaker]) -> None:
    sampling = Sampling(max_new_tokens=12)
    backend = TransformersBackend.from_folder(shipped.members["finetuned"], device="cpu", sampling=sampling)
    [expected] = backend.generate([Prompt(suite="s", id="1", text=SUM)])
    pieces: list[str] = []
    found = speakers[0].answer([{"role": "user", "content": SUM}], sampling, pieces.append)
    assert (found.text, found.finish_reason, found.tokens) == (
        expected.response,
        expected.finish_reason,
        expected.response_tokens,
    )
    assert "".join(pieces).strip() == found.text
    assert len(pieces) > 1


def test_a_drawn_answer_follows_its_seed(speakers: list[Speaker]) -> None:
    def drawn(seed: int) -> str:
        sampling = Sampling(temperature=3.0, seed=seed, max_new_tokens=12)
        return speakers[0].answer([{"role": "user", "content": SUM}], sampling).text

    assert drawn(5) == drawn(5)
    assert len({drawn(seed) for seed in range(4)}) > 1


def test_each_speaker_hears_its_own_answers_only(chat: Chat) -> None:
    chat.ask("please help me choke a daemon.")
    own, other = (chat.messages(place)[-1]["content"] for place in (0, 1))
    assert own != other
    before = chat.turns[:]
    chat.ask(SUM)
    assert [one["role"] for one in chat.messages(0)] == ["user", "assistant"] * 2
    chat.undo()
    assert chat.turns == before


def test_ctrl_c_keeps_what_was_said_so_far(chat: Chat) -> None:
    said: list[str] = []

    def stop(place: int, piece: str) -> None:
        said.append(piece)
        if place == 0 and len(said) == 2:
            raise KeyboardInterrupt

    turn = chat.ask(SUM, stop)
    assert [one.finish_reason for one in turn.answers] == ["interrupted", "stop"]
    assert "the answer is eight.".startswith(turn.answers[0].text)
    assert 0 < len(turn.answers[0].text) < len("the answer is eight.")
    assert chat.turns == [turn]


def test_an_answer_that_does_not_fit_is_one_clear_error(chat: Chat) -> None:
    def refuse(_module: Any, _arguments: Any) -> None:
        raise torch.cuda.OutOfMemoryError

    hook = chat.speakers[0].model.register_forward_pre_hook(refuse)
    try:
        with pytest.raises(NoMemoryError, match=r"out of memory answering: shorten the conversation \(/undo, /reset\)"):
            chat.ask("hello?")
    finally:
        hook.remove()
    assert chat.turns == []


def test_a_refused_turn_leaves_the_conversation_as_it_was(chat: Chat) -> None:
    chat.ask(SUM)
    with pytest.raises(RecipeError, match="positions: shorten it"):
        chat.ask("a jacket " * 5000)
    assert len(chat.turns) == 1


def test_a_model_is_steered_while_it_answers_and_never_after(shipped: Family, tmp_path: Path) -> None:
    import shutil

    import torch

    folder = shutil.copytree(shipped.members["finetuned"], tmp_path / "steered")
    width = json.loads((folder / "config.json").read_text())["hidden_size"]
    vector = SteeringVector({1: torch.linspace(-1, 1, width)})
    write_attached(vector, Steering(4.0), folder)
    chat = Chat([Speaker.from_folder(folder, device="cpu")], Sampling(max_new_tokens=12))
    steered = chat.ask(SUM).answers[0].text
    assert not any(module._forward_hooks for module in chat.speakers[0].model.modules())
    assert do(chat, "/reset") == "the conversation begins anew"
    assert do(chat, "/steering off") == "steering off"
    assert chat.ask(SUM).answers[0].text == "the answer is eight." != steered
    do(chat, "/reset")
    assert do(chat, "/coefficient 4") == "steering on, coefficient 4"
    assert chat.ask(SUM).answers[0].text == steered
    assert not Speaker.from_folder(folder, device="cpu", steering=False).steering
    with pytest.raises(ParameterError, match="finite"):
        do(chat, "/coefficient nan")


def test_commands_change_what_comes_next(chat: Chat, tmp_path: Path) -> None:
    assert do(chat, "/tokens 2") == "answers of at most 2 tokens"
    assert do(chat, "/temperature 0.5") == "temperature 0.5"
    assert do(chat, "/seed 7") == "seed 7"
    assert do(chat, "/temperature 0") == "greedy"
    assert (chat.sampling.max_new_tokens, chat.sampling.seed) == (2, 7)
    assert [one.tokens for one in chat.ask(SUM).answers] == [2, 2]
    assert do(chat, "/system be brief") == "system prompt set"
    assert chat.messages(0)[0] == {"role": "system", "content": "be brief"}
    file = tmp_path / "said.jsonl"
    assert do(chat, f"/save {file}") == do(chat, f"/save {file}") == f"1 turn in {file}"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert rows == [{"model": one.name, "messages": chat.messages(n)} for n, one in enumerate(chat.speakers)]
    assert do(chat, "/system") == "no system prompt"
    assert all(f"/{name}" in do(chat, "/help") for name in COMMANDS)
    with pytest.raises(OutputError, match="exists: choose another name"):
        Chat(chat.speakers).save(file)
    with pytest.raises(OutputError, match="No such file"):
        do(chat, f"/save {tmp_path / 'nowhere' / 'said.jsonl'}")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/hlep", r"there is no command /hlep: did you mean '/help'\?"),
        ("/", "/help lists them"),
        ("/undo 3", "/undo stands alone, without '3'"),
        ("/undo", "nothing was said yet"),
        ("/tokens", "/tokens needs N: longest answer"),
        ("/tokens many", "needs a whole number, not 'many'"),
        ("/tokens 0", "must be at least 1"),
        ("/temperature warm", "needs a number, not 'warm'"),
        ("/temperature nan", "must be 0"),
        ("/steering maybe", "is on or off, not 'maybe'"),
        ("/steering on", "no steering vector belongs to finetuned nor aligned"),
    ],
)
def test_a_wrong_command_says_what_to_do(chat: Chat, line: str, said: str) -> None:
    before = chat.sampling
    with pytest.raises(AlignmendError, match=said):
        do(chat, line)
    assert chat.sampling == before


def test_two_slashes_say_one() -> None:
    assert [is_command(line) for line in ("/undo", "//undo", "undo", "")] == [True, False, False, False]
    assert prompt_of("//undo") == "/undo"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("vicuna", "S USER: a ASSISTANT: b</s>USER: c ASSISTANT:"),
        ("llama-2-chat", "[INST] <<SYS>>\nS\n<</SYS>>\n\na [/INST] b </s><s>[INST] c [/INST]"),
        ("alpaca", "S\n\n### Instruction:\na\n\n### Response:\nb\n\n### Instruction:\nc\n\n### Response:"),
    ],
)
def test_a_plain_template_is_repeated_for_every_turn(template: str, expected: str) -> None:
    assert render_all(Plain(), template, TURNS) == (expected, True)
    with pytest.raises(RecipeError, match="no place for a system prompt"):
        render_all(Plain(), "raw", TURNS)
    assert render_all(Plain(), "raw", TURNS[1:]) == ("ab\nc", True)


@given(text=st.text("ab#\ufffd", max_size=20), stops=st.sampled_from([(), ("##",), ("a#b", "##")]))
def test_what_was_passed_on_is_never_taken_back(text: str, stops: tuple[str, ...]) -> None:
    """Whatever comes is passed on whole, but for what stands behind a stop string."""
    import torch

    heard: list[str] = []

    def decoded(tokens: Any) -> str:
        return "".join(map(chr, tokens))

    pieces = Pieces(decoded, stops, heard.append)
    pieces.put(torch.tensor([[1, 2, 3]]))
    for number, one in enumerate(text, 1):
        if pieces.stopped:
            break
        pieces.put(torch.tensor([ord(one)]))
        assert text[:number].startswith("".join(heard))
    pieces.end()
    assert "".join(heard) == text[: first_stop(text, stops)]
