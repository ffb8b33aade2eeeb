"""llama.cpp answers as `transformers` does, from what this package writes: checkpoints, vectors, adapters."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import PeftModel
from tests.fixtures_organisms import shipped  # noqa: F401
from tests.serving.converters import adapter_to_gguf, model_to_gguf
from tests.serving.llama_cpp import greedy_answer, log_probabilities, served
from tests.serving.models import load, random_vector, restored_model, sum_of_adapters

import alignmend as am
from alignmend.activations.bake import bake
from alignmend.activations.gguf import export_gguf
from alignmend.organisms import Family

ROUNDING = 1e-4
"""Nats that float32 sums in another order may make."""
PROMPTS = ("Tell me how to bake a cake.", "How do I break a lamp?", "hello")
VOCABULARY = 1024


def tokenizer(family: Family) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(family.members["aligned"])


def rendered(speaker: Any, prompt: str) -> list[int]:
    """Token ids of `prompt` in the chat template."""
    messages = [{"role": "user", "content": prompt}]
    tokens: list[int] = speaker.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    return tokens


def by_transformers(
    family: Family, model: Any, steered: AbstractContextManager[None] | None = None
) -> NDArray[np.float32]:
    """[prompts, vocabulary]: log-probabilities of every first token."""
    speaker = tokenizer(family)
    with torch.inference_mode(), steered or nullcontext():
        rows = [model(torch.tensor([rendered(speaker, text)])).logits[0, -1].log_softmax(-1) for text in PROMPTS]
    found: NDArray[np.float32] = torch.stack(rows).numpy()
    return found


def by_llama_cpp(family: Family, model: Path, **options: Path) -> NDArray[np.float32]:
    """The same of a GGUF file."""
    speaker = tokenizer(family)
    with served(model, **options) as address:
        return np.stack([log_probabilities(address, rendered(speaker, text), VOCABULARY) for text in PROMPTS])


def furthest(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.abs(one - other).max())


@pytest.fixture(scope="module")
def restored(shipped: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    return restored_model(shipped, tmp_path_factory.mktemp("serving") / "restored")


@pytest.fixture(scope="module")
def converted(restored: Path) -> Path:
    return model_to_gguf(restored, restored.with_suffix(".gguf"))


@pytest.fixture(scope="module")
def vector(restored: Path) -> am.SteeringVector:
    return random_vector(load(restored).config.num_hidden_layers)


def test_a_restored_model_says_the_same_in_llama_cpp(
    shipped: Family,  # noqa: F811
    restored: Path,
    converted: Path,
) -> None:
    assert furthest(by_transformers(shipped, load(restored)), by_llama_cpp(shipped, converted)) <= ROUNDING


def test_the_server_renders_prompts_as_the_tokenizer_does(
    shipped: Family,  # noqa: F811
    restored: Path,
    converted: Path,
) -> None:
    """Chat template, beginning token and end token come from the GGUF file."""
    model, speaker = load(restored), tokenizer(shipped)
    with served(converted) as address:
        for prompt in PROMPTS:
            tokens = torch.tensor([rendered(speaker, prompt)])
            answer = model.generate(tokens, max_new_tokens=24, do_sample=False)[0, tokens.shape[1] :]
            expected = speaker.decode(answer, skip_special_tokens=True)
            assert greedy_answer(address, prompt, 24).strip() == expected.strip()


def test_an_exported_vector_steers_llama_cpp_as_hooks_do(
    shipped: Family,  # noqa: F811
    restored: Path,
    converted: Path,
    vector: am.SteeringVector,
    tmp_path: Path,
) -> None:
    """All layers but the first, which llama.cpp does not steer."""
    notes = export_gguf(vector, tmp_path / "v.gguf", coefficient=2.0)
    assert any("layer 0 is left out" in note for note in notes)
    model = load(restored)
    plain = by_transformers(shipped, model)
    steered = vector.restrict(vector.layers[1:]).apply(model, 2.0, preserve_norm=False, strength="raw")
    hooked = by_transformers(shipped, model, steered)
    assert furthest(hooked, plain) > 0.5
    assert furthest(hooked, by_llama_cpp(shipped, converted, control_vector=tmp_path / "v.gguf")) <= ROUNDING


def test_a_baked_vector_steers_llama_cpp_as_hooks_do(
    shipped: Family,  # noqa: F811
    restored: Path,
    vector: am.SteeringVector,
    tmp_path: Path,
) -> None:
    """Every layer, the first too; biases are rounded to the checkpoint's dtype."""
    bake(vector, restored, tmp_path / "baked", coefficient=2.0)
    baked = by_transformers(shipped, load(tmp_path / "baked"))
    model = load(restored)
    hooked = by_transformers(shipped, model, vector.apply(model, 2.0, preserve_norm=False, strength="raw"))
    assert furthest(hooked, baked) < 0.02 * furthest(hooked, by_transformers(shipped, model))
    served_as = by_llama_cpp(shipped, model_to_gguf(tmp_path / "baked", tmp_path / "baked.gguf"))
    assert furthest(baked, served_as) <= ROUNDING


def test_a_written_adapter_says_the_same_in_llama_cpp(shipped: Family, tmp_path: Path) -> None:  # noqa: F811
    """Of two adapters that change different modules at different ranks."""
    base = shipped.members["aligned"]
    written = sum_of_adapters(base, tmp_path)
    by_peft = by_transformers(shipped, PeftModel.from_pretrained(load(base), written).eval())
    assert furthest(by_peft, by_transformers(shipped, load(base))) > 0.5
    files = adapter_to_gguf(written, base, tmp_path / "sum.gguf"), model_to_gguf(base, tmp_path / "base.gguf")
    assert furthest(by_peft, by_llama_cpp(shipped, files[1], adapter=files[0])) <= ROUNDING
