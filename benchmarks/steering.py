"""`python -m benchmarks.steering`: what an applied steering vector costs in a forward pass, beside other packages.

All ways run in one process on one model, in alternating rounds. Other packages take part where they can be imported.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.tables import replace_section

TARGET = 1.05
TITLE = "Steering"
BATCH, TOKENS = 8, 64
NONE, AGAIN = "no vector", "no vector, once more"
OWN: dict[str, dict[str, Any]] = {
    "alignmend: additive": {"strength": "raw", "preserve_norm": False},
    "alignmend: relative": {"preserve_norm": False},
    "alignmend: relative, norm preserved": {},
    "alignmend: relative, norm preserved, gated": {"gate": True},
}
PEERS = {"repeng": "repeng", "steering-vectors": "steering_vectors"}
Steered = Callable[[], AbstractContextManager[object]]
Seconds = dict[str, list[tuple[float, float]]]
"""Way -> wall and processor seconds of every round."""


@dataclass(frozen=True)
class Size:
    """Widths of a random Llama; the default has 33.9 M parameters."""

    hidden: int = 512
    intermediate: int = 1408
    layers: int = 8
    heads: int = 8
    vocabulary: int = 8000


@dataclass(frozen=True)
class Setting:
    """A model, what it reads (left-padded, two lengths) and one direction per layer, of a tenth of the activations."""

    model: Any
    inputs: Mapping[str, Any]
    directions: Mapping[int, Any]
    parameters: int
    absent: tuple[str, ...] = field(default=())


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    setting = make_setting(Size())
    sections = [_measured_section(setting, threads, options.rounds) for threads in options.threads or (1, 2)]
    text = "\n\n".join([_head(setting, options.rounds), *sections])
    print(text)
    if options.write:
        replace_section(options.write, TITLE, f"{text}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steering", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="alternating rounds (default 15)")
    parser.add_argument("--threads", type=int, action="append", help="of torch; may be repeated (default 1 and 2)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into this Markdown file")
    return parser


def make_setting(size: Size) -> Setting:
    """Random weights, the same every time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        vocab_size=size.vocabulary,
    )
    model = LlamaForCausalLM(config).eval()
    mask = torch.ones(BATCH, TOKENS, dtype=torch.long)
    mask[::2, : TOKENS // 4] = 0
    positions = (mask.cumsum(1) - 1).clamp_min(0)  # repeng needs them, as `generate` gives them
    tokens = torch.randint(0, size.vocabulary, (BATCH, TOKENS))
    inputs = {"input_ids": tokens, "attention_mask": mask, "position_ids": positions}
    directions = {layer: 0.1 * torch.randn(size.hidden) for layer in range(size.layers)}
    count = sum(parameter.numel() for parameter in model.parameters())
    return Setting(model, inputs, directions, count, tuple(name for name in PEERS if not _present(PEERS[name])))


def _present(module: str) -> bool:
    if find_spec(module) is None:
        return False
    try:
        with _older_numpy():
            import_module(module)
    except (ImportError, AttributeError) as error:
        print(f"{module} is installed and cannot be imported: {error}")
        return False
    return True


@contextmanager
def _older_numpy() -> Iterator[None]:
    """repeng 0.4.0 names `numpy.float_` in annotations, which NumPy 2 no longer has."""
    import numpy

    missing = not hasattr(numpy, "float_")
    if missing:
        setattr(numpy, "float_", numpy.float64)  # noqa: B010 (typed NumPy has no such name)
    try:
        yield
    finally:
        if missing:
            delattr(numpy, "float_")


def ways(setting: Setting) -> dict[str, Steered]:
    """Name -> context in which the model is steered."""
    from alignmend.activations.vector import SteeringVector

    vector = SteeringVector(setting.directions)
    found: dict[str, Steered] = {NONE: nullcontext, AGAIN: nullcontext}
    for name, how in OWN.items():
        coefficient = 1.0 if "strength" in how else 0.1
        found[name] = partial(vector.apply, setting.model, coefficient, **how)
    if "repeng" not in setting.absent:
        found["repeng: additive"] = partial(_repeng, setting, normalize=False)
        found["repeng: additive, norm preserved"] = partial(_repeng, setting, normalize=True)
    if "steering-vectors" not in setting.absent:
        found["steering-vectors: additive"] = partial(_steering_vectors, setting)
    return found


@contextmanager
def _repeng(setting: Setting, *, normalize: bool) -> Iterator[None]:
    """It replaces the model's blocks by its own modules, and puts them back."""
    from repeng import ControlModel  # type: ignore[import-not-found, unused-ignore]

    wrapped = ControlModel(setting.model, list(setting.directions))
    try:
        wrapped.set_raw_control(dict(setting.directions), normalize=normalize)
        yield
    finally:
        wrapped.unwrap()


@contextmanager
def _steering_vectors(setting: Setting) -> Iterator[None]:
    import steering_vectors  # type: ignore[import-not-found, unused-ignore]

    vector = steering_vectors.SteeringVector(dict(setting.directions), "decoder_block")
    with vector.apply(setting.model):
        yield


def measure(setting: Setting, rounds: int) -> Seconds:
    """Seconds of one forward pass, per way and round; each round starts further down the list."""
    chosen = list(ways(setting).items())
    seconds: Seconds = {name: [] for name, _ in chosen}
    for _, steered in chosen:
        _forward(setting, steered)
    for number in range(rounds):
        for place in range(len(chosen)):
            name, steered = chosen[(number + place) % len(chosen)]
            seconds[name].append(_forward(setting, steered))
    return seconds


def _forward(setting: Setting, steered: Steered) -> tuple[float, float]:
    """Processor seconds, of all threads, are what remains comparable where other programs run beside."""
    import torch

    with torch.inference_mode(), steered():
        started, spent = time.perf_counter(), time.process_time()
        setting.model(**setting.inputs, use_cache=False)
        return time.perf_counter() - started, time.process_time() - spent


def _measured_section(setting: Setting, threads: int, rounds: int) -> str:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return table(measure(setting, rounds), threads)
    finally:
        torch.set_num_threads(before)


def _head(setting: Setting, rounds: int) -> str:
    about = machine.describe(Path())
    words = ", ".join(f"{name} {about[name]}" for name in ("processor", "cores", "torch", "transformers"))
    there = [f"{name} {version(name)}" for name in PEERS if name not in setting.absent]
    absent = f" Not installed: {', '.join(setting.absent)}." if setting.absent else ""
    return (
        f"A Llama of {setting.parameters / 1e6:.1f} M random float32 parameters, {BATCH} texts of up to {TOKENS} "
        f"tokens, left-padded, every block steered; {rounds} alternating rounds. The ratio is that of the medians; in "
        "brackets the quartiles of the ratios within a round. "
        f"Machine: {words}. Beside: {', '.join(there) or 'no other package'}.{absent}"
    )


def table(seconds: Seconds, threads: int) -> str:
    """Markdown: every way beside no vector, and whether this package's ways keep to the target."""
    rows = [_row(name, found, seconds[NONE]) for name, found in seconds.items()]
    return "\n".join(
        [
            f"| {threads} thread{'s' * (threads > 1)} | seconds, median (quartiles) | x no vector | x its CPU time |",
            "| --- | ---: | ---: | ---: |",
            *rows,
            "",
            f"Target: at most {TARGET:g} x no vector. {_verdict(seconds, 0)} of wall time, {_verdict(seconds, 1)} of "
            f"CPU time. No vector beside itself: {_ratio(seconds, AGAIN, 0):.3f} and {_ratio(seconds, AGAIN, 1):.3f}.",
        ]
    )


def _verdict(seconds: Seconds, clock: int) -> str:
    ratio, slowest = max((_ratio(seconds, name, clock), name) for name in OWN)
    return f"{ratio:.3f} ({slowest}; {'met' if ratio <= TARGET else '**missed**'})"


def _ratio(seconds: Seconds, name: str, clock: int) -> float:
    return _median(seconds[name], clock) / _median(seconds[NONE], clock)


def _median(found: Sequence[tuple[float, float]], clock: int) -> float:
    return statistics.median(one[clock] for one in found)


def _row(name: str, found: Sequence[tuple[float, float]], base: Sequence[tuple[float, float]]) -> str:
    walls = [one[0] for one in found]
    cells = [f"{statistics.median(walls):.3f} ({_quartiles(walls)})"]
    for clock in (0, 1):
        ratios = [one[clock] / other[clock] for one, other in zip(found, base, strict=True)]
        cells.append(f"{_median(found, clock) / _median(base, clock):.3f} ({_quartiles(ratios)})")
    return f"| {name} | {' | '.join(cells)} |"


def _quartiles(values: Sequence[float]) -> str:
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return f"{low:.3f}-{high:.3f}"


if __name__ == "__main__":
    main()
