from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.architectures import CONFIGS, tiny

from alignmend.activations.estimators import ESTIMATORS, Estimator, estimate
from alignmend.activations.pairs import (
    REFUSALS,
    ContrastPair,
    TextForm,
    pairs_from_prompts,
    read_pairs,
    token_ids,
)
from alignmend.activations.recording import record
from alignmend.activations.vector import SteeringVector
from alignmend.anatomy.layers import SITES, Site, decoder_layers
from alignmend.errors import AlignmendError

TEXTS = [[5, 6, 7, 8, 9, 10], [11, 12], [13], [14, 15, 16]]
NAMES: tuple[Estimator, ...] = ("mean_difference", "principal", "mean_plus_principal")


class Words:
    """A tokenizer of single words, as small as can be, with a chat template."""

    chat_template = "yes"

    def __init__(self) -> None:
        self.words: dict[str, int] = {}

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [self.words.setdefault(word, 3 + len(self.words)) % 96 for word in text.split()]}

    def apply_chat_template(self, messages: list[dict[str, str]], **options: Any) -> str:
        return " ".join(["<user>", messages[0]["content"], "<assistant>", ""])


WORDS = Words()
PAIRS = tuple(ContrastPair(f"question {i} now", f"no no {i}", f"yes sure {i}") for i in range(5))


@pytest.mark.parametrize("architecture", sorted(CONFIGS))
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("last", [1, 3])
def test_recording_is_the_mean_of_the_last_tokens_of_each_text_alone(architecture: str, site: Site, last: int) -> None:
    import torch

    model = tiny(architecture)
    layers = decoder_layers(model)
    found = record(model, TEXTS, layers=layers, chosen=(0, 2), site=site, last=last, batch_size=3)
    assert found.shape == (4, 2, 32)
    kept: dict[int, Any] = {}

    def keep(layer: int, output: Any) -> None:
        kept[layer] = (output[0] if isinstance(output, tuple) else output).clone()  # Falcon adds to it in place

    handles = [
        layers.module(layer, site).register_forward_hook(lambda m, i, output, layer=layer: keep(layer, output))
        for layer in (0, 2)
    ]
    for index, text in enumerate(TEXTS):
        with torch.inference_mode():
            model(torch.tensor([text]))
        for place, layer in enumerate((0, 2)):
            expected = kept[layer].reshape(-1, 32)[-last:].mean(dim=0)
            assert torch.allclose(found[index, place], expected, atol=1e-4)
    for handle in handles:
        handle.remove()


def reference(differences: np.ndarray, name: Estimator) -> np.ndarray:
    """Float64, by a full singular value decomposition."""
    flat = differences.reshape(len(differences), -1).astype(np.float64)
    mean = flat.mean(axis=0)

    def first(rows: np.ndarray) -> np.ndarray:
        direction: np.ndarray = np.linalg.svd(rows, full_matrices=False)[2][0]
        return direction if direction @ mean >= 0 else -direction

    made: dict[str, np.ndarray] = {
        "mean_difference": mean,
        "principal": first(flat),
        "mean_plus_principal": mean + first(flat - mean),
    }
    return made[name].reshape(differences.shape[1:])


