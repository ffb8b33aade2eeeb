"""`python -m benchmarks.switching`: another candidate in a loaded model, against one pass over its weights in memory.

Run from the repository's root. Candidates are RESTA's at other coefficients, of a direction that is held; the first
use, which computes and holds it, is told by itself. Passes and switches alternate.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.shapes import parse_size, shape_for
from benchmarks.synthetic import Family, make_family

WORK = Path("benchmarks/work")
ROLES = ("finetuned", "aligned", "unaligned")
TARGET = 3.0
"""A switch costs at most so many passes."""
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Cost:
    """Seconds of the first switch, and medians of the later ones and of a pass."""

    dtype: str
    threads: int
    first: float
    later: float
    one_pass: float

    @property
    def ratio(self) -> float:
        """Passes that a later switch takes."""
        return self.later / self.one_pass


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.switching", description=__doc__)
    add = parser.add_argument
    add("--size", default="1.2GB", help="bytes per model in bfloat16 (default 1.2GB)")
    add("--switches", type=int, default=15, help="of each setting (default 15)")
    add("--threads", type=int, nargs="+", default=[1, 2], help="settings to measure (default 1 2)")
    add("--work", type=Path, default=WORK, help=f"folder for inputs (default {WORK})")
    options = parser.parse_args(arguments)
    family = make_family(options.work / options.size, shape_for(parse_size(options.size)), ROLES)
    print(table(costs(family, options.threads, options.switches)))


def costs(family: Family, threads: Sequence[int], switches: int) -> Iterator[Cost]:
    """Of every dtype of the loaded model and number of threads."""
    import torch
    from transformers import AutoModelForCausalLM

    before = torch.get_num_threads()
    for dtype in DTYPES:
        model = AutoModelForCausalLM.from_pretrained(family.path("finetuned"), dtype=getattr(torch, dtype))
        for count in threads:
            torch.set_num_threads(count)
            yield _cost(family, model, dtype, count, switches)
    torch.set_num_threads(before)


def _cost(family: Family, model: Any, dtype: str, threads: int, switches: int) -> Cost:
    import alignmend as am
    from alignmend.execution.in_place import InPlace
    from alignmend.restore.preflight_memory import available_memory

    finetuned, aligned, unaligned = (am.open(family.path(role)) for role in ROLES)
    place = InPlace(model, finetuned, threads=threads, memory=available_memory() or 0)

    def switch(coefficient: float) -> float:
        return place.switch(
            am.resta(finetuned=finetuned, aligned=aligned, unaligned=unaligned, coefficient=coefficient)
        ).seconds

    first = switch(1.0)
    later = [(switch(0.5 + 0.01 * number), place.pass_seconds()) for number in range(switches)]
    return Cost(dtype, threads, first, *map(statistics.median, zip(*later, strict=True)))


def table(found: Iterator[Cost]) -> str:
    """Markdown."""
    lines = [
        "| model in memory | threads | first use s | switch s | one pass s | switch / pass | at most 3 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for one in found:
        verdict = "yes" if one.ratio <= TARGET else "**no**"
        numbers = f"{one.first:.2f} | {one.later:.3f} | {one.one_pass:.3f} | {one.ratio:.2f}"
        lines.append(f"| {one.dtype} | {one.threads} | {numbers} | {verdict} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
