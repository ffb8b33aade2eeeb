"""vLLM answers as `transformers` does, from what this package writes: checkpoints, biases, adapters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures_organisms import shipped  # noqa: F401
from tests.serving.models import random_vector, restored_model, sum_of_adapters

from alignmend.activations.bake import bake
from alignmend.evaluation.generation import TransformersBackend
from alignmend.evaluation.records import Prompt
from alignmend.evaluation.vllm_backend import VllmBackend
from alignmend.organisms import Family

pytest.importorskip("vllm")
PROMPTS = [Prompt(suite="s", id=str(index), text=text) for index, text in enumerate(("hi", "what is it?", "tell me"))]
OPTIONS: dict[str, Any] = {"dtype": "float32", "enforce_eager": True, "gpu_memory_utilization": 0.2}


def restored(family: Family, folder: Path) -> Path:
    return restored_model(family, folder / "restored")


def baked(family: Family, folder: Path) -> Path:
    bake(random_vector(4), family.members["finetuned"], folder / "baked", coefficient=2.0)
    return folder / "baked"


def adapter(family: Family, folder: Path) -> Path:
    return sum_of_adapters(family.members["aligned"], folder)


@pytest.mark.parametrize("make", [restored, baked, adapter])
def test_vllm_says_what_transformers_says(
    shipped: Family,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Family, Path], Path],
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # on a processor it wants nine tenths of the memory otherwise
    model = make(shipped, tmp_path)
    served = VllmBackend.from_folder(model, max_new_tokens=24, **OPTIONS)
    direct = TransformersBackend.from_folder(model, max_new_tokens=24)
    for over, here in zip(served.generate(PROMPTS), direct.generate(PROMPTS), strict=True):
        assert over.response == here.response
        assert (over.finish_reason, over.response_tokens) == (here.finish_reason, here.response_tokens)
        assert over.rendered_hash == here.rendered_hash
