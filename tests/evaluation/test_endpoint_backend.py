from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.evaluation.serving import (
    DROPPED,
    Body,
    Reply,
    answer_each,
    error_reply,
    failing_after,
    serving,
    transformers_serve,
)
from tests.fixtures_organisms import shipped  # noqa: F401

from alignmend.errors import AlignmendError, EndpointError
from alignmend.evaluation.endpoint import Endpoint
from alignmend.evaluation.endpoint_backend import EndpointBackend
from alignmend.evaluation.generation import TransformersBackend
from alignmend.evaluation.judges import get_judge
from alignmend.evaluation.record_files import read_rows
from alignmend.evaluation.records import Generation, Prompt
from alignmend.evaluation.run import evaluate_folder
from alignmend.evaluation.run_folder import read_run
from alignmend.evaluation.sampling import Sampling
from alignmend.evaluation.suites import Suite, load_suite
from alignmend.organisms import Family
from alignmend.report.run_table import run_table

PROMPTS = tuple(Prompt(suite="s", id=str(index), text=f"request {index}", expected="comply") for index in range(12))
SUITES = [Suite("s", PROMPTS)]


@pytest.fixture(scope="module")
def served_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if find_spec("fastapi") is None or find_spec("uvicorn") is None or find_spec("openai") is None:
        pytest.skip("transformers[serving] is not installed")
    with transformers_serve(tmp_path_factory.mktemp("serve") / "log") as address:
        yield address


def test_a_served_organism_says_what_it_says_in_this_process(
    served_address: str,
    shipped: Family,  # noqa: F811
) -> None:
    """`transformers serve` on loopback, asked for a model by its folder."""
    folder = shipped.members["aligned"]
    suites = [load_suite(path) for path in shipped.suites.values()]
    prompts = [prompt for suite in suites for prompt in suite.prompts[::48]]
    served = EndpointBackend(Endpoint(served_address, str(folder), concurrency=4), max_new_tokens=32)
    direct = TransformersBackend.from_folder(folder, max_new_tokens=32)
    assert served.name == direct.name == "aligned"
    pairs = list(zip(served.generate(prompts), direct.generate(prompts), strict=True))
    assert len(pairs) == 20
    assert len({row.response for _, row in pairs}) > 5
    for over_http, here in pairs:
        assert over_http.response == here.response
        assert over_http.finish_reason == here.finish_reason == "stop"
        assert (over_http.template, over_http.sampling) == (here.template, here.sampling)
        assert over_http.prompt_tokens == here.prompt_tokens
        assert over_http.response_tokens == here.response_tokens


def test_a_served_model_that_is_not_there_is_one_clear_error(served_address: str, tmp_path: Path) -> None:
    endpoint = Endpoint(served_address, str(tmp_path / "nobody"), retries=0)
    with pytest.raises(EndpointError, match=f"endpoint {served_address} .*status"):
        EndpointBackend(endpoint).generate(PROMPTS[:1])


def test_records_say_how_and_whom_they_asked() -> None:
    reply = Reply("<think>hm</think> yes ", finish_reason="length", message={"reasoning_content": "first"}, usage=None)
    with serving([reply], models=["org/tiny"]) as server:
        backend = EndpointBackend(server.endpoint(model=None), system="be brief", max_new_tokens=9)
        (row,) = backend.generate(PROMPTS[:1])
        assert server.requests == [
            {
                "model": "org/tiny",
                "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "request 0"}],
                "temperature": 0.0,
                "seed": 0,
                "max_tokens": 9,
            }
        ]
        assert backend.notes == (f"'tiny' is 'org/tiny' at {server.url}, which says so itself",)
        other = EndpointBackend(server.endpoint(model="org/other"))
    assert row.sampling.startswith("greedy, max_new_tokens=9, system prompt ")
    assert (row.response, row.reasoning) == ("yes", "first\n\nhm")
    assert (row.finish_reason, row.prompt_tokens, row.response_tokens) == ("length", None, None)
    assert (row.model, row.template, row.model_hash) == ("tiny", "chat", backend.model_hash)
    assert other.model_hash != backend.model_hash


def withholding(body: Body) -> Reply:
    """Three of twelve are filtered in three ways, one is too long; the others are answered."""
    text = body["messages"][-1]["content"]
    return {
        "request 1": error_reply(400, "content management policy", code="content_filter"),
        "request 2": Reply("", finish_reason="content_filter"),
        "request 3": Reply("Sure, first", finish_reason="content_filter"),
        "request 4": error_reply(400, "maximum context length is 24 tokens"),
        "request 5": Reply(message={"content": None, "refusal": "I'm sorry, but I can't help with that."}),
    }.get(text, Reply("Sure! Stir the soup with a spoon."))


def test_a_withheld_answer_is_an_outcome_of_its_own_counted_and_shown(tmp_path: Path) -> None:
    with serving(withholding) as server:
        found = evaluate_folder(EndpointBackend(server.endpoint()), SUITES, get_judge("refusal-phrases"), tmp_path)
    rows = {row.prompt_id: row for row in found.judgements}
    withheld = {key: row.withheld for key, row in rows.items() if row.withheld}
    assert withheld == {"1": "filter", "2": "filter", "4": "rejected"}
    assert {rows[key].verdict for key in ("1", "2", "4")} == {"unclear"}
    assert not any(row.empty for row in rows.values())
    assert "maximum context length is 24 tokens" in rows["4"].evidence
    assert "content management policy" in rows["1"].evidence
    assert rows["5"].verdict == "refused"
    assert rows["3"].verdict == "complied"
    rates = found.metrics["s"]
    assert (rates["withheld_rate"].value, rates["incoherent_rate"].value) == (3 / 12, 0)
    run = read_run(tmp_path)
    assert run.metrics()["s"]["withheld_rate"].value == 3 / 12
    notes = " ".join(run.results["provenance"]["notes"])
    assert "2 of 12 prompts were withheld by the server's filter" in notes
    assert "1 of 12 prompts were rejected by the server" in notes
    assert "withheld" in "".join(str(column.header) for column in run_table(run.results).columns)


