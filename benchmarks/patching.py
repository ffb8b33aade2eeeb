"""`python -m benchmarks.patching`: SafePatching and TIES against reading every input once and writing the output once.

Run from the repository's root. The target is the family's `aligned`, the patches are `finetuned` and `unaligned`, the
scores are lognormal and of another scale in every row and column, in bfloat16, for the weights of linear layers.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np

from benchmarks.contenders import Contender
from benchmarks.measure import Run, run_rounds
from benchmarks.shapes import LlamaShape, parse_size, shape_for
from benchmarks.synthetic import Family, make_family
from benchmarks.tensorfile import header_bytes, to_bits

WORK = Path("benchmarks/work")
MODELS = ("aligned", "finetuned", "unaligned")
SCORES = ("safety-scores", "over-safety-scores")
ROWS = 512
FLOORS = ("floor-three-models", "floor")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.patching", description=__doc__)
    add = parser.add_argument
    add("--size", default="1.2GB", help="bytes per model (default 1.2GB)")
    add("--rounds", type=int, default=3, help="alternating rounds over all contenders (default 3)")
    add("--cold", action="store_true", help="drop the inputs from the page cache before each run")
    add("--limit", type=int, default=900, help="seconds after which one run is killed (default 900)")
    add("--work", type=Path, default=WORK, help=f"folder for inputs and outputs (default {WORK})")
    add("--only", action="append", help="contender to run, with the floors (repeatable; default all)")
    options = parser.parse_args(arguments)
    family = make_family(options.work / options.size, shape_for(parse_size(options.size)), MODELS)
    for number, role in enumerate(SCORES):
        write_scores(family.path(role) / "scores.safetensors", family.shape, seed=number)
    runs: list[Run] = []
    chosen = [one for one in contenders(family) if not options.only or one.name in (*FLOORS, *options.only)]
    for run in run_rounds(
        family, chosen, rounds=options.rounds, cold=options.cold, limit_seconds=options.limit, inspect=lambda _: None
    ):
        runs.append(run)
        print(
            f"round {run.round}: {run.contender}: {run.wall_seconds:.2f} s, "
            f"{run.cpu_seconds:.2f} CPU s, {run.error or 'done'}",
            flush=True,
        )
    print(table(family, chosen, runs))


def contenders(family: Family) -> list[Contender]:
    """The floors of both methods, and the methods."""
    recipes = {
        "safe-patching": _patching({}),
        "safe-patching-conflict": _patching({"mode": "conflict"}),
        "safe-patching-by-row": _patching({"scope": "row"}),
        "task-arithmetic": _patching({"sets": "none", "density": 1.0}),
        "ties": {"method": "ties", "models": {"base": "aligned", "finetuned": ["finetuned", "unaligned"]}},
    }
    output = family.folder / "output"
    program = str(Path(sys.executable).with_name("alignmend"))
    found = [_floor(family, "floor-three-models", MODELS, output), _floor(family, "floor", (*MODELS, *SCORES), output)]
    for name, recipe in recipes.items():
        path = family.folder / f"{name}.yaml"
        path.write_text(json.dumps(recipe, indent=2) + "\n")
        command = (program, "apply", str(path), "--out", str(output), "--no-hash")
        found.append(Contender(name, command, (*MODELS, *SCORES), output))
    return found


def _patching(parameters: dict[str, object]) -> dict[str, object]:
    models = {"target": "aligned", "safety": "finetuned", "over_safety": "unaligned"}
    scores = {role.replace("-", "_"): f"{role}/scores.safetensors" for role in SCORES}
    return {"method": "safe_patching", "models": models | scores, "parameters": parameters}


def _floor(family: Family, name: str, roles: Sequence[str], output: Path) -> Contender:
    others = shlex.join(str(path) for path in family.files(*roles[1:]))
    copy = f"cp -r {shlex.quote(str(family.path(roles[0])))} {shlex.quote(str(output))}"
    return Contender(name, ("sh", "-c", f"cat {others} >/dev/null && {copy}"), tuple(roles), output)


def write_scores(path: Path, shape: LlamaShape, seed: int) -> None:
    """Lognormal scores of every weight inside the decoder layers, a few rows at a time."""
    shapes = {name: size for name, size in shape.tensors().items() if ".layers." in name and len(size) > 1}
    expected = len(header_bytes(shapes)) + 2 * sum(prod(size) for size in shapes.values())
    if path.exists() and path.stat().st_size == expected:
        return
    path.parent.mkdir(exist_ok=True)
    random = np.random.Generator(np.random.SFC64(seed))
    with path.open("wb") as file:
        file.write(header_bytes(shapes))
        for rows, columns in shapes.values():
            scale = 1e-8 * np.exp(random.standard_normal(columns, np.float32))
            for first in range(0, rows, ROWS):
                count = min(ROWS, rows - first)
                values = np.exp(random.standard_normal((count, columns), np.float32))
                values *= np.exp(random.standard_normal((count, 1), np.float32)) * scale
                file.write(to_bits(values.ravel()).tobytes())


def table(family: Family, chosen: Sequence[Contender], runs: Sequence[Run]) -> str:
    """Medians over rounds; the ratio is to the floor that reads the same files."""
    size = sum(path.stat().st_size for path in family.files(*MODELS, *SCORES)) / 1e9
    lines = [
        f"{family.shape.byte_count() / 1e9:.2f} GB per model, {size:.2f} GB of inputs",
        "",
        "| | wall s | x floor | CPU s | peak MB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    found = {one.name: [run for run in runs if run.contender == one.name and not run.failed] for one in chosen}
    floors = {name: _median(found[name], "wall_seconds") for name in FLOORS if found[name]}
    for name, own in found.items():
        if not own:
            lines.append(f"| {name} | failed | | | |")
            continue
        three = name in ("ties", "task-arithmetic", "floor-three-models")
        wall = _median(own, "wall_seconds")
        ratio = wall / floors["floor-three-models" if three else "floor"]
        peak = max(run.peak_bytes for run in own) / 1e6
        lines.append(f"| {name} | {wall:.2f} | {ratio:.2f} | {_median(own, 'cpu_seconds'):.1f} | {peak:.0f} |")
    return "\n".join(lines)


def _median(runs: Sequence[Run], name: str) -> float:
    return float(statistics.median(getattr(run, name) for run in runs))


if __name__ == "__main__":
    main()
