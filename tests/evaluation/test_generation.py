from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from alignmend.errors import AlignmendError, NoMemoryError
from alignmend.evaluation.batching import side_by_side
from alignmend.evaluation.fingerprint import model_fingerprint
from alignmend.evaluation.generation import TransformersBackend
from alignmend.evaluation.records import Generation, Prompt

TEXTS = (
    "hi",
    "a longer request than the others, by far",
    "what?",
    "é 🙂 ñ",
    "tell me",
    "x",
    "why not tell me more",
)
PROMPTS = tuple(Prompt(suite="s", id=str(index), text=text) for index, text in enumerate(TEXTS))


def one_by_one(model: Any, tokenizer: Any, prompt: Prompt, limit: int) -> list[int]:
    """The slow reference: no cache, no padding, no batch; argmax of the last position."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt.text}], tokenize=False, add_generation_prompt=True
    )
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    start = len(ids)
    with torch.no_grad():
        while len(ids) - start < limit and (len(ids) == start or ids[-1] != tokenizer.eos_token_id):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[start:]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, None])
def test_batches_say_what_the_slow_reference_says(model: Any, tokenizer: Any, batch_size: int | None) -> None:
    backend = TransformersBackend(model, tokenizer, batch_size=batch_size, max_new_tokens=12, name="m")
    made = backend.generate(PROMPTS)
    assert [row.prompt_id for row in made] == [prompt.id for prompt in PROMPTS]
    for prompt, row in zip(PROMPTS, made, strict=True):
        reference = one_by_one(model, tokenizer, prompt, 12)
        assert row.response == tokenizer.decode(reference, skip_special_tokens=True).strip()
        assert row.response_tokens == len(reference)
        assert row.finish_reason == ("stop" if reference[-1] == tokenizer.eos_token_id else "length")


def test_each_batch_is_reported_once_longest_first(model: Any, tokenizer: Any) -> None:
    batches: list[Sequence[Generation]] = []
    backend = TransformersBackend(model, tokenizer, batch_size=2, max_new_tokens=3, name="m")
    made = backend.generate(PROMPTS, report=batches.append)
    flat = [row for batch in batches for row in batch]
    assert sorted(row.prompt_id for row in flat) == sorted(row.prompt_id for row in made)
    lengths = [row.prompt_tokens or 0 for row in flat]
    assert lengths == sorted(lengths, reverse=True)


def test_a_model_own_sampling_config_does_not_matter(model: Any, tokenizer: Any) -> None:
    backend = TransformersBackend(model, tokenizer, max_new_tokens=12, name="m")
    plain = backend.generate(PROMPTS)
    config = model.generation_config
    before = config.to_dict()
    config.update(do_sample=True, temperature=5.0, top_k=3, repetition_penalty=9.0, max_new_tokens=2)
    try:
        assert backend.generate(PROMPTS) == plain
    finally:
        config.update(**before)


def test_hooks_on_the_model_act_and_stay(model: Any, tokenizer: Any) -> None:
    backend = TransformersBackend(model, tokenizer, max_new_tokens=5, name="m")
    plain = backend.generate(PROMPTS)
    hook = model.model.layers[0].register_forward_hook(lambda _module, _inputs, output: output * 0)
    try:
        assert backend.generate(PROMPTS) != plain
    finally:
        hook.remove()
    assert backend.generate(PROMPTS) == plain


def test_without_a_chat_template_the_prompt_goes_in_raw_and_says_so(model: Any, raw_tokenizer: Any) -> None:
    (row,) = TransformersBackend(model, raw_tokenizer, max_new_tokens=2, name="m").generate(PROMPTS[:1])
    assert row.template == "raw"
    assert row.prompt_tokens == len("hi")


def test_a_full_context_ends_the_answer_whatever_the_batch(short_model: Any, tokenizer: Any) -> None:
    prompts = [prompt for prompt in PROMPTS if len(prompt.text) < 15]
    made = [
        TransformersBackend(short_model, tokenizer, batch_size=size, max_new_tokens=500, name="m").generate(prompts)
        for size in (1, 5)
    ]
    assert made[0] == made[1]
    assert all((row.prompt_tokens or 99) + (row.response_tokens or 99) <= 24 for row in made[0])


def test_a_prompt_that_fills_the_context_is_refused(short_model: Any, tokenizer: Any) -> None:
    backend = TransformersBackend(short_model, tokenizer, name="m")
    with pytest.raises(AlignmendError, match="prompt '1' of suite 's' has 43 tokens; model 'm' has 24 positions"):
        backend.generate(PROMPTS)


@pytest.mark.parametrize("option", ["batch_size", "max_new_tokens"])
def test_senseless_options_are_refused(model: Any, tokenizer: Any, option: str) -> None:
    options: dict[str, Any] = {option: 0}
    with pytest.raises(AlignmendError, match=f"{option} must be at least 1, not 0"):
        TransformersBackend(model, tokenizer, name="m", **options)


def test_a_folder_is_the_model_in_it(model: Any, tokenizer: Any, model_folder: Path) -> None:
    loaded = TransformersBackend.from_folder(model_folder, max_new_tokens=6, name="m")
    direct = TransformersBackend(model, tokenizer, max_new_tokens=6, name="m")
    assert loaded.generate(PROMPTS) == direct.generate(PROMPTS)
    assert TransformersBackend.from_folder(model_folder).name == model_folder.name


def test_a_folder_without_a_model_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(AlignmendError, match="not a model that transformers can load"):
        TransformersBackend.from_folder(tmp_path)


def test_no_prompts_no_generations(model: Any, tokenizer: Any) -> None:
    assert TransformersBackend(model, tokenizer, name="m").generate([]) == []


NO_MEMORY = (
    torch.cuda.OutOfMemoryError("CUDA: not today"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("CUDA error: out of memory"),
    MemoryError(),
)


@contextmanager
def room_for(rows: int, model: Any, error: Exception) -> Iterator[None]:
    """A device with room for so many rows, in the form of a hook that refuses more."""

    def refuse(_module: Any, _arguments: Any, options: dict[str, Any]) -> None:
        if len(options["input_ids"]) > rows:
            raise error

    hook = model.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("error", NO_MEMORY, ids=repr)
def test_out_of_memory_halves_the_batch_and_changes_nothing(
    model: Any, tokenizer: Any, error: Exception, batch_size: int | None
) -> None:
    backend = TransformersBackend(model, tokenizer, batch_size=batch_size, max_new_tokens=6, name="m")
    plain = backend.generate(PROMPTS)
    with room_for(2, model, error):
        assert backend.generate(PROMPTS) == plain


@pytest.mark.parametrize("error", NO_MEMORY, ids=repr)
def test_a_prompt_that_does_not_fit_is_one_clear_error(model: Any, tokenizer: Any, error: Exception) -> None:
    backend = TransformersBackend(model, tokenizer, max_new_tokens=6, name="m")
    with (
        room_for(0, model, error),
        pytest.raises(NoMemoryError, match=r"out of memory at one prompt at a time: free memory.* --dtype bfloat16"),
    ):
        backend.generate(PROMPTS)


def test_other_errors_of_torch_are_no_lack_of_memory(model: Any, tokenizer: Any) -> None:
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with room_for(0, model, error), pytest.raises(RuntimeError, match="mat1 and mat2"):
        TransformersBackend(model, tokenizer, max_new_tokens=6, name="m").generate(PROMPTS)


def test_out_of_memory_halves_batches_side_by_side() -> None:
    def work(batch: Sequence[int]) -> list[int]:
        if len(batch) > 2:
            raise MemoryError
        return [-item for item in batch]

    made = list(side_by_side(range(20), work, alike=lambda _: None, size=lambda _: 7, workers=2))
    assert [(item, -item) for item in range(20)] == [
        pair for batch, found in made for pair in zip(batch, found, strict=True)
    ]


def test_the_weights_that_answered_are_told_apart(model: Any, short_model: Any) -> None:
    assert model_fingerprint(model) == model_fingerprint(model)
    assert model_fingerprint(model) != model_fingerprint(short_model)
    before = model_fingerprint(model)
    weight = model.model.layers[0].mlp.down_proj.weight
    saved = weight.detach().clone()
    with torch.no_grad():
        weight.add_(1e-3)
        changed = model_fingerprint(model)
        weight.copy_(saved)
    assert changed != before == model_fingerprint(model)


@pytest.mark.parametrize("batch_size", [2, None])
def test_batches_side_by_side_say_the_same(model: Any, tokenizer: Any, batch_size: int | None) -> None:
    backend = TransformersBackend(model, tokenizer, batch_size=batch_size, max_new_tokens=12, name="m")
    alone = backend.generate(PROMPTS)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    batches: list[Sequence[Generation]] = []
    try:
        assert backend.generate(PROMPTS, report=batches.append) == alone
    finally:
        torch.set_num_threads(before)
    assert len(batches) == (4 if batch_size else 2)


def test_an_error_of_the_caller_ends_batches_side_by_side(model: Any, tokenizer: Any) -> None:
    def refuse(batch: Sequence[Generation]) -> None:
        raise ZeroDivisionError

    own, before = model.generation_config, torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError):
            TransformersBackend(model, tokenizer, batch_size=1, name="m").generate(PROMPTS, report=refuse)
    finally:
        torch.set_num_threads(before)
    assert model.generation_config is own


def test_threads_are_as_they_were(model: Any, tokenizer: Any) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        TransformersBackend(model, tokenizer, max_new_tokens=2, name="m").generate(PROMPTS)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