@pytest.mark.parametrize("name", NAMES)
def test_estimators_are_those_of_the_reference(name: Estimator) -> None:
    import torch

    differences = torch.randn(7, 3, 5, generator=torch.Generator().manual_seed(1)) + 0.5
    found = estimate(differences, name).double().numpy()
    assert found == pytest.approx(reference(differences.numpy(), name), abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_direction_is_recovered_with_its_sign(name: Estimator) -> None:
    import torch

    generator = torch.Generator().manual_seed(2)
    planted = torch.randn(2, 16, generator=generator)
    differences = planted + 0.05 * torch.randn(40, 2, 16, generator=generator)
    found = estimate(differences, name).flatten()
    assert float(torch.nn.functional.cosine_similarity(found, planted.flatten(), dim=0)) > 0.95
    assert set(NAMES) == set(ESTIMATORS)


def test_by_hand_in_two_dimensions() -> None:
    import torch

    differences = torch.tensor([[[3.0, 0.0]], [[1.0, 0.0]]])
    assert estimate(differences, "mean_difference").tolist() == [[2.0, 0.0]]
    assert estimate(differences, "principal").tolist() == [[1.0, 0.0]]
    assert estimate(differences, "mean_plus_principal").tolist() == [[3.0, 0.0]]
    with pytest.raises(AlignmendError, match="there is no direction in them"):
        estimate(torch.zeros(2, 1, 2), "mean_difference")
    with pytest.raises(AlignmendError, match="'median' is not one of mean_difference"):
        estimate(differences, "median")  # type: ignore[arg-type]


def fitted(model: Any, pairs: tuple[ContrastPair, ...] = PAIRS, **options: Any) -> SteeringVector:
    return SteeringVector.fit(model, WORDS, pairs, **options)


def test_swapping_the_sides_flips_the_mean_difference_exactly() -> None:
    import torch

    model = tiny("llama")
    forth = fitted(model)
    back = fitted(model, tuple(ContrastPair(p.prompt, p.unsafe, p.safe) for p in PAIRS))
    assert all(torch.equal(forth.directions[layer], -back.directions[layer]) for layer in forth.layers)


def test_the_vector_of_pairs_steers_towards_the_safe_side() -> None:
    model = tiny("llama")
    vector = fitted(model, last=2)
    layers = decoder_layers(model)
    unsafe = [token_ids(WORDS, pair.prompt, pair.unsafe, "chat") for pair in PAIRS]
    before = record(model, unsafe, layers=layers, chosen=(2,), site="block_output", last=2)
    with vector.apply(model, 0.5):
        after = record(model, unsafe, layers=layers, chosen=(2,), site="block_output", last=2)
    direction = vector.directions[2]
    assert bool(((after - before)[:, 0] @ direction > 0).all())


def test_what_is_told_of_a_vector(tmp_path: Path) -> None:
    import torch

    model = tiny("llama")
    vector = fitted(model, layers=[0, 2], unit=True)
    assert vector.layers == (0, 2)
    assert vector.norms == pytest.approx({0: 1.0, 2: 1.0})
    assert vector.about["warnings"][0] == "only 5 contrast pairs: 15 to 30 are usual"
    for one in vector.about["diagnostics"]:
        assert 0 <= one["explained_variance"] <= 1
        assert -1 <= one["pair_cosine"] <= 1
    path = vector.save(tmp_path / "steering.safetensors")
    again = SteeringVector.load(path)
    assert again.site == vector.site
    assert json.dumps(dict(again.about), sort_keys=True) == json.dumps(dict(vector.about), sort_keys=True)
    assert all(torch.equal(again.directions[layer], vector.directions[layer]) for layer in vector.layers)
    with pytest.raises(AlignmendError, match="exists: choose another name"):
        vector.save(path)


def test_pairs_that_disagree_are_warned_of() -> None:
    model = tiny("llama")
    sides = [(f"a{i} b{i}", f"c{i} d{i}")[:: 1 if i % 2 else -1] for i in range(12)]
    noise = tuple(ContrastPair(f"q{i}", safe, unsafe) for i, (safe, unsafe) in enumerate(sides))
    assert any("hardly agree" in warning for warning in fitted(model, noise).about["warnings"])


def test_vectors_add_scale_and_narrow() -> None:
    import torch

    ones, twos = (SteeringVector({0: torch.full((4,), value), 1: torch.ones(4)}) for value in (1.0, 2.0))
    total = 0.5 * ones + twos * 2 + -ones.restrict([1])
    assert total.directions[0].tolist() == [4.5] * 4
    assert total.directions[1].tolist() == [1.5] * 4
    with pytest.raises(AlignmendError, match="different sites"):
        _ = ones + SteeringVector({0: torch.ones(4)}, "mlp_output")
    with pytest.raises(AlignmendError, match=r"has layers \[0, 1\], not \[7\]"):
        ones.restrict([7])
    with pytest.raises(AlignmendError, match="different widths at layer 0"):
        _ = ones + SteeringVector({0: torch.ones(5)})
    control = twos.random_like(3)
    assert control.norms == pytest.approx(twos.norms)
    assert torch.equal(control.directions[0], twos.random_like(3).directions[0])


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("chat", ["<user>", "Why?", "<assistant>", "Because."]),
        ("raw", ["Question:", "Why?", "Answer:", "Because."]),
        ("released-code", ["Question:", "Why?", "Answer:", "Because"]),
    ],
)
def test_what_a_model_reads(form: TextForm, expected: list[str]) -> None:
    words = Words()
    ids = token_ids(words, "Why?", "Because.", form)
    names = {number: word for word, number in words.words.items()}
    assert [names[number] for number in ids] == expected


def test_pairs_from_files_and_prompts(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "p", "safe": "s", "unsafe": "u", "note": 1}\n\n', encoding="utf-8")
    assert read_pairs(path) == read_pairs(str(path)) == (ContrastPair("p", "s", "u"),)
    made = pairs_from_prompts(["a", "b"], ["x", "y"])
    assert [pair.safe for pair in made] == list(REFUSALS[:2])
    path.write_text('{"prompt": "p", "safe": "s"}\n', encoding="utf-8")
    with pytest.raises(AlignmendError, match="line 1: unsafe: Field required"):
        read_pairs(path)
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(AlignmendError, match="holds no pairs"):
        read_pairs(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(AlignmendError, match="not UTF-8"):
        read_pairs(path)
    with pytest.raises(AlignmendError, match="2 prompts, 1 answers"):
        pairs_from_prompts(["a", "b"], ["x"])


def test_files_that_are_no_vectors(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    path = tmp_path / "v.safetensors"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(AlignmendError, match="not a steering vector"):
        SteeringVector.load(path)
    save_file({"layer.0": torch.ones(4)}, path)
    with pytest.raises(AlignmendError, match="its metadata lacks format"):
        SteeringVector.load(path)
    metadata = {"format": "alignmend-steering-1", "site": "block_output", "about": "{}"}
    save_file({"weight": torch.ones(4)}, path, metadata)
    with pytest.raises(AlignmendError, match=r"'weight' is not called layer\.N"):
        SteeringVector.load(path)
    save_file({"layer.0": torch.tensor([1.0, float("nan")])}, path, metadata)
    with pytest.raises(AlignmendError, match="holds NaN"):
        SteeringVector.load(path)
    save_file({"layer.0": torch.ones(4)}, path, metadata | {"about": "{"})
    with pytest.raises(AlignmendError, match="description is not JSON"):
        SteeringVector.load(path)
