"""Organisms that compute what they did and weigh what a large model weighs: Llamas padded to any width.

Every weight of the organism stands in the upper left corner of a wider one, and the rest is zero. Hidden units beyond
the organism's stay 0, so the mean of squares of a hidden state falls by the ratio of the widths; norm weights divided
by the square root of that ratio, and an epsilon divided by the ratio, undo it. Widths grow by powers of 4: then that
root is a power of 2, which bfloat16 holds exactly. Heads keep their size, queries their share of a key, and the MLP is
as wide as the number of parameters asks for. The number of layers and the vocabulary stay.

What it can show: time, disk and memory of everything that handles weights, and that a workflow ends at that size as it
does at the organism's. What it cannot show: how a model of that size behaves. Its answers are the tiny model's, which
are short; it has 4 layers where a model of its size has 16 or more; its cache of keys and its activations are those of
few, wide layers.

Zeros are special for whatever compares or ranks weights: ties by the million, and blocks that a fine-tune has not
changed. `noise` fills the padding of the layers' matrices with normal numbers that all members share, and a twentieth
of it that is each member's own, so that a fine-tune differs from its parent everywhere. A direction still has nearly
all of its length in the corner: "the largest tenth" is all of it, so trims do not choose as they do on the organism.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.shapes import LlamaShape
from benchmarks.synthetic import SPARE_DISK
from benchmarks.tensorfile import StoredTensor, header_bytes, stored_tensors, to_bits

MEMBERS = ("aligned", "unaligned", "finetuned")
NOISE = 1e-4
"""Of the padding; `tests/benchmarks/test_benchmark_restore.py` holds what it does to logits."""
OWN_SHARE = 0.05
_ROWS = 256
_ROUND = 64
_SEED = 11


@dataclass(frozen=True)
class Widening:
    """Shapes before and after; `ratio` is that of the hidden widths, a power of 4."""

    before: LlamaShape
    after: LlamaShape

    @property
    def ratio(self) -> int:
        return self.after.hidden // self.before.hidden

    @property
    def parameters(self) -> int:
        return self.after.byte_count() // 2


def shape_of(config: Mapping[str, Any]) -> LlamaShape:
    """The shape in a Llama's `config.json`."""
    if config["model_type"] != "llama" or config["hidden_size"] != config["num_attention_heads"] * config["head_dim"]:
        raise ValueError(f"only a Llama whose heads fill its width can be widened, not {config['model_type']}")
    return LlamaShape(
        hidden=config["hidden_size"],
        intermediate=config["intermediate_size"],
        heads=config["num_attention_heads"],
        key_value_heads=config["num_key_value_heads"],
        vocabulary=config["vocab_size"],
        layers=config["num_hidden_layers"],
    )


def widening_to(before: LlamaShape, parameters: int) -> Widening:
    """The widest hidden state whose other weights are at most half of `parameters`; the MLP fills the rest."""
    found = [one for power in range(8) if (one := _widened(before, 4**power, parameters)) is not None]
    if not found:
        least = before.byte_count() // 2
        raise ValueError(f"{parameters:,} parameters are too few: the organism has {least:,}; ask for twice as many")
    return Widening(before, found[-1])


def _widened(before: LlamaShape, ratio: int, parameters: int) -> LlamaShape | None:
    wide = replace(
        before,
        hidden=before.hidden * ratio,
        intermediate=0,
        heads=before.heads * ratio,
        key_value_heads=before.key_value_heads * ratio,
    )
    fixed = wide.byte_count() // 2
    units = (parameters - fixed) // (3 * wide.hidden * wide.layers) // _ROUND * _ROUND
    if 2 * fixed > parameters or units < before.intermediate:
        return None
    return replace(wide, intermediate=units)


