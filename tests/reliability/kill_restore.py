"""Kill `alignmend restore` at random moments, resume it, and compare all that it leaves with an undisturbed one.

python -m tests.reliability.kill_restore --kills 20
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.reliability.kill import INTERRUPTIBLE, POLL_SECONDS

from alignmend.organisms import Family, shipped_family

PATIENCE_SECONDS = 900.0
SECOND_KILLS = 3
"""One resumed run in so many is killed too."""
FEW = {"harmful": 30, "borderline": 18, "benign": 18}
"""Prompts of a suite."""
SHORT = {"judge": "organism", "search-prompts": 6, "search-tokens": 8, "max-new-tokens": 8, "batch-size": 8}
LOOSE = {"max-over-refusal": 1, "min-utility": 0.1, "max-incoherent": 1, "max-steps": 12, "train-batch-size": 4}
TIMES = re.compile(r"\b\d+(\.\d+)? (s|min|seconds|minutes)\b")


@dataclass(frozen=True)
class Bench:
    """What is restored, and what an undisturbed run makes of it."""

    folder: Path
    options: tuple[str, ...]
    trials: int
    expected: dict[str, Any]
    cpu_seconds: float


def start(options: Sequence[str], out: Path, *more: str) -> subprocess.Popen[str]:
    """`alignmend restore` in a process of its own."""
    command = [sys.executable, "-c", INTERRUPTIBLE, "restore", *options, "--out", str(out), *more]
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def complete(options: Sequence[str], out: Path, *more: str) -> None:
    """Run to the end; raises AssertionError where that fails."""
    process = start(options, out, *more)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, errors


def options_of(family: Family, folder: Path, *, trained: bool) -> tuple[str, ...]:
    """A restore of few and short prompts; `trained`: without an unaligned model, which it trains."""
    suites: list[str] = []
    for name, count in FEW.items():
        lines = family.suites[name].read_text(encoding="utf-8").splitlines()[:count]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        suites += ["--suite", str(folder / f"{name}.jsonl")]
    members = family.members
    third = (
        ("--harmful-data", str(family.directory / "data" / "harmful_pairs.jsonl"))
        if trained
        else ("--unaligned", str(members["unaligned"]))
    )
    given = [f"--{name}={value}" for name, value in (SHORT | LOOSE | {"device": "cpu"}).items()]
    return (str(members["finetuned"]), "--aligned", str(members["aligned"]), *third, *suites, *given)


def found(parent: Path) -> dict[str, Any]:
    """All that a restore left beside each other, but for times: text as text, JSON as JSON, weights as bytes."""
    return {
        path.relative_to(parent).as_posix(): timeless(path)
        for path in sorted(parent.rglob("*"))
        if path.is_file() and path.name not in ("search.log", "report.html")
    }


def timeless(path: Path) -> Any:
    """The content of a file without times."""
    raw = path.read_bytes()
    if path.suffix == ".json":
        return _without_times(json.loads(raw))
    if path.suffix == ".jsonl":
        return [_without_times(json.loads(line)) for line in raw.splitlines()]
    return TIMES.sub("TIME", raw.decode("utf-8")) if path.suffix in (".md", ".yaml") else raw


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(one) for key, one in value.items() if not _is_time(key)}
    return [_without_times(one) for one in value] if isinstance(value, list) else value


def _is_time(key: str) -> bool:
    return "seconds" in key or key in ("created", "switch")


def prepare(folder: Path, *, trials: int, methods: str, trained: bool = False) -> Bench:
    """The organism that ships, and the undisturbed restore of it."""
    family = shipped_family(folder / "family")
    options = (*options_of(family, folder, trained=trained), "--method", methods)
    begun = os.times()
    complete(options, folder / "undisturbed" / "out", "--trials", str(trials))
    ended = os.times()
    spent = ended.children_user - begun.children_user + ended.children_system - begun.children_system
    return Bench(folder, options, trials, found(folder / "undisturbed"), spent)


def kill_once(bench: Bench, number: int, chance: random.Random) -> str:
    """One restore that is killed, once or twice, and resumed; returns where it was killed."""
    parent = bench.folder / f"kill-{number}"
    moments = [chance.uniform(0.0, bench.cpu_seconds) for _ in range(2 if number % SECOND_KILLS == 0 else 1)]
    left = [killed(bench, parent, cpu_seconds) for cpu_seconds in moments]
    complete(bench.options, parent / "out", "--trials", str(bench.trials), "--resume")
    after = found(parent)
    assert after.keys() == bench.expected.keys(), f"kill {number} ({left}): other files, {sorted(after)}"
    other = [name for name in after if after[name] != bench.expected[name]]
    assert not other, f"kill {number} ({left}): other content in {', '.join(other)}"
    shutil.rmtree(parent)
    return ", then ".join(left)


def killed(bench: Bench, parent: Path, cpu_seconds: float) -> str:
    """Kill one run when it has spent so much CPU time, which a busy machine does not change; what it was at."""
    process = start(bench.options, parent / "out", "--trials", str(bench.trials), "--resume")
    try:
        while process.poll() is None and spent(process.pid) < cpu_seconds:
            time.sleep(POLL_SECONDS)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    return stage(parent)


def spent(pid: int) -> float:
    """CPU seconds of a process; 0 where it has just ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def stage(parent: Path) -> str:
    """How far a run that was killed had come."""
    work = parent / "out-search"
    if (parent / "out").exists():
        return "when all was there"
    for name, told in (("records/restored", "proof"), ("out", "writing"), ("records", "proof of the fine-tune")):
        if (work / name).exists():
            return told
    journal = work / "journal.log"
    if journal.is_file():
        tried = journal.read_text(encoding="utf-8").count('"record"')
        return f"search, {tried} candidates"
    return "before the search" if work.exists() else "before anything"


def run(
    folder: Path,
    *,
    kills: int,
    trials: int = 5,
    methods: str = "resta,resta_drop",
    seed: int = 0,
    trained: bool = False,
) -> Counter[str]:
    """Kill `kills` restores; returns where, counted.

    Raises AssertionError at the first whose resumed run ends with another recipe, other weights, other records or
    results (but for times), or leaves something behind.
    """
    chance = random.Random(seed)
    bench = prepare(folder, trials=trials, methods=methods, trained=trained)
    where: Counter[str] = Counter()
    for number in range(kills):
        where[kill_once(bench, number, chance)] += 1
        sys.stderr.write(f"kill {number}: {list(where)[-1]}\n")
    return where


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--method", default="resta,resta_drop")
    parser.add_argument("--trained", action="store_true", help="without an unaligned model, which is trained")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        where = run(
            Path(folder),
            kills=arguments.kills,
            trials=arguments.trials,
            methods=arguments.method,
            seed=arguments.seed,
            trained=arguments.trained,
        )
    lines = [f"{count:5d}  {state}" for state, count in sorted(where.items())]
    sys.stdout.write("\n".join([*lines, f"{sum(where.values())} kills: every resumed restore ended alike", ""]))


if __name__ == "__main__":
    main()
