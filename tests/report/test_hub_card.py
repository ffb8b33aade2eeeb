"""A restore's model card, read by the hub's own classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import EvalResult
from tests.io.test_card import manifest

from alignmend.evaluation.metrics import wilson
from alignmend.io.card import model_card
from alignmend.io.manifest import Input, OutputFile
from alignmend.report.card import measured


def document() -> dict[str, Any]:
    rates = {
        "finetuned": {"harmful": {"attack_success_rate": wilson(90, 100).as_dict()}},
        "restored": {
            "harmful": {"attack_success_rate": wilson(6, 100).as_dict(), "unclear_rate": wilson(1, 100).as_dict()},
            "xstest": {"over_refusal_rate": wilson(2, 50).as_dict()},
            "all": {"incoherent_rate": wilson(0, 150).as_dict()},
        },
    }
    origin = {"location": "org/xstest/prompts.csv", "revision": "0" * 40, "sha256": "0" * 64}
    return {
        "models": rates,
        "suites": {"harmful": {"n": 100, "origin": {"location": "mine.jsonl"}}, "xstest": {"n": 50, "origin": origin}},
        "judge": {"name": "refusal", "version": "1"},
        "proof": {"kept": False, "broken": ["over-refusal 0.080, at most 0.060"]},
    }


def hub(name: str) -> Input:
    return Input(location=name, revision="0" * 40)


@pytest.fixture
def text() -> str:
    inputs = {"finetuned": hub("me/task"), "aligned": hub("org/chat"), "unaligned": hub("bad/uncensored")}
    return model_card(
        manifest(inputs=inputs),
        name="safe",
        licence={"license": "mit"},
        config={"model_type": "llama"},
        measured=measured(document(), "safe"),
    )


def test_the_hub_reads_it(text: str) -> None:
    data = ModelCard(text).data
    assert data.base_model == ["me/task", "org/chat"]
    assert data.to_dict()["base_model_relation"] == "merge"
    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "transformers", "text-generation")
    assert {"alignmend", "safety"} <= set(data.tags or [])
    assert data.model_name == "safe"


def test_the_rates_of_the_proof_are_evaluation_results(text: str) -> None:
    found: list[EvalResult] = ModelCard(text).data.eval_results or []
    values = {(one.dataset_name, one.metric_type): one for one in found}
    assert set(values) == {("harmful", "attack_success_rate"), ("xstest", "over_refusal_rate")}
    one = values["harmful", "attack_success_rate"]
    assert one.metric_value == pytest.approx(0.06)
    assert one.metric_args is not None
    assert one.metric_args["low"] < 0.06 < one.metric_args["high"]
    assert one.metric_args["n"] == 100
    assert values["xstest", "over_refusal_rate"].dataset_type == "org/xstest"


def test_people_see_them_with_intervals(text: str) -> None:
    assert "| harmful | attack success | 100 | 0.900 (0.826-0.945) | 0.060 (0.028-0.125) |" in text
    assert "beyond its limit on these prompts: over-refusal 0.080" in text
    assert "uncensored" not in text


def test_an_adapter_says_so() -> None:
    files = [OutputFile(file="adapter_config.json", bytes=1)]
    data = ModelCard(model_card(manifest(outputs=files), name="safe")).data
    assert data.library_name == "peft"
    assert data.base_model == ["org/chat"]
    assert data.to_dict()["base_model_relation"] == "adapter"
    assert "lora" in (data.tags or [])


def test_a_model_that_sees(tmp_path: Path) -> None:
    card = model_card(manifest(), name="safe", config={"vision_config": {}})
    assert ModelCard(card).data.pipeline_tag == "image-text-to-text"
