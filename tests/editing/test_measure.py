"""Efficacy, paraphrase and neighbourhood success; edits in sequence and each alone; prompts in a chat template."""

from __future__ import annotations

from dataclasses import replace
from math import log
from typing import Any

import pytest
from tests.editing.test_rome import QUICK, REQUEST, fresh
from tests.tokenizers_for_tests import byte_tokenizer

from alignmend.editing.apply import check_applied, edits_document
from alignmend.editing.chat import in_chat
from alignmend.editing.making import Editor, edit_model
from alignmend.editing.measure import Measured, Probe, Said, Told
from alignmend.editing.outcomes import EditOutcome, tally
from alignmend.editing.positions import target_ids
from alignmend.editing.requests import EditRequest, Neighbour
from alignmend.editing.rome import find_edit
from alignmend.errors import AlignmendError, NotAppliedError

CHAT = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def editor() -> Editor:
    return Editor(fresh("llama"), byte_tokenizer(), replace(QUICK, steps=25))


def probe(before: float, after: float, *, leads: tuple[bool, bool] = (False, False), rival: float = 0.5) -> Probe:
    return Probe("p", "a", "r", Said(log(before), leads[0]), Said(log(after), leads[1]), log(rival))


def outcome(edit: Probe, at_end: Said | None = None, beside: tuple[Probe, ...] = (), now: str = "x") -> EditOutcome:
    measured = Measured(edit, (probe(0.1, 0.2),), beside, Told("x", now))
    return EditOutcome(REQUEST, 1, measured, 0.1, 5, at_end or edit.after, ())


@pytest.mark.parametrize(
    ("edit", "at_end", "applied"),
    [
        (probe(0.1, 0.2), None, True),
        (probe(0.1, 0.1000001), None, False),  # rounding
        (probe(0.1, 0.05), None, False),
        (probe(0.1, 0.9), Said(log(0.05), False), False),  # a later edit undid it
        (probe(0.999, 0.9999, leads=(True, True)), None, True),  # it was said already
    ],
)
def test_applied_means_likelier_by_more_than_rounding_and_until_the_end(
    edit: Probe, at_end: Said | None, applied: bool
) -> None:
    assert outcome(edit, at_end).applied is applied
    if not applied:
        with pytest.raises(NotAppliedError, match="1 of 1 edits did not make their target likelier: 'Pisa' -> 'Rome'"):
            check_applied([outcome(edit, at_end)])


def test_a_long_answer_does_not_underflow() -> None:
    assert Said(-1600.0, False).probability == 0
    assert Said(-1600.0, False).rose_from(Said(-1700.0, False))
    (note,) = edits_document([outcome(probe(0.1, 0.2))])["notes"]
    assert "still prefers what it said before" in note


def test_totals_by_hand() -> None:
    beside = (
        probe(0.6, 0.5, leads=(True, True), rival=0.1),  # leads still
        probe(0.6, 0.5, leads=(True, False), rival=0.1),  # no longer leads
        probe(0.2, 0.3, rival=0.1),  # never led, is likelier than the target
        probe(0.2, 0.3, rival=0.4),  # never led, the target is likelier
    )
    found = tally([outcome(probe(0.1, 0.6), beside=beside), outcome(probe(0.1, 0.2), now="")])
    counts = {name: (each.count, each.n) for name, each in found.items()}
    assert counts == {
        "applied": (2, 2),
        "efficacy": (1, 2),
        "leads": (0, 2),
        "paraphrase": (0, 2),
        "neighbourhood": (2, 4),
        "empty": (1, 2),
    }
    assert found["neighbourhood"].as_dict() == {"value": 0.5, "count": 2, "n": 4}


