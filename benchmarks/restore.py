"""`python -m benchmarks.restore --parameters 200M`: what a whole `alignmend restore` costs on a widened organism.

The command runs in a process of its own, on a few prompts; this process only looks at its log and its folders. What
preflight said beforehand stands beside what was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.measure import LAUNCHER
from benchmarks.tables import replace_section
from benchmarks.widened import Widening, widen_family

TITLE = "Restore"
TARGET = 3.0
"""A switch of weights costs at most so many passes over them."""
WORK = Path("benchmarks/work")
SUITES = ("harmful", "borderline", "benign", "task")
UNITS = {"K": 10**3, "M": 10**6, "B": 10**9}
TRAINING = ("--lora-rank", "16", "--learning-rate", "2e-3")
_LOOKS_EVERY = 0.2


@dataclass(frozen=True)
class Job:
    """One restore: what it is given, and where it writes."""

    family: Path
    suites: tuple[Path, ...]
    out: Path
    trials: int
    prompts: int
    train_steps: int
    harmful_data: Path
    methods: str

    def arguments(self) -> list[str]:
        """Of `alignmend restore`."""
        suites = [word for path in self.suites for word in ("--suite", str(path))]
        given = (
            ["--harmful-data", str(self.harmful_data), *TRAINING, "--max-steps", str(self.train_steps)]
            if self.train_steps
            else ["--unaligned", str(self.family / "unaligned")]
        )
        numbers = {"--trials": self.trials, "--search-prompts": self.prompts, "--max-new-tokens": 48}
        options = [word for name, number in numbers.items() for word in (name, str(number))]
        return [
            str(self.family / "finetuned"),
            *("--aligned", str(self.family / "aligned")),
            *given,
            *suites,
            *("--judge", "organism", "--method", self.methods, "--out", str(self.out), "--yes", "--overwrite"),
            *options,
        ]


@dataclass
class Seen:
    """What was seen from outside: seconds since the start of each event, and the most bytes on the disk."""

    events: dict[str, float] = field(default_factory=dict)
    most_bytes: int = 0


@dataclass(frozen=True)
class Measured:
    """One restore, as it went."""

    costs: Mapping[str, float]
    seen: Seen
    results: Mapping[str, Any]

    @property
    def steps(self) -> dict[str, float]:
        """Seconds of each step, in order; one that was too short to be seen has none."""
        marks = sorted(self.seen.events.items(), key=lambda one: one[1])
        ends = [*(when for _, when in marks[1:]), self.costs["exit_seconds"]]
        return {name: end - when for (name, when), end in zip(marks, ends, strict=True)}


@dataclass(frozen=True)
class Told:
    """What preflight says beforehand, in bytes, and the seconds that it takes."""

    disk: int
    memory: int
    seconds: float


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    place = options.work / f"restore-{options.parameters}"
    organism = make_organism(options.work / "organism")
    widening = widen_family(organism, place, parse_count(options.parameters))
    job = Job(
        family=place,
        suites=thinned(organism / "suites", place / "suites", options.suite_prompts),
        out=place / "restored",
        trials=options.trials,
        prompts=options.search_prompts,
        train_steps=options.train_steps,
        harmful_data=organism / "data" / "harmful_pairs.jsonl",
        methods=options.methods,
    )
    told = ask_preflight(job)
    measured = measure(job, options.limit)
    text = report(job, widening, told, measured)
    print(text)
    if not options.keep:
        shutil.rmtree(job.out)
    if options.write:
        replace_section(options.write, options.section, f"{text}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restore", description=__doc__)
    add = parser.add_argument
    add("--parameters", default="200M", metavar="N", help="of each model, such as 100M or 1B (default 200M)")
    add("--trials", type=int, default=6, help="candidates (default 6)")
    add("--search-prompts", type=int, default=8, help="of each kind in the search (default 8)")
    add("--suite-prompts", type=int, default=16, help="of each of four suites, search and report (default 16)")
    add("--methods", default="resta,harm_direction_removal", help="families (default resta,harm_direction_removal)")
    add("--train-steps", type=int, default=0, help="train the unaligned model by LoRA, so many steps (default: given)")
    add("--limit", type=int, default=1800, help="seconds after which it is killed (default 1800)")
    add("--keep", action="store_true", help="leave the restored model there")
    add("--work", type=Path, default=WORK, help=f"folder for inputs and output (default {WORK})")
    add("--write", type=Path, metavar="FILE", help="put the table into this Markdown file")
    add("--section", default=TITLE, help=f"between the markers of this name (default {TITLE})")
    return parser


def parse_count(text: str) -> int:
    """`"300M"` as a number."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMB])", text.strip(), re.IGNORECASE)
    if found is None:
        raise SystemExit(f"a number of parameters is a number and K, M or B, such as 300M; got {text!r}")
    return round(float(found[1]) * UNITS[found[2].upper()])


