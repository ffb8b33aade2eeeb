"""At which depth the weights lie that matter for safety and for over-safety."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from alignmend.algebra.names import layer_of
from studies.safepatching.patches import TRAINED, Bench

RATE = 0.1
"""Share of the patched weights that count as the top set here, all layers together: of each, shares would be alike."""


def profile(bench: Bench) -> Mapping[str, list[float]]:
    """Per layer, its share of the top safety weights, of the top over-safety weights, and of each without the other."""
    safety, over = (_scores(bench.scores(role)) for role in ("safety", "over_safety"))
    names = sorted(safety)
    tops = [_top(scores, names) for scores in (safety, over)]
    layers = np.concatenate([np.full(safety[name].size, layer_of(name)) for name in names])
    sets = {
        "safety": tops[0],
        "over-safety": tops[1],
        "safety only": tops[0] & ~tops[1],
        "over-safety only": tops[1] & ~tops[0],
    }
    return {name: _shares(layers, chosen) for name, chosen in sets.items()}


def table(profiles: Sequence[Mapping[str, list[float]]]) -> list[str]:
    """A line per set with the mean share of each layer over seeds."""
    count = len(next(iter(profiles[0].values())))
    lines = [f"| set | {' | '.join(f'layer {layer}' for layer in range(count))} |", "| --- " * (count + 1) + "|"]
    for name in profiles[0]:
        means = np.mean([one[name] for one in profiles], axis=0)
        lines.append(f"| {name} | {' | '.join(f'{100 * value:.0f} %' for value in means)} |")
    return lines


def _scores(path: Path) -> dict[str, np.ndarray]:
    return {name: values.astype(np.float64).ravel() for name, values in load_file(path).items() if TRAINED in name}


def _top(scores: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    flat = np.concatenate([scores[name] for name in names])
    cut = np.partition(flat, -int(RATE * flat.size))[-int(RATE * flat.size)]
    chosen: np.ndarray = flat >= cut
    return chosen


def _shares(layers: np.ndarray, chosen: np.ndarray) -> list[float]:
    counted = np.bincount(layers[chosen], minlength=int(layers.max()) + 1)
    return [float(value) for value in counted / max(1, counted.sum())]
