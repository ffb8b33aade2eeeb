from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluation.serving import (
    DROPPED,
    Body,
    Reply,
    answer_each,
    error_reply,
    failing_after,
    serving,
    unused_address,
)

from alignmend.errors import AlignmendError, EndpointError, RefusedRequestError
from alignmend.evaluation.endpoint import ChatClient, Endpoint
from alignmend.evaluation.endpoint_answer import ChatAnswer, read_answer
from alignmend.evaluation.endpoint_client import hidden_fault
from alignmend.evaluation.endpoint_transport import base_address

KEY = "sk-this-key-must-never-be-seen-0123456789"


def asking(*texts: str) -> list[list[Mapping[str, str]]]:
    return [[{"role": "user", "content": text}] for text in texts]


def test_answers_come_back_in_order_whatever_the_order_they_came_in() -> None:
    texts = [str(number) for number in range(20)]

    def script(body: Body) -> Reply:
        number = int(body["messages"][-1]["content"])
        return Reply(f"said {number}", delay=0.02 * (number % 3))

    seen: dict[int, ChatAnswer] = {}
    with serving(script) as server:
        answers = ChatClient(server.endpoint(concurrency=6)).complete(asking(*texts), report=seen.__setitem__)
    assert [answer.text for answer in answers] == [f"said {text}" for text in texts]
    assert [seen[position] for position in range(20)] == answers
    assert 1 < server.most_at_once <= 6


def test_what_is_asked_is_what_was_said_and_nothing_else() -> None:
    with serving([Reply()]) as server:
        client = ChatClient(server.endpoint())
        client.complete(asking("hi"), temperature=0.25, max_tokens=7, seed=3, options={"top_p": 0.5, "top_k": None})
        client.complete(asking("hi"), temperature=None, seed=None)
    plain = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
    assert server.requests == [
        {**plain, "temperature": 0.25, "max_tokens": 7, "seed": 3, "top_p": 0.5},
        {**plain, "max_tokens": 512},
    ]


@pytest.mark.parametrize(
    "fault",
    [
        error_reply(500, "worker died"),
        error_reply(503, "loading"),
        error_reply(408, "slow"),
        error_reply(409, "busy"),
        error_reply(429, "slow down", headers={"Retry-After": "0"}),
        DROPPED,
        Reply(delay=1.0),
        Reply(body=b"<html>bad gateway</html>"),
        Reply(body=b'{"choices": [{"mess'),
        Reply(body=b"[1]"),
        Reply(body=b'{"error": {"message": "upstream overloaded", "code": 502}}'),
        Reply(body=b'{"choices": []}'),
        Reply(body=b'{"choices": [{"message": {"content": ""}, "error": {"code": 502}, "finish_reason": "error"}]}'),
    ],
    ids=["500", "503", "408", "409", "429", "dropped", "hang", "html", "cut", "list", "error", "none", "in-choice"],
)
def test_passing_faults_are_asked_again(fault: Reply) -> None:
    with serving([fault, fault, Reply("at last")]) as server:
        (answer,) = ChatClient(server.endpoint(timeout=0.3)).complete(asking("hi"))
    assert answer.text == "at last"
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (error_reply(500, "worker  died\nbadly"), r"status 500 \(worker died badly\)"),
        (DROPPED, "disconnected|closed|read"),
        (Reply(delay=1.0), "no answer within 0.2 seconds"),
        (Reply(body=b"<html>"), "not a JSON object: '<html>'"),
        (Reply(body=b"{}"), "an answer without a choice"),
        (Reply(body=b'{"error": {"message": "overloaded"}}'), "an error in an answer with status 200: 'overloaded'"),
    ],
    ids=["500", "dropped", "hang", "html", "empty", "error"],
)
def test_faults_that_stay_end_in_one_message_that_names_the_address(fault: Reply, words: str) -> None:
    with serving([fault]) as server, pytest.raises(EndpointError, match=words) as caught:
        ChatClient(server.endpoint(retries=2, timeout=0.2)).complete(asking("hi"))
    assert len(server.requests) == 3
    assert f"endpoint {server.url} gave no usable answer in 3 attempts" in str(caught.value)
    assert "then run again" in str(caught.value)


def test_an_address_where_nobody_listens_is_one_clear_error() -> None:
    address = unused_address()
    with pytest.raises(EndpointError, match=f"endpoint {address} gave no usable answer in 2 attempts.*run again"):
        ChatClient(Endpoint(address, "m", retries=1)).complete(asking("hi"))


def test_a_server_asks_for_a_pause_and_gets_it() -> None:
    with serving([error_reply(429, "slow down", headers={"Retry-After": "1"}), Reply()]) as server:
        start = time.monotonic()
        ChatClient(server.endpoint()).complete(asking("hi"))
    assert time.monotonic() - start >= 1.0


