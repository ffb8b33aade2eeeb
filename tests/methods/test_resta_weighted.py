"""RESTA with a weighed safety vector beside its equation: every direction, recipes, adapters, and a loaded model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests import reference
from tests.methods.tiny import QUERY, UP, computed, contents, near, random_tensors, read, trio, write
from tests.moment_files import write_moments
from torch import Tensor

import alignmend as am
from alignmend.cli import main
from alignmend.errors import MismatchError, ParameterError
from alignmend.execution.moment_checks import fingerprints
from alignmend.methods.resta_weighted import Direction

NAMES = [pattern.format(layer) for layer in (0, 1) for pattern in (QUERY, UP)]


def moment(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = {name: torch.randn(40, 8, generator=generator) for name in NAMES}
    return {name: values.T @ values / 40 for name, values in rows.items()}


HARMFUL, HARMLESS, BORDERLINE = (moment(seed) for seed in (11, 12, 13))


def moments_file(folder: Path, finetuned: Path, name: str = "moments.safetensors") -> Path:
    kinds = {"harmful": HARMFUL, "harmless": HARMLESS, "borderline": BORDERLINE}
    return write_moments(folder / name, kinds, fingerprints=fingerprints(am.open(finetuned)))  # type: ignore[arg-type]


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Any]:
    folder = trio(tmp_path / "trio")
    found: dict[str, Any] = {role: am.open(folder / role) for role in ("finetuned", "aligned", "unaligned")}
    return found | {"moments": am.open_moments(moments_file(tmp_path, folder / "finetuned"))}


def numbers(models: dict[str, Any], role: str) -> reference.Arrays:
    return reference.numbers(read(models[role].root.folder.path))


def weighed(models: dict[str, Any], vector: reference.Arrays, coefficient: float, beta: float) -> reference.Arrays:
    pairs = {name: [one[name].double().numpy() for one in (HARMFUL, HARMLESS, BORDERLINE)] for name in NAMES}
    linear = {name: values if name in NAMES else 0 * values for name, values in vector.items()}
    step = reference.weigh(linear, pairs, beta, 1e-3)
    return reference.add(numbers(models, "finetuned"), reference.scale(coefficient, step))


def close(found: dict[str, Tensor], expected: reference.Arrays) -> None:
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].double().numpy(), values, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_every_direction_is_its_equation(models: dict[str, Any], beta: float, tmp_path: Path) -> None:
    f, a, u = (numbers(models, role) for role in ("finetuned", "aligned", "unaligned"))
    directions: dict[Direction, tuple[Any, dict[str, Any]]] = {
        "aligned-finetuned": (reference.subtract(a, f), models),
        "aligned-unaligned": (reference.subtract(a, u), models),
        "harm-vector": (
            reference.scale(-1.0, reference.trim(reference.subtract(u, a), 0.25, "model")),
            {**models, "harmful": models["unaligned"], "density": 0.25},
        ),
    }
    for direction, (vector, given) in directions.items():
        checkpoint = am.resta_weighted(**given, direction=direction, coefficient=0.8, beta=beta)
        close(computed(checkpoint, tmp_path / direction), weighed(models, vector, 0.8, beta))


def test_a_direction_needs_its_model(models: dict[str, Any]) -> None:
    del models["unaligned"]
    for direction, role in (("aligned-unaligned", "unaligned"), ("harm-vector", "harmful")):
        with pytest.raises(ParameterError, match=f"the direction needs the {role} model"):
            am.resta_weighted(**models, direction=direction)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match=r"direction is one of aligned-finetuned, .*, not 'sideways'"):
        am.resta_weighted(**models, direction="sideways")  # type: ignore[arg-type]


def test_zero_coefficient_gives_the_fine_tune_bit_by_bit(models: dict[str, Any], tmp_path: Path) -> None:
    found = computed(am.resta_weighted(**models, coefficient=0.0), tmp_path / "out")
    before = read(models["finetuned"].root.folder.path)
    assert all(torch.equal(found[name].view(torch.int32), values.view(torch.int32)) for name, values in before.items())


def test_selected_layers_alone_change(models: dict[str, Any], tmp_path: Path) -> None:
    found = computed(am.resta_weighted(**models, layers=[1], kinds=["mlp"]), tmp_path / "out")
    before = read(models["finetuned"].root.folder.path)
    assert [name for name, values in before.items() if not torch.equal(found[name], values)] == [UP.format(1)]


def recipe(folder: Path, moments: Path, parameters: str = "coefficient: 1.2, beta: 3.0") -> Path:
    models = f"finetuned: {folder / 'finetuned'}, aligned: {folder / 'aligned'}, moments: {moments}"
    path = folder / "weighted.yaml"
    path.write_text(f"method: resta_weighted\nmodels: {{{models}}}\nparameters: {{{parameters}}}\n")
    return path


def test_a_recipe_writes_what_the_function_says_and_the_moments_are_in_its_manifest(
    models: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "trio"
    written = recipe(folder, tmp_path / "moments.safetensors")
    assert main(["explain", str(written)]) == 0
    told = capsys.readouterr().out
    assert "solve the weighing of 4 inputs 8 wide, each when it is first needed (3.07 KB of moments read" in told
    assert "weigh(select((aligned - finetuned), linear=True), moments, beta=3, ridge=0.001)" in told
    assert main(["apply", str(written), "--out", str(tmp_path / "out")]) == 0
    expected = computed(am.resta_weighted(**models, coefficient=1.2, beta=3.0), tmp_path / "plain")
    assert all(torch.equal(values, expected[name]) for name, values in read(tmp_path / "out").items())
    manifest = (tmp_path / "out" / "alignmend.json").read_text()
    assert '"moments"' in manifest and "moments.safetensors" in manifest
    assert main(["verify", str(tmp_path / "out")]) == 0
    before = contents(tmp_path / "out")
    assert main(["apply", str(written), "--out", str(tmp_path / "out"), "--resume"]) == 0
    assert contents(tmp_path / "out") == before


def test_moments_of_another_fine_tune_are_refused(
    models: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "trio"
    other = write(tmp_path / "other", near(random_tensors(0), 9))
    written = recipe(folder, moments_file(tmp_path, other, "other.safetensors"))
    assert main(["apply", str(written), "--out", str(tmp_path / "out")]) == 2
    assert "were not taken in" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main(["apply", str(written), "--out", str(tmp_path / "out"), "--allow-unrelated"]) == 0


def lora(folder: Path, base: Path) -> Path:
    from tests.io.adapter_files import write as write_adapter

    folder.mkdir()
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for name in NAMES:
        outputs, inputs = read(base)[name].shape
        module = f"base_model.model.{name.removesuffix('.weight')}"
        tensors[f"{module}.lora_A.weight"] = torch.randn(2, inputs, generator=generator)
        tensors[f"{module}.lora_B.weight"] = torch.randn(outputs, 2, generator=generator)
    return write_adapter(folder, tensors, r=2, lora_alpha=4, base_model_name_or_path=str(base))


def test_a_lora_fine_tune_stays_an_adapter_that_is_the_dense_result(tmp_path: Path) -> None:
    folder = trio(tmp_path / "trio")
    lora(tmp_path / "lora", folder / "aligned")
    base = am.open(folder / "aligned")
    finetuned = base + am.open_adapter(tmp_path / "lora", base=base)
    kinds = {"harmful": HARMFUL, "harmless": HARMLESS, "borderline": BORDERLINE}
    moments = write_moments(tmp_path / "m.safetensors", kinds, fingerprints=fingerprints(finetuned))  # type: ignore[arg-type]
    path = tmp_path / "r.yaml"
    path.write_text(
        f"method: resta_weighted\nmodels: {{finetuned: {tmp_path / 'lora'}, aligned: {folder / 'aligned'}, "
        f"moments: {moments}}}\nparameters: {{coefficient: 1.2, beta: 1.0}}\n"
    )
    assert main(["apply", str(path), "--out", str(tmp_path / "adapter"), "--as-adapter"]) == 0
    assert main(["apply", str(path), "--out", str(tmp_path / "dense")]) == 0
    dense = read(tmp_path / "dense")
    again = computed(base + am.open_adapter(tmp_path / "adapter", base=base), tmp_path / "again")
    delta = {name: values.double().numpy() for name, values in computed(finetuned, tmp_path / "f").items()}
    expected = weighed(
        {"finetuned": am.open(tmp_path / "f")},
        reference.subtract(reference.numbers(read(folder / "aligned")), delta),
        1.2,
        1.0,
    )
    for name, values in dense.items():
        torch.testing.assert_close(again[name], values, rtol=0, atol=2e-5)
        np.testing.assert_allclose(values.double().numpy(), expected[name], atol=2e-5)


def test_a_whole_fine_tune_gives_no_adapter(models: dict[str, Any], tmp_path: Path) -> None:
    from alignmend.execution.adapter_output import save_adapter

    with pytest.raises(MismatchError, match="not low-rank"):
        save_adapter(am.resta_weighted(**models), tmp_path / "out")


def test_a_loaded_model_switches_to_what_is_written_and_back(models: dict[str, Any], tmp_path: Path) -> None:
    from alignmend.execution.in_place import InPlace

    class Layered(torch.nn.Module):
        """Parameters under the names of the files."""

        def __init__(self, tensors: dict[str, Tensor]) -> None:
            super().__init__()
            self.tensors = {name: torch.nn.Parameter(values.clone()) for name, values in tensors.items()}

        def state_dict(self, *args: Any, **kwargs: Any) -> Any:
            return {name: values.data for name, values in self.tensors.items()}

        def named_parameters(self, *args: Any, **kwargs: Any) -> Any:
            return iter(self.tensors.items())

    before = read(models["finetuned"].root.folder.path)
    for memory in (0, 1 << 24):  # directions computed anew, and held
        network = Layered(before)
        place = InPlace(network, models["finetuned"], memory=memory, threads=1)
        for number, (coefficient, beta) in enumerate([(0.8, 1.0), (1.2, 1.0), (1.2, 3.0)]):
            checkpoint = am.resta_weighted(**models, coefficient=coefficient, beta=beta)
            place.switch(checkpoint)
            expected = computed(checkpoint, tmp_path / f"{memory}-{number}")
            assert all(torch.equal(network.tensors[name].data, values) for name, values in expected.items())
        place.undo()
        assert all(torch.equal(network.tensors[name].data, values) for name, values in before.items())