def make_organism(folder: Path) -> Path:
    """The family that ships."""
    from alignmend.organisms import shipped_family

    return shipped_family(folder).directory


def thinned(suites: Path, out: Path, count: int) -> tuple[Path, ...]:
    """About `count` prompts of each suite, evenly taken."""
    out.mkdir(parents=True, exist_ok=True)
    for name in SUITES:
        lines = (suites / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        kept = lines[:: max(1, len(lines) // count)][:count]
        (out / f"{name}.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    return tuple(out / f"{name}.jsonl" for name in SUITES)


def ask_preflight(job: Job) -> Told:
    """The numbers behind the rows `disk` and `memory to search and prove`, and the time of a dry run."""
    from alignmend.io.folder import open_checkpoint_folder
    from alignmend.restore.preflight_memory import memory_here, needs_of
    from alignmend.restore.preflight_space import at_most, parts_to_make, size_of, steps_of

    request = _request(job)
    folder = open_checkpoint_folder(job.family / "finetuned")
    size, parts = size_of(folder), parts_to_make(request, is_adapter=False)
    on_accelerator = memory_here(None).has_accelerator
    needs = [*needs_of(request, size, folder.config, parts, longest=100, has_accelerator=on_accelerator)]
    began = time.perf_counter()
    subprocess.run([_program(), "restore", *job.arguments(), "--dry-run"], check=True, capture_output=True)
    spent = time.perf_counter() - began
    return Told(at_most(steps_of(request, size, parts)), max(one.usual for one in needs), spent)


def _request(job: Job) -> Any:
    from alignmend.cli.restore_options import add_restore_options, request_of

    parser = argparse.ArgumentParser()
    add_restore_options(parser)
    return request_of(parser.parse_args(job.arguments()))


def _program() -> str:
    return str(Path(sys.executable).with_name("alignmend"))


def measure(job: Job, limit_seconds: int) -> Measured:
    """Run it, and look at it from outside."""
    log = job.out.with_name("log.txt")
    log.unlink(missing_ok=True)
    for folder in _folders(job.out):  # what a run that failed has left would be taken for this one's
        shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-I", "-S", str(LAUNCHER), str(limit_seconds), str(log), _program(), "restore"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    seen, done = Seen(), threading.Event()
    watcher = threading.Thread(target=_watch, args=(job.out, log, seen, done))
    watcher.start()
    try:
        answer = subprocess.run(
            [*command, *job.arguments()], check=True, capture_output=True, text=True, env=environment
        )
    finally:
        done.set()
        watcher.join()
    costs = json.loads(answer.stdout)
    if costs["exit_code"]:
        raise SystemExit(f"alignmend restore ended with {costs['exit_code']}:\n{log.read_text()[-2000:]}")
    return Measured(costs, seen, json.loads((job.out / "results.json").read_bytes()))


def _watch(out: Path, log: Path, seen: Seen, done: threading.Event) -> None:
    began = time.perf_counter()
    while not done.wait(_LOOKS_EVERY):
        text = log.read_text(errors="replace") if log.exists() else ""
        for name, happened in EVENTS.items():
            if name not in seen.events and happened(text, out):
                seen.events[name] = time.perf_counter() - began
        seen.most_bytes = max(seen.most_bytes, sum(map(bytes_on_disk, _folders(out))))


def _folders(out: Path) -> tuple[Path, ...]:
    """The output and what lies beside it in the making."""
    return out, out.with_name(f"{out.name}-search"), out.with_name(f"{out.name}-private")


def bytes_on_disk(folder: Path) -> int:
    """Blocks of all files in a folder, which may vanish meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += 512 * path.lstat().st_blocks
        except FileNotFoundError:
            continue
    return total


def _said(words: str) -> Callable[[str, Path], bool]:
    return lambda log, out: words in log


def _there(*names: str) -> Callable[[str, Path], bool]:
    """Whether one of the patterns is in the work folder."""
    return lambda log, out: any(any(out.with_name(f"{out.name}-search").glob(name)) for name in names)


EVENTS: Mapping[str, Callable[[str, Path], bool]] = {
    "start, preflight": lambda log, out: True,
    "load, measure fine-tune and parent, train what is missing": _said("to try: "),
    "search": _there("journal.log"),
    "prove: the fine-tune's answers": _said("chosen: "),
    "write the checkpoint": _there("restored", ".restored*"),
    "load it again, prove: its answers, report": _there("records/restored"),
}
"""What begins, and how that is seen."""


def report(job: Job, widening: Widening, told: Told, measured: Measured) -> str:
    """Markdown."""
    about = machine.describe(job.out.parent)
    words = ", ".join(f"{name} {about[name]}" for name in ("processor", "cores", "memory", "torch", "transformers"))
    after, search = widening.after, measured.results["search"]
    unaligned = f"trained by LoRA of rank 16, {job.train_steps} steps" if job.train_steps else "given"
    head = (
        f"The organism widened to {widening.parameters / 1e6:.0f} M parameters (width {after.hidden}, MLP "
        f"{after.intermediate}, {after.heads} heads, {after.layers} layers; {after.byte_count() / 1e6:.0f} MB in "
        f"bfloat16, computed in float32), unaligned model {unaligned}; {job.methods}; {len(search['candidates'])} "
        f"candidates on {sum(search['prompts'].values())} search prompts, "
        f"{sum(one['n'] for one in measured.results['suites'].values())} report prompts. Machine: {words}."
    )
    return "\n\n".join([head, _steps(measured), _against(told, measured), _switch(search["switch"])])


def _steps(measured: Measured) -> str:
    rows = [f"| {name} | {seconds:.1f} |" for name, seconds in measured.steps.items()]
    total = f"| **all, until it is on the disk** | {measured.costs['wall_seconds']:.1f} |"
    return "\n".join(["| step | seconds |", "| --- | ---: |", *rows, total])


def _against(told: Told, measured: Measured) -> str:
    rows = [("disk at most, MB", told.disk, measured.seen.most_bytes),
            ("memory at most, MB; measured: with what is held", told.memory, measured.costs["peak_bytes"])]  # fmt: skip
    cells = [f"| {name} | {before / 1e6:,.0f} | {after / 1e6:,.0f} |" for name, before, after in rows]
    return "\n".join(["| | preflight said | measured |", "| --- | ---: | ---: |", *cells])


def _switch(switch: Mapping[str, float]) -> str:
    verdict = "met" if switch["ratio"] <= TARGET else "**missed**"
    return (
        f"A switch of the loaded model to another candidate: {switch['median_seconds']:.3f} s, one pass over its "
        f"weights {switch['pass_seconds']:.3f} s. Target: at most {TARGET:g} x; {switch['ratio']:.2f} x, {verdict}."
    )


if __name__ == "__main__":
    main()