@pytest.mark.parametrize("status", [401, 404])
def test_a_refused_request_is_not_repeated_and_tells_the_servers_words(status: int) -> None:
    long = "This model's maximum context length is 24 tokens. " + "x" * 5000
    with serving([error_reply(status, long)]) as server:
        with pytest.raises(RefusedRequestError, match=r"maximum context length is 24 tokens. x+ \.\.\.") as caught:
            ChatClient(server.endpoint()).complete(asking("hi"))
        assert len(server.requests) == 1
    assert caught.value.status == status
    assert caught.value.position == 0
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "body",
    [b'{"detail": "no such model"}', b'{"message": "no such model"}', b'{"error": "no such model"}', b"no such model"],
)
def test_errors_are_read_in_the_forms_that_servers_use(body: bytes) -> None:
    words = r"refused the request with status 404 \(no such model\)$"
    with serving([Reply(status=404, body=body)]) as server, pytest.raises(RefusedRequestError, match=words):
        ChatClient(server.endpoint()).complete(asking("hi"))


def test_a_key_is_sent_and_never_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    echo = f"Incorrect API key provided: {KEY}; you may have meant sk-proj-abcdefgh*****xyz"
    caplog.set_level("DEBUG")
    for script in ([error_reply(401, echo)], [error_reply(500, echo)]):
        with serving(script) as server, pytest.raises(EndpointError) as caught:
            ChatClient(server.endpoint(key_variable="SOME_KEY", retries=0)).complete(asking("hi"))
        assert server.keys == [f"Bearer {KEY}"]
        assert "Incorrect API key provided: [key]; you may have meant [key]" in str(caught.value)
    assert KEY not in caplog.text
    assert KEY not in repr(server.endpoint(key_variable="SOME_KEY"))


def test_without_a_key_none_is_sent_and_a_server_that_wants_one_says_where_it_belongs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    words = "environment variable OPENAI_API_KEY"
    with serving([error_reply(401, "no key")]) as server, pytest.raises(EndpointError, match=words):
        ChatClient(server.endpoint()).complete(asking("hi"))
    assert server.keys == [None]


@pytest.mark.parametrize("key", ["sk-sécret-0123456", "sk-secret\n0123456", "two words"])
def test_a_key_that_is_none_is_not_shown_either(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with serving([Reply()]) as server, pytest.raises(AlignmendError, match="variable OPENAI_API_KEY holds") as caught:
        ChatClient(server.endpoint()).complete(asking("hi"))
    assert key not in str(caught.value)
    assert server.requests == []


def test_the_only_model_is_the_model_and_of_several_one_must_be_named() -> None:
    with serving([Reply()], models=["only"]) as server:
        ChatClient(server.endpoint(model=None)).complete(asking("hi"))
        assert server.requests[0]["model"] == "only"
    with serving([Reply()], models=["b", "a"]) as server:
        with pytest.raises(EndpointError, match=r"lists 2 models \(a, b\); say which one to ask"):
            ChatClient(server.endpoint(model=None)).complete(asking("hi"))
        served = ChatClient(server.endpoint(model="a")).served()
        assert (served.name, dict(served.about)) == ("a", {"id": "a", "object": "model"})
        assert ChatClient(server.endpoint(model="c")).served().about == {}
    with serving([Reply()], models=None) as server:
        assert ChatClient(server.endpoint(model="c")).served().about == {}
        with pytest.raises(EndpointError, match="status 500"):
            ChatClient(server.endpoint(model=None, retries=0)).served()


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply("cut", finish_reason="length"), ChatAnswer("cut", "length", 3, 2)),
        (Reply("", finish_reason="content_filter", usage=None), ChatAnswer("", "filter", None, None)),
        (Reply(message={"content": None, "reasoning_content": "why"}), ChatAnswer("", "stop", 3, 2, "why")),
        (Reply(message={"reasoning": "why"}, usage={}), ChatAnswer("ok", "stop", None, None, "why")),
    ],
)
def test_what_a_server_says_of_an_answer_is_kept(reply: Reply, expected: ChatAnswer) -> None:
    with serving([reply]) as server:
        assert ChatClient(server.endpoint()).complete(asking("hi")) == [expected]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"content": None, "refusal": "I can't."}, ("I can't.", None)),
        ({"content": "", "refusal": "I can't."}, ("I can't.", None)),
        ({"content": "Well.", "refusal": "I can't."}, ("Well.\n\nI can't.", None)),
        ({"content": [{"type": "refusal", "refusal": "I can't."}]}, ("I can't.", None)),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]},
                    {"type": "text", "text": "Yes"},
                ]
            },
            ("Yes", "Hm"),
        ),
        ({"content": [{"type": "reasoning", "text": "Hm"}, {"text": "Ye"}, "s"]}, ("Yes", "Hm")),
        ({"content": [{"type": "image"}, 1, None]}, ("", None)),
        ({"content": None, "reasoning_content": "Hm"}, ("", "Hm")),
    ],
)
def test_an_answer_is_read_in_every_form_that_servers_give(
    message: dict[str, Any], expected: tuple[str, str | None]
) -> None:
    with serving([Reply(message=message)]) as server:
        (answer,) = ChatClient(server.endpoint()).complete(asking("hi"))
    assert (answer.text, answer.reasoning) == expected


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (None, "stop"),
        ("surprise", "stop"),
        ("abort", "stop"),
        ("MAX_TOKENS", "length"),
        ("sensitive", "filter"),
        ("SAFETY", "filter"),
    ],
)
def test_an_odd_end_ends_no_run(reason: str | None, expected: str) -> None:
    with serving([Reply("yes", finish_reason=reason)]) as server:
        (answer,) = ChatClient(server.endpoint()).complete(asking("hi"))
    assert (answer.text, answer.finish_reason) == ("yes", expected)


