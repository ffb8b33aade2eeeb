from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.architectures import CONFIGS, batch, tiny

from alignmend.activations.steering import Steering, steered
from alignmend.activations.vector import SteeringVector
from alignmend.anatomy.layers import SITES, Site, decoder_layers, hidden_size
from alignmend.errors import AlignmendError

ROWS = [[5, 6, 7, 8, 9], [10, 11], [12]]
FORMS = [
    Steering(0.3),
    Steering(0.3, gate=True),
    Steering(0.3, preserve_norm=False),
    Steering(0.7, preserve_norm=False, strength="raw"),
    Steering(0.7, gate=True, strength="raw"),
    Steering(0.3, tokens="generated"),
]


def vector(model: Any, site: Site = "block_output", seed: int = 0) -> SteeringVector:
    import torch

    generator = torch.Generator().manual_seed(seed)
    width = hidden_size(model)
    return SteeringVector({layer: torch.randn(width, generator=generator) for layer in range(3)}, site)


def reference(x: np.ndarray, w: np.ndarray, how: Steering) -> np.ndarray:
    """One activation, float64, as the equations say."""
    norm, length = math.sqrt(float(x @ x)), math.sqrt(float(w @ w))
    if length == 0:
        return x
    gate = 1 + max(0.0, -float(x @ w) / (norm * length)) if how.gate and norm > 0 else 1.0
    step = how.coefficient * gate * (norm if how.strength == "relative" else length) * w / length
    y = x + step
    after = math.sqrt(float(y @ y))
    return y * (norm / after) if how.preserve_norm and after > 0 else y


numbers = st.lists(st.floats(-100, 100, width=32), min_size=4, max_size=4)
steerings = st.builds(
    Steering,
    coefficient=st.floats(-2, 2),
    preserve_norm=st.booleans(),
    gate=st.booleans(),
    strength=st.sampled_from(["relative", "raw"]),
)


@given(numbers, numbers, steerings)
def test_the_formula_is_that_of_the_reference(x: list[float], w: list[float], how: Steering) -> None:
    import torch

    found = steered(torch.tensor([x]), torch.tensor(w), how)[0].double().numpy()
    assert np.isfinite(found).all()
    first, second = np.array(x, dtype=np.float64), np.array(w, dtype=np.float64)
    size = float(np.abs(first).max() + abs(how.coefficient) * np.abs(second).max()) or 1.0
    nearly_cancelled = np.linalg.norm(
        reference(first, second, Steering(how.coefficient, False, how.gate, how.strength))
    )
    if how.preserve_norm and nearly_cancelled < 1e-2 * size:
        return  # the direction of what is left over is that of rounding errors
    assert found == pytest.approx(reference(first, second, how), abs=2e-4 * size)


def test_the_formula_by_hand() -> None:
    import torch

    x, w = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])
    # relative, kept norm: y = (3, 4 + 0.5 * 5) = (3, 6.5), scaled by 5 / sqrt(9 + 42.25)
    scale = 5 / math.sqrt(51.25)
    assert steered(x, w, Steering(0.5)).tolist() == pytest.approx([3 * scale, 6.5 * scale])
    # raw, added: (3, 4 + 0.5 * 2)
    assert steered(x, w, Steering(0.5, preserve_norm=False, strength="raw")).tolist() == [3.0, 5.0]
    # the gate: cos(x, -w) = -0.8, so s = 1.8 and y = (3, 4 - 1.8 * 0.5 * 5)
    assert steered(x, -w, Steering(0.5, preserve_norm=False, gate=True)).tolist() == pytest.approx([3.0, -0.5])


def test_the_released_code_turns_by_at_most_its_angle() -> None:
    import torch

    x = torch.randn(1000, 16, generator=torch.Generator().manual_seed(0))
    w = torch.randn(16, generator=torch.Generator().manual_seed(1))
    turned = steered(x, w, Steering(0.012, gate=True))
    assert torch.allclose(turned.norm(dim=1), x.norm(dim=1), rtol=1e-5)
    cosine = torch.nn.functional.cosine_similarity(turned.double(), x.double(), dim=1).clamp(max=1)
    assert float(torch.arccos(cosine).max()) <= math.asin(0.024) + 1e-6


