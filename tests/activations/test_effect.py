"""What a vector changes, what an export changes of it, and when it does next to nothing."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.architectures import VOCABULARY, tiny

from alignmend.activations.attached import write_attached
from alignmend.activations.effect import INERT, divergence, effect, fidelity, inert_warning
from alignmend.activations.gguf import read_gguf
from alignmend.activations.steering import Steering
from alignmend.activations.vector import SteeringVector
from alignmend.cli import main
from alignmend.errors import AlignmendError
from alignmend.organisms import shipped_family

ADDITIVE = Steering(1.0, preserve_norm=False, strength="raw")
PROMPTS = ("7 8 9", "5", "11 12 13 14 15")


def tokenizer(text: str) -> dict[str, list[int]]:
    return {"input_ids": [int(word) % VOCABULARY for word in text.split()]}


def vector(scale: float) -> SteeringVector:
    import torch

    generator = torch.Generator().manual_seed(3)
    return SteeringVector({layer: scale * torch.randn(32, generator=generator) for layer in range(3)})


def fixed(*rows: list[float]) -> Any:
    """A model that says the same logits whatever it reads, one row a position."""
    import torch

    class Fixed(torch.nn.Linear):
        def forward(self, input_ids: Any, **_: Any) -> Any:  # type: ignore[override]
            return SimpleNamespace(logits=torch.tensor(rows)[None].repeat(len(input_ids), 1, 1))

    return Fixed(1, 1)


def test_the_divergence_of_two_coins() -> None:
    """0.5 ln(0.5/0.75) + 0.5 ln(0.5/0.25) at the last token, 0 at the first."""
    fair, unfair = [0.0, 0.0], [math.log(3.0), 0.0]
    found = divergence((fixed(fair, fair), nullcontext), (fixed(fair, unfair), nullcontext), tokenizer, ["1 2"])
    by_hand = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert found.first_token == pytest.approx(by_hand) and found.every_token == pytest.approx(by_hand / 2)
    assert found.largest_logit == pytest.approx(math.log(3.0)) and found.prompts == 1


@pytest.mark.parametrize("how", [ADDITIVE, Steering(0.1), Steering(0.2, gate=True)])
def test_batches_change_nothing(how: Steering) -> None:
    one, many = (effect(tiny("llama"), tokenizer, vector(0.5), how, PROMPTS, batch_size=size) for size in (1, 3))
    assert one.first_token == pytest.approx(many.first_token, rel=1e-3)
    assert one.every_token == pytest.approx(many.every_token, rel=1e-3) and one.first_token > 0


def test_a_vector_of_next_to_nothing_is_inert_and_a_strong_one_is_not() -> None:
    weak, strong = (effect(tiny("llama"), tokenizer, vector(scale), ADDITIVE, PROMPTS) for scale in (1e-4, 30.0))
    assert weak.first_token < INERT < strong.first_token
    assert inert_warning(strong) is None and "inert: the mean first-token KL" in str(inert_warning(weak))


def test_what_is_served_as_it_was_asked_differs_in_nothing() -> None:
    model, steering = tiny("llama"), vector(1.0)
    same = fidelity(model, tokenizer, (steering, ADDITIVE), (model, lambda: steering.steer(model, ADDITIVE)), PROMPTS)
    assert same.difference.first_token == same.difference.largest_logit == 0 < same.effect.first_token
    other = fidelity(model, tokenizer, (steering, Steering(0.5)), (model, nullcontext), PROMPTS)
    assert other.difference == other.effect


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(AlignmendError, match="at least one prompt"):
        effect(tiny("llama"), tokenizer, vector(1.0), ADDITIVE, [])
    with pytest.raises(AlignmendError, match="nothing to measure there"):
        effect(tiny("llama"), tokenizer, vector(1.0), Steering(0.1, tokens="generated"), PROMPTS)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shipped_family(tmp_path_factory.mktemp("organisms") / "family").members["base"])


@pytest.fixture
def fitted(base: Path, tmp_path: Path) -> Path:
    import torch

    config = json.loads((base / "config.json").read_text())
    width, layers = config["hidden_size"], range(config["num_hidden_layers"])
    torch.manual_seed(1)
    about = {"activation_norms": {str(layer): 4.0 for layer in layers}}
    made = {layer: torch.randn(width) for layer in layers}
    return SteeringVector(made, "block_output", about).save(tmp_path / "v.safetensors")


def said(capsys: pytest.CaptureFixture[str], *command: object) -> Any:
    assert main([str(one) for one in command]) == 0
    return json.loads(capsys.readouterr().out)


def test_an_exact_bake_says_how_exact(
    base: Path, fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "baked"
    told = said(capsys, "vector", "bake", fitted, "--model", base, "--coefficient", 0.5, "--out", out, "--json")
    assert told["measured"]["difference"]["first_token"] < 1e-3 * told["measured"]["effect"]["first_token"]
    notes = json.loads((out / "alignmend.json").read_text())["notes"]
    assert notes == told["notes"] and "logits within" in notes[0]


def test_a_stand_in_says_how_far_it_is(
    base: Path, fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gguf import GGUFReader

    common = ("--model", base, "--coefficient", 0.3, "--approximate", "--gate", "--json")
    baked = said(capsys, "vector", "bake", fitted, *common, "--out", tmp_path / "baked")
    path = tmp_path / "v.gguf"
    exported = said(capsys, "vector", "export", fitted, *common, "--out", path)
    for told in (baked, exported):
        assert told["approximate"] and told["measured"]["difference"]["first_token"] > 1e-6
        assert "an approximation" in told["notes"][0]
    assert "KL" in (tmp_path / "baked" / "README.md").read_text()
    kl = GGUFReader(str(path)).fields["alignmend.first_token_kl"].contents()
    assert kl == pytest.approx(exported["measured"]["difference"]["first_token"], rel=1e-5)


def test_forms_that_nothing_stands_for_are_refused(
    base: Path, fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["vector", "export", str(fitted), "--coefficient", "0.1", "--out", str(tmp_path / "v.gguf")]
    assert main([*words, "--approximate"]) != 0
    assert "--approximate needs --model" in capsys.readouterr().err
    assert main([*words, "--gate", "--model", str(base)]) != 0
    assert "they need --approximate" in capsys.readouterr().err
    assert not (tmp_path / "v.gguf").exists()


@pytest.mark.parametrize(
    ("how", "options"),
    [
        (ADDITIVE, ("--coefficient", 1)),
        (Steering(0.2, gate=True), ("--coefficient", 0.2, "--gate", "--approximate")),
    ],
)
def test_a_vector_that_belongs_to_a_checkpoint_is_exported_as_its_file_says(
    how: Steering, options: tuple[object, ...], fitted: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fitted.parent
    own = write_attached(SteeringVector.load(fitted), how, folder)
    assert f"x {how.coefficient:g} at block_output" in said(capsys, "vector", "show", own, "--json")["applied"]
    for part, out in (("export", "v.gguf"), ("bake", "baked")):
        common = ("--model", base, "--out", folder / out, "--overwrite", "--json")
        by_file = said(capsys, "vector", part, own, *common, *([] if how.additive else ["--approximate"]))
        by_options = said(capsys, "vector", part, fitted, *common, *options)
        assert by_file["measured"] == by_options["measured"]


def test_the_stand_in_for_raw_strength_is_the_vector_itself(base: Path, fitted: Path, tmp_path: Path) -> None:
    """As in the paper: added as it is, then the norm is given back, which no file can hold."""
    import numpy as np

    own = write_attached(SteeringVector.load(fitted), Steering(0.12, strength="raw"), tmp_path)
    out = tmp_path / "v.gguf"
    assert main(["vector", "export", str(own), "--approximate", "--model", str(base), "--out", str(out)]) == 0
    for layer, direction in read_gguf(out).items():
        assert np.array_equal(direction, (SteeringVector.load(fitted) * 0.12).directions[layer].numpy())


def test_a_form_that_the_file_does_not_say_or_that_is_no_addition_is_refused(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = write_attached(SteeringVector.load(fitted), Steering(0.1), tmp_path)
    (tmp_path / "added").mkdir()
    added = write_attached(SteeringVector.load(fitted), ADDITIVE, tmp_path / "added")
    for words, message in (
        ([fitted], "does not say how strongly it is applied: give --coefficient"),
        ([own], "--approximate stands in for it"),
        ([own, "--approximate", "--gate"], "give --gate and --free-norm with a --coefficient only"),
        ([added, "--approximate"], "leave --approximate out"),
    ):
        command = ["vector", "export", *map(str, words), "--model", "none", "--out", str(tmp_path / "v.gguf")]
        assert main(command) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "v.gguf").exists()
