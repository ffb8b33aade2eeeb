"""The steering benchmark steers what it measures, and its table says met or missed."""

from __future__ import annotations

import pytest
import torch
from benchmarks.steering import AGAIN, NONE, OWN, Setting, Size, make_setting, measure, table, ways


@pytest.fixture(scope="module")
def setting() -> Setting:
    return make_setting(Size(hidden=32, intermediate=64, layers=2, heads=4, vocabulary=64))


def test_every_way_steers_and_leaves_the_model_as_it_was(setting: Setting) -> None:
    def logits() -> torch.Tensor:
        with torch.inference_mode():
            found: torch.Tensor = setting.model(**setting.inputs, use_cache=False).logits
            return found

    plain = logits()
    for name, steered in ways(setting).items():
        with steered():
            assert torch.equal(logits(), plain) == (name in (NONE, AGAIN)), name
        assert torch.equal(logits(), plain), name


def test_the_default_model_has_thirty_million_parameters() -> None:
    size = Size()
    block = 4 * size.hidden**2 + 3 * size.hidden * size.intermediate
    assert size.layers * block + 2 * size.vocabulary * size.hidden >= 30_000_000


def test_rounds_are_measured_for_every_way(setting: Setting) -> None:
    found = measure(setting, 2)
    assert set(found) == set(ways(setting)) and all(len(rounds) == 2 for rounds in found.values())
    assert all(seconds > 0 for rounds in found.values() for wall_and_cpu in rounds for seconds in wall_and_cpu)


@pytest.mark.parametrize(("wall", "verdict"), [(1.05, "met"), (1.06, "**missed**")])
def test_the_slowest_way_decides(wall: float, verdict: str) -> None:
    seconds = {NONE: [(1.0, 1.0)], AGAIN: [(1.0, 1.0)]} | {name: [(1.0, 1.0)] for name in OWN}
    slowest = next(iter(OWN))
    text = table(seconds | {slowest: [(wall, 1.0)]}, 1)
    assert f"{wall:.3f} ({slowest}; {verdict}) of wall time" in text