def widen(folder: Path, out: Path, widening: Widening, *, noise: float = NOISE) -> None:
    """Write the checkpoint in `folder` to `out`, padded; `out` is found again where it is there whole."""
    config = json.loads((folder / "config.json").read_text())
    marker = out / "widened.json"
    identity = json.dumps({"parameters": widening.parameters, "noise": noise, "seed": _SEED, "config": config})
    if marker.is_file() and marker.read_text() == identity:
        return
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    _check_disk(out, widening.after.byte_count())
    stored, shapes = stored_tensors(folder), widening.after.tensors()
    if set(stored) != set(shapes):
        raise ValueError(f"{folder} is no plain Llama in bfloat16: {sorted(set(stored) ^ set(shapes))[:3]}")
    with (out / "model.safetensors").open("wb") as file:
        file.write(header_bytes(shapes))
        for place, (name, shape) in enumerate(shapes.items()):
            padding = _Noise(noise, place, folder.name, ".layers." in name)
            for rows in _rows(stored[name], shape, widening.ratio, padding):
                file.write(to_bits(rows).tobytes())
    for one in folder.iterdir():
        if one.suffix != ".safetensors" and not one.name.endswith(".index.json"):
            shutil.copyfile(one, out / one.name)
    (out / "config.json").write_text(json.dumps(_config(config, widening), indent=2) + "\n")
    marker.write_text(identity)


@dataclass(frozen=True)
class _Noise:
    """Of one tensor's padding, the same every time."""

    deviation: float
    place: int
    member: str
    inside_layers: bool

    def fill(self, first: int, rows: NDArray[np.float32]) -> None:
        """Fill all of `rows`, which begin at row `first`."""
        if not self.deviation or not self.inside_layers:
            return
        for share, whose in ((1.0, "all"), (OWN_SHARE, self.member)):
            words = (_SEED, self.place, first, *whose.encode())
            random = np.random.Generator(np.random.SFC64(np.random.SeedSequence(words)))
            rows += random.standard_normal(rows.shape, np.float32) * np.float32(share * self.deviation)


def _rows(stored: StoredTensor, shape: tuple[int, ...], ratio: int, noise: _Noise) -> Iterator[NDArray[np.float32]]:
    """The widened tensor, some rows at a time, float32 that bfloat16 holds exactly wherever the organism's did."""
    corner = stored.values(0, stored.size).astype(np.float32).reshape(stored.shape)
    if len(shape) == 1:
        # Whatever stands before a hidden unit that is 0; the noise's are scaled like the others.
        whole = np.concatenate([corner, np.ones(shape[0] - len(corner), np.float32)])
        yield np.divide(whole, math.sqrt(ratio), dtype=np.float32)
        return
    for first in range(0, shape[0], _ROWS):
        rows = np.zeros((min(_ROWS, shape[0] - first), shape[1]), np.float32)
        noise.fill(first, rows)
        here = corner[first : first + len(rows)]
        rows[: len(here), : corner.shape[1]] = here
        yield rows


def _config(config: Mapping[str, Any], widening: Widening) -> dict[str, Any]:
    after = widening.after
    return {
        **config,
        "hidden_size": after.hidden,
        "intermediate_size": after.intermediate,
        "num_attention_heads": after.heads,
        "num_key_value_heads": after.key_value_heads,
        "rms_norm_eps": config["rms_norm_eps"] / widening.ratio,
        "dtype": "bfloat16",
    }


def _check_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE_DISK:
        wanted = f"{needed / 1e9:.1f} GB and {SPARE_DISK / 1e9:.0f} GB to spare"
        raise SystemExit(f"a widened model needs {wanted}; {free / 1e9:.1f} GB are free")


def widen_family(folder: Path, out: Path, parameters: int, *, noise: float = NOISE) -> Widening:
    """Widen the family's members in `folder` to about `parameters` each; raises `ValueError` for too few."""
    config = json.loads((folder / MEMBERS[0] / "config.json").read_text())
    widening = widening_to(shape_of(config), parameters)
    for member in MEMBERS:
        widen(folder / member, out / member, widening, noise=noise)
    return widening