def positioned(architecture: str, rows: list[list[int]]) -> dict[str, Any]:
    """GPT-2 counts padding as positions unless it is told, as `generate` does."""
    inputs = batch(rows)
    if architecture == "gpt2":
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp_min(0)
    return inputs


@pytest.mark.parametrize("architecture", sorted(CONFIGS))
@pytest.mark.parametrize("site", SITES)
def test_neither_padding_nor_the_batch_changes_a_steered_answer(architecture: str, site: Site) -> None:
    import torch

    model = tiny(architecture)
    with torch.inference_mode(), vector(model, site).steer(model, Steering(0.3, gate=True)):
        together = model(**positioned(architecture, ROWS)).logits
        for index, row in enumerate(ROWS):
            alone = model(**batch([row])).logits[0]
            assert torch.allclose(together[index, -len(row) :], alone, atol=2e-4), (architecture, site)


@pytest.mark.parametrize("how", FORMS)
def test_generation_with_a_cache_equals_steering_the_whole_text_again(how: Steering) -> None:
    import torch

    model = tiny("llama")
    prompt = batch([[5, 6, 7, 8]])
    with vector(model).steer(model, how):
        made = model.generate(**prompt, max_new_tokens=6, min_new_tokens=6, do_sample=False, pad_token_id=0)
        if how.tokens == "all":
            logits = model(made[:, :-1]).logits[0, 3:]
            assert logits.argmax(dim=1).tolist() == made[0, 4:].tolist()
    plain = model.generate(**prompt, max_new_tokens=6, min_new_tokens=6, do_sample=False, pad_token_id=0)
    assert made.shape == plain.shape == torch.Size([1, 10])


def test_generated_tokens_only_leaves_the_prompt_alone() -> None:
    import torch

    model = tiny("llama")
    prompt = batch([[5, 6, 7, 8]])
    with torch.inference_mode():
        plain = model(**prompt, use_cache=True)
        with vector(model).apply(model, 0.5, tokens="generated"):
            first = model(**prompt, use_cache=True)
            second = model(torch.tensor([[9]]), past_key_values=first.past_key_values).logits
        unsteered = model(torch.tensor([[9]]), past_key_values=plain.past_key_values).logits
    assert torch.equal(first.logits, plain.logits)
    assert not torch.allclose(second, unsteered)


@pytest.mark.parametrize(
    "way",
    [{"use_cache": False}, {"prompt_lookup_num_tokens": 2}, {"assistant": True}, {"cache_implementation": "static"}],
)
@pytest.mark.parametrize("rows", [ROWS, [[5, 6, 7, 5, 6, 7, 5, 6]]], ids=["several", "one"])
@pytest.mark.parametrize("tokens", ["all", "generated"])
def test_every_way_of_generating_steers_the_same_tokens(rows: Any, tokens: Any, way: dict[str, Any]) -> None:
    if len(rows) > 1 and way.keys() & {"prompt_lookup_num_tokens", "assistant"}:
        pytest.skip("assisted decoding is for one prompt at a time")
    model = tiny("llama")
    more = {"assistant_model": tiny("llama", seed=0)} if "assistant" in way else way
    common: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with vector(model).apply(model, 0.5, tokens=tokens):
        usual = model.generate(**batch(rows), **common)
        assert model.generate(**batch(rows), **common, **more).tolist() == usual.tolist()
    assert model.generate(**batch(rows), **common).tolist() != usual.tolist()
    assert "generate" not in vars(model)


def test_a_copy_made_while_steered_generates_with_its_own_weights() -> None:
    from copy import deepcopy

    import torch

    model = tiny("llama")
    with vector(model).apply(model, 0.5, tokens="generated"):
        copy = deepcopy(model)
        with torch.no_grad():
            copy.lm_head.weight.zero_()
        made = copy.generate(**batch([[5, 6, 7]]), max_new_tokens=3, do_sample=False, pad_token_id=0, eos_token_id=None)
    assert made[0, 3:].tolist() == [0, 0, 0]