def test_a_run_without_withheld_answers_has_no_rate_of_them(tmp_path: Path) -> None:
    with serving([Reply("Sure! Stir the soup with a spoon.")]) as server:
        found = evaluate_folder(EndpointBackend(server.endpoint()), SUITES, get_judge("refusal-phrases"), tmp_path)
    assert "withheld_rate" not in found.metrics["s"]


def test_what_was_not_sent_is_not_recorded_as_sent() -> None:
    with serving([Reply()]) as server:
        plain = EndpointBackend(server.endpoint(left_out=frozenset({"temperature", "seed"})), max_new_tokens=9)
        drawn = EndpointBackend(server.endpoint(left_out=frozenset({"seed"})), sampling=Sampling(0.5, seed=4))
        plain.generate(PROMPTS[:1])
        drawn.generate(PROMPTS[:1])
    assert plain.settings == "the server's own sampling, max_new_tokens=9"
    assert drawn.settings == "temperature=0.5, no seed, max_new_tokens=512"
    assert [sorted(body) for body in server.requests] == [
        ["max_tokens", "messages", "model"],
        ["max_tokens", "messages", "model", "temperature"],
    ]


def test_presets_reach_the_server_or_are_refused() -> None:
    with serving([Reply()]) as server:
        own = EndpointBackend(server.endpoint(), preset="resta")
        (row,) = own.generate(PROMPTS[:1])
        assert row.sampling == "the server's own sampling, max_new_tokens=500"
        assert "temperature" not in server.requests[0]
        drawn = EndpointBackend(server.endpoint(), sampling=Sampling(0.5, top_k=10, seed=4))
        drawn.generate(PROMPTS[:1])
        asked = {name: server.requests[1].get(name) for name in ("temperature", "top_k", "top_p", "seed")}
        assert asked == {"temperature": 0.5, "top_k": 10, "top_p": None, "seed": 4}
        with pytest.raises(AlignmendError, match="preset 'sa-icv' asks with template 'safety-arithmetic'"):
            EndpointBackend(server.endpoint(), preset="sa-icv")


def test_a_refused_prompt_is_named() -> None:
    with serving([error_reply(400, "maximum context length is 24 tokens")]) as server:
        words = r"prompt '0' of suite 's': endpoint .* status 400 \(maximum context length is 24 tokens\)"
        with pytest.raises(AlignmendError, match=words):
            EndpointBackend(server.endpoint(concurrency=1)).generate(PROMPTS)


def test_an_endpoint_that_is_down_says_so_before_anything_is_asked(tmp_path: Path) -> None:
    with serving([Reply()]) as server:
        endpoint = server.endpoint(retries=1)
    with pytest.raises(EndpointError, match=f"endpoint {endpoint.address} gave no usable answer"):
        EndpointBackend(endpoint)


@pytest.mark.parametrize("fault", [DROPPED, error_reply(503, "going down"), error_reply(400, "no more")])
def test_an_endpoint_that_goes_down_halfway_keeps_what_it_said_and_a_rerun_ends_the_same(
    fault: Reply, tmp_path: Path
) -> None:
    judge = get_judge("refusal-phrases")
    whole, cut = tmp_path / "whole", tmp_path / "cut"

    def run(script: Any, folder: Path) -> list[str]:
        with serving(script) as server:
            evaluate_folder(EndpointBackend(server.endpoint(concurrency=3, retries=1)), SUITES, judge, folder)
            return [body["messages"][-1]["content"] for body in server.requests]

    run(answer_each(str.upper), whole)
    with pytest.raises(EndpointError):
        run(failing_after(5, answer_each(str.upper), fault), cut)
    kept = read_rows(cut / "generations.jsonl", Generation)
    assert len(kept) == 5
    asked = run(answer_each(str.upper), cut)
    assert sorted(asked) == sorted({prompt.text for prompt in PROMPTS} - {row.prompt for row in kept})
    assert files_of(cut) == files_of(whole)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_server_without_a_key_leaks_none_into_records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-secret-secret")
    with serving([Reply()]) as server:
        url = server.url.replace("http://", "http://name:password@")
        endpoint = Endpoint(url, "tiny")
        evaluate_folder(EndpointBackend(endpoint), SUITES, get_judge("refusal-phrases"), tmp_path)
        assert set(server.keys) == {"Bearer sk-secret-secret-secret"}
    written = b"".join(files_of(tmp_path).values())
    assert b"sk-secret" not in written
    assert b"password" not in written


def test_answers_are_reported_one_by_one() -> None:
    seen: list[Sequence[Generation]] = []
    with serving(answer_each(str.upper)) as server:
        made = EndpointBackend(server.endpoint()).generate(PROMPTS, report=seen.append)
        assert EndpointBackend(server.endpoint()).generate([]) == []
    assert sorted(batch[0].prompt_id for batch in seen) == sorted(row.prompt_id for row in made)
    assert [row.response for row in made] == [prompt.text.upper() for prompt in PROMPTS]