def test_an_answer_without_a_finish_reason_is_one() -> None:
    with serving([Reply(body=b'{"choices": [{"message": {"content": "yes"}}]}')]) as server:
        assert ChatClient(server.endpoint()).complete(asking("hi")) == [ChatAnswer("yes", "stop", None, None)]


@pytest.mark.parametrize(
    "fault",
    [
        error_reply(400, "policy", code="content_filter"),
        error_reply(400, "Input data may contain inappropriate content.", code="data_inspection_failed"),
        Reply(status=403, body=b'{"error": {"code": 403, "message": "flagged", "metadata": {"flagged_input": "x"}}}'),
        Reply(body=b'{"error": {"code": 400, "message": "no", "type": "content_filter"}}'),
    ],
    ids=["openai", "dashscope", "openrouter", "inside"],
)
def test_a_filter_is_an_answer_of_its_own_however_often(fault: Reply) -> None:
    with serving([fault]) as server:
        answers = ChatClient(server.endpoint()).complete(asking(*"abcdef"))
    assert {answer.finish_reason for answer in answers} == {"filter"}
    assert all(answer.problem and "refused the request" in answer.problem for answer in answers)


@pytest.mark.parametrize("status", [400, 403, 413, 422])
def test_a_prompt_that_the_server_rejects_is_recorded_and_the_others_are_answered(status: int) -> None:
    long = "This model's maximum context length is 24 tokens. " + "x" * 5000

    def script(body: Body) -> Reply:
        text = body["messages"][-1]["content"]
        return error_reply(status, long) if text == "c" else Reply(text)

    with serving(script) as server:
        answers = ChatClient(server.endpoint(concurrency=2)).complete(asking(*"abcdef"))
        assert len(server.requests) == 6
    assert [answer.text for answer in answers] == ["a", "b", "", "d", "e", "f"]
    assert [answer.finish_reason for answer in answers].count("rejected") == 1
    assert answers[2].problem is not None
    assert f"status {status} (This model's maximum context length is 24 tokens." in answers[2].problem
    assert len(answers[2].problem) < 600


@pytest.mark.parametrize("concurrency", [1, 3, 8])
def test_a_server_that_rejects_most_is_an_error_and_nothing_rejected_was_reported(concurrency: int) -> None:
    seen: dict[int, ChatAnswer] = {}
    with serving(failing_after(4, answer_each(str.upper), error_reply(400, "no"))) as server:
        client = ChatClient(server.endpoint(concurrency=concurrency))
        with pytest.raises(RefusedRequestError, match=r"status 400 \(no\)") as caught:
            client.complete(asking(*"abcdefghijklmnopqrstuvwxyz"), report=seen.__setitem__)
        assert len(server.requests) < 20
    assert caught.value.position is not None
    assert len(seen) == 4 and {answer.finish_reason for answer in seen.values()} == {"stop"}


@pytest.mark.parametrize(
    ("name", "reply"),
    [
        ("seed", Reply(status=422, body=b'{"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs", "input": 0}]}')),
        ("temperature", error_reply(400, "Unsupported value: 'temperature' does not support 0 with this model.")),
    ],
)
def test_a_parameter_that_the_server_does_not_take_can_be_left_out(name: str, reply: Reply) -> None:
    def script(body: Body) -> Reply:
        return reply if name in body else Reply("yes")

    with serving(script) as server:
        with pytest.raises(RefusedRequestError, match=f"leave it out with --no-{name}$"):
            ChatClient(server.endpoint()).complete(asking("hi"))
        (answer,) = ChatClient(server.endpoint(left_out=frozenset({name}))).complete(asking("hi"))
    assert answer.text == "yes"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b'data: {"choices": []}\n\ndata: [DONE]\n\n', headers={"Content-Type": "text/event-stream"}),
        Reply(body=b'data: {"choices": []}\n\n'),
    ],
)
def test_a_server_that_only_streams_is_told_once(reply: Reply) -> None:
    with serving([reply]) as server:
        with pytest.raises(EndpointError, match=f"endpoint {server.url} cannot be used: it answers in streams only"):
            ChatClient(server.endpoint()).complete(asking("hi"))
        assert len(server.requests) == 1


