"""Safety Arithmetic: the weights' stage is harm direction removal, the activations' stage is what the preset says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.methods.tiny import UP, computed, write

import alignmend as am
from alignmend.activations.safe_align import SafeAlign
from alignmend.activations.steering import Steering
from alignmend.errors import AlignmendError
from alignmend.methods.safety_arithmetic import PRESETS, Preset

NAME = UP.format(0)
VALUES = {"target": [[5.0, 6.0], [7.0, 8.0]], "aligned": [[1.0, 2.0], [3.0, 4.0]], "harmful": [[2.0, 2.5], [1.0, 4.0]]}


@pytest.fixture
def operands(tmp_path: Path) -> dict[str, Any]:
    return {role: am.open(write(tmp_path / role, {NAME: value})) for role, value in VALUES.items()}


def test_equation_by_hand(operands: dict[str, Any], tmp_path: Path) -> None:
    # tau_H = ((1, 0.5), (-2, 0)); its top half is ((1, 0), (-2, 0)); lambda = 2
    made = am.safety_arithmetic(**operands, coefficient=2.0, density=0.5)
    assert computed(made.checkpoint, tmp_path / "out")[NAME].tolist() == [[3.0, 6.0], [11.0, 8.0]]


STAGES: dict[Preset, SafeAlign] = {
    "recommended": SafeAlign(
        Steering(0.1), "mean_difference", 4, "block_output", "block_output", (), "chat", unit=False
    ),
    "paper": SafeAlign(
        Steering(0.12, strength="raw"), "principal", 1, "block_output", "block_output", (), "raw", unit=False
    ),
    "released-code": SafeAlign(
        Steering(0.012, gate=True),
        "mean_plus_principal",
        4,
        "block_output",
        "mlp_output",
        (),
        "released-code",
        unit=True,
    ),
}
COEFFICIENTS: dict[Preset, float] = {"recommended": 2.5, "paper": 2.5, "released-code": 3.0}


@pytest.mark.parametrize("preset", list(PRESETS))
def test_presets(operands: dict[str, Any], preset: Preset) -> None:
    made = am.safety_arithmetic(**operands, preset=preset)
    assert made.stage == STAGES[preset]
    assert made.checkpoint == am.harm_direction_removal(**operands, coefficient=COEFFICIENTS[preset], density=0.1)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_what_is_given_wins_over_the_preset(operands: dict[str, Any], preset: Preset) -> None:
    made = am.safety_arithmetic(
        **operands,
        preset=preset,
        coefficient=0.0,
        steering_coefficient=0.0,
        strength="raw",
        preserve_norm=False,
        gate=False,
        tokens="generated",
        estimator="principal",
        last=2,
        site="mlp_output",
        measured_at="mlp_output",
        unit=False,
        text="raw",
    )
    how = Steering(0.0, preserve_norm=False, gate=False, strength="raw", tokens="generated")
    assert made.stage == SafeAlign(how, "principal", 2, "mlp_output", "mlp_output", (), "raw", unit=False)
    assert made.checkpoint == am.harm_direction_removal(**operands, coefficient=0.0)


def test_both_stages_act_on_the_same_layers(operands: dict[str, Any]) -> None:
    made = am.safety_arithmetic(**operands, layers=[0])
    assert made.stage is not None
    assert made.stage.layers == (0,)
    assert made.checkpoint == am.harm_direction_removal(**operands, layers=[0])


def test_one_stage_alone(operands: dict[str, Any]) -> None:
    assert am.safety_arithmetic(**operands, steering=False).stage is None


def test_an_area_without_layers_is_not_the_whole_model(operands: dict[str, Any]) -> None:
    with pytest.raises(AlignmendError, match="layers is given but empty"):
        am.safety_arithmetic(**operands, layers=[])
    with pytest.raises(AlignmendError, match="layers is given but empty"):
        am.harm_direction_removal(**operands, layers=())


def test_the_number_kept_may_be_rounded_down(operands: dict[str, Any], tmp_path: Path) -> None:
    kept = {}
    for counting in ("nearest", "down"):
        made = am.safety_arithmetic(**operands, density=0.2, coefficient=1.0, counting=counting)
        found = computed(made.checkpoint, tmp_path / counting)[NAME].tolist()
        kept[counting] = sum(
            a != b
            for left, right in zip(found, VALUES["target"], strict=True)
            for a, b in zip(left, right, strict=True)
        )
    assert kept == {"nearest": 1, "down": 0}


def test_bad_parameters(operands: dict[str, Any]) -> None:
    with pytest.raises(AlignmendError, match="preset is one of recommended, paper, released-code, not 'best'"):
        am.safety_arithmetic(**operands, preset="best")  # type: ignore[arg-type]
    with pytest.raises(AlignmendError, match=r"layers: edited is for recipes.*alignmend\.locate"):
        am.safety_arithmetic(**operands, layers="edited")
    with pytest.raises(AlignmendError, match="the steering coefficient must be a finite number"):
        am.safety_arithmetic(**operands, steering_coefficient=float("nan"))