@pytest.mark.parametrize("ends", ["well", "with an error", "with an interrupt"])
def test_the_model_is_as_it_was(ends: str) -> None:
    import torch

    model = tiny("llama")
    inputs = batch(ROWS)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    with torch.inference_mode():
        logits = model(**inputs).logits
        raised = {"with an error": RuntimeError, "with an interrupt": KeyboardInterrupt}.get(ends)
        try:
            with vector(model).apply(model, 0.5):
                assert not torch.equal(model(**inputs).logits, logits)
                if raised is not None:
                    raise raised
        except (RuntimeError, KeyboardInterrupt) as error:
            assert type(error) is raised
        assert torch.equal(model(**inputs).logits, logits)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()] == hooks


def test_a_coefficient_of_zero_changes_no_bit() -> None:
    import torch

    model = tiny("gpt2")
    with torch.inference_mode():
        logits = model(**batch(ROWS)).logits
        with vector(model).apply(model, 0.0):
            assert torch.equal(model(**batch(ROWS)).logits, logits)


@pytest.mark.parametrize("first", ["compiled", "steered"])
def test_compiled_models_are_steered_and_set_free(first: str) -> None:
    import torch

    model = tiny("llama", seed=7)
    inputs = batch([[5, 6, 7]])
    with torch.inference_mode():
        plain = model(**inputs).logits
        with vector(model).apply(model, 0.5):
            expected = model(**inputs).logits
        if first == "compiled":
            compiled: Any = torch.compile(model, backend="eager")
            assert torch.allclose(compiled(**inputs).logits, plain, atol=1e-5)
            with vector(model).apply(compiled, 0.5):
                assert torch.allclose(compiled(**inputs).logits, expected, atol=1e-5)
        else:
            with vector(model).apply(model, 0.5):
                compiled = torch.compile(model, backend="eager")
                assert torch.allclose(compiled(**inputs).logits, expected, atol=1e-5)
        assert torch.allclose(compiled(**inputs).logits, plain, atol=1e-5)


def test_a_lora_wrapped_bfloat16_model_is_steered_in_its_own_dtype() -> None:
    import copy

    import peft
    import torch

    model = copy.deepcopy(tiny("llama", seed=5)).to(torch.bfloat16)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    with torch.inference_mode():
        plain = wrapped(**batch(ROWS)).logits
        with vector(model).apply(wrapped, 0.5):
            moved = wrapped(**batch(ROWS)).logits
    assert moved.dtype == torch.bfloat16
    assert bool(moved.isfinite().all())
    assert not torch.equal(moved, plain)


def test_zero_activations_at_padding_do_not_spread_as_nan() -> None:
    import torch

    model = tiny("llama")
    layers = decoder_layers(model)
    handle = layers.module(1, "mlp_output").register_forward_hook(lambda m, i, output: output * 0)
    try:
        with torch.inference_mode(), vector(model, "mlp_output").steer(model, Steering(0.5, gate=True)):
            assert bool(model(**batch(ROWS)).logits.isfinite().all())
    finally:
        handle.remove()


def test_misfits_are_told() -> None:
    import torch

    model = tiny("llama")
    with (
        pytest.raises(AlignmendError, match="steers layer 3; the model has layers 0 to 2"),
        SteeringVector({3: torch.ones(32)}).apply(model),
    ):
        pass
    with (
        pytest.raises(AlignmendError, match=r"has shape \(8,\) at layer 0; the model's activations have 32"),
        SteeringVector({0: torch.ones(8)}).apply(model),
    ):
        pass
    with pytest.raises(AlignmendError, match="must be a finite number, not nan"):
        Steering(math.nan)
    with pytest.raises(AlignmendError, match=r"'relative' or 'raw' and .* not 'strong'"):
        Steering(1.0, strength="strong")  # type: ignore[arg-type]