def test_a_server_that_asks_for_a_stream_is_told() -> None:
    reply = error_reply(400, "This model only supports streaming: set stream=true")
    with serving([reply]) as server, pytest.raises(RefusedRequestError, match="it answers in streams only"):
        ChatClient(server.endpoint()).complete(asking(*"abc"))


@pytest.mark.parametrize("concurrency", [1, 3, 8])
def test_servers_that_want_the_other_name_for_the_limit_get_it(concurrency: int) -> None:
    def script(body: Body) -> Reply:
        if "max_tokens" in body:
            return error_reply(400, "Unsupported parameter: use 'max_completion_tokens' instead")
        return Reply(str(body["max_completion_tokens"]))

    with serving(script) as server:
        answers = ChatClient(server.endpoint(concurrency=concurrency)).complete(asking(*"abcdefgh"), max_tokens=9)
    assert [answer.text for answer in answers] == ["9"] * 8
    assert len(server.requests) <= 8 + concurrency


def test_a_limit_that_is_too_large_for_one_prompt_changes_no_name() -> None:
    words = "'max_tokens' or 'max_completion_tokens' is too large: 512. This model's maximum context length is 400."
    with serving([error_reply(400, words), Reply("yes")]) as server:
        answers = ChatClient(server.endpoint(concurrency=1)).complete(asking("a", "b"))
    assert [answer.finish_reason for answer in answers] == ["rejected", "stop"]
    assert all("max_tokens" in body for body in server.requests)


@pytest.mark.parametrize("fault", [DROPPED, error_reply(400, "no")])
def test_what_was_answered_before_the_server_went_down_was_reported(fault: Reply) -> None:
    seen: dict[int, ChatAnswer] = {}
    with serving(failing_after(5, answer_each(str.upper), fault)) as server:
        client = ChatClient(server.endpoint(concurrency=2, retries=1))
        with pytest.raises(EndpointError):
            client.complete(asking(*"abcdefghij"), report=seen.__setitem__)
    assert len(seen) == 5
    assert all(answer.text == "ABCDEFGHIJ"[position] for position, answer in seen.items())
    assert len(server.requests) <= 10


def test_an_error_of_the_caller_ends_the_work_and_is_raised() -> None:
    def refuse(position: int, answer: ChatAnswer) -> None:
        raise ZeroDivisionError

    with serving([Reply()]) as server, pytest.raises(ZeroDivisionError):
        ChatClient(server.endpoint(concurrency=2)).complete(asking(*"abcdef"), report=refuse)
    assert len(server.requests) <= 2


def test_nothing_to_ask_is_nothing_asked() -> None:
    with serving([Reply()]) as server:
        assert ChatClient(server.endpoint()).complete([]) == []
    assert server.requests == []


def test_it_works_where_an_event_loop_runs_already() -> None:
    async def notebook(client: ChatClient) -> list[ChatAnswer]:
        return client.complete(asking("hi"))

    with serving([Reply("yes")]) as server:
        (answer,) = asyncio.run(notebook(ChatClient(server.endpoint())))
    assert answer.text == "yes"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/", "http://localhost:8000/v1"),
        ("https://host/openai/v1/", "https://host/openai/v1"),
        ("https://name:secret@host:1/v1?key=x#y", "https://host:1/v1"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
        ("http://h/v1/chat/completions", "http://h/v1"),
    ],
)
def test_addresses(url: str, address: str) -> None:
    assert base_address(url) == address == Endpoint(url).address


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "", "http://", "http://host:port", "user:secret@host"])
def test_what_is_no_address_is_refused_without_its_credentials(url: str) -> None:
    with pytest.raises(AlignmendError, match="is not an address; write for example") as caught:
        Endpoint(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("option", [{"concurrency": 0}, {"timeout": 0}, {"retries": -1}])
def test_senseless_options_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(AlignmendError, match=next(iter(option))):
        Endpoint("http://h", **option)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_whatever_json_comes_back_it_is_an_answer_or_a_fault(content: Any) -> None:
    for shape in (content, {"choices": content}, {"choices": [{"message": content}], "usage": content}):
        whole = json.loads(json.dumps(shape))
        status, fault = hidden_fault(whole, chat=True)
        if fault:
            assert 400 <= status < 600
        else:
            assert isinstance(read_answer(whole).text, str)