def test_what_is_measured_is_what_the_model_says() -> None:
    import torch

    request = replace(
        REQUEST,
        paraphrases=("In which town is the tower of Pisa? It is",),
        neighbourhood=(Neighbour("The tower of London stands in"), Neighbour("Big Ben stands in", "London")),
    )
    made = editor()
    _, (found,) = edit_model(made, [request])
    assert found.applied
    measured = found.measured
    for one, text in ((measured.edit, REQUEST.prompt), (measured.paraphrases[0], request.paraphrases[0])):
        ids, answer = made.tokenizer(text)["input_ids"], made.tokenizer(" Rome")["input_ids"]
        with torch.no_grad():
            steps = made.model(torch.tensor([[*ids, *answer]])).logits[0].double().log_softmax(dim=-1)
        by_hand = steps[len(ids) - 1 : -1][range(len(answer)), answer].sum().exp()
        assert one.after.probability == pytest.approx(float(by_hand), rel=1e-6)
    own, given = measured.neighbourhood
    assert own.before.leads  # what the model said by itself
    assert given.answer == "London"
    assert [one.rival for one in (own, given)] == ["Rome", "Rome"]


def test_in_sequence_the_model_stays_edited_and_alone_it_does_not() -> None:
    import torch

    made = editor()
    seen: list[int] = []
    requests = [REQUEST, EditRequest("A {} is", "bird", "blue")]
    before = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    edits, alone = edit_model(made, requests, separately=True, watch=seen.append)
    assert seen == [0, 1, 2]
    assert all(torch.equal(before[name], tensor) for name, tensor in made.model.state_dict().items())
    assert torch.equal(edits[0].original, edits[1].original)
    edits, together = edit_model(made, requests)
    assert not torch.equal(edits[0].original, edits[1].original)
    assert together[0].measured == alone[0].measured
    assert together[0].at_end != together[0].measured.edit.after
    notes = edits_document(together * 6)["notes"]
    assert "12 edits in a row" in notes[0]
    assert not any("in a row" in note for note in edits_document(alone * 6, separately=True)["notes"])


def chatty(*, beginning: bool) -> Any:
    import copy

    tokenizer = copy.deepcopy(byte_tokenizer(beginning=beginning))
    tokenizer.chat_template = CHAT
    return tokenizer


@pytest.mark.parametrize("beginning", [False, True])
def test_a_chat_is_what_its_template_says(beginning: bool) -> None:
    tokenizer = chatty(beginning=beginning)
    request = replace(REQUEST, paraphrases=("Where is Pisa?",), neighbourhood=(Neighbour("And Rome?"),))
    chat = in_chat(tokenizer, request)
    head = "[user] " if beginning else "<bos>[user] "
    assert chat.prompt == f"{head}The tower of Pisa stands in\n[assistant]"
    assert (chat.opening, chat.joint) == (head, " ")
    assert chat.paraphrases == (f"{head}Where is Pisa?\n[assistant]",)
    assert chat.neighbourhood[0].prompt == f"{head}And Rome?\n[assistant]"
    turns = [{"role": "user", "content": REQUEST.prompt}, {"role": "assistant", "content": "Rome"}]
    whole = tokenizer.apply_chat_template(turns, return_dict=False)
    asked = [*tokenizer(chat.prompt)["input_ids"], *target_ids(tokenizer, chat)]
    assert whole[: len(asked)] == asked


class Listening:
    """A tokenizer that remembers what it was asked to encode."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.texts: list[str] = []

    def __call__(self, text: str, **options: Any) -> Any:
        self.texts.append(text)
        return self._tokenizer(text, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def test_a_context_stays_within_the_users_turn() -> None:
    tokenizer = Listening(chatty(beginning=True))
    find_edit(fresh("llama"), tokenizer, in_chat(tokenizer, REQUEST), settings=QUICK, prefixes=("Some text",))
    assert "[user] Some text. The tower of Pisa stands in\n[assistant]" in tokenizer.texts
    assert not any(text.startswith("Some text") for text in tokenizer.texts)


def test_without_a_chat_template_or_with_a_changing_one() -> None:
    with pytest.raises(AlignmendError, match="no chat template"):
        in_chat(byte_tokenizer(), REQUEST)
    tokenizer = chatty(beginning=True)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}"
    with pytest.raises(AlignmendError, match="changes the prompt"):
        in_chat(tokenizer, REQUEST)
