"""Records of runs -> Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.contenders import TITLES

Records = Mapping[str, Any]
MEGA, GIGA = 10**6, 10**9
PEAK_LIMIT = 500 * MEGA
COST_HEADER = (
    "contender",
    "wall s, median (quartiles)",
    "until exit s",
    "CPU s",
    "peak RSS MB",
    "x floor",
    "x (floor + import torch)",
    "runs",
)


@dataclass(frozen=True)
class Target:
    """`numerator` over the sum of `denominators` (medians of wall time) against a limit."""

    numerator: str
    denominators: tuple[str, ...]
    limit: float
    at_least: bool = False

    def words(self) -> str:
        return f"{self.numerator} / ({' + '.join(self.denominators)})"

    def is_met(self, ratio: float) -> bool:
        return ratio >= self.limit if self.at_least else ratio <= self.limit


WARM_TARGETS = (
    Target("alignmend-resta", ("floor", "import-torch"), 1.3),
    Target("alignmend-resta-density", ("floor", "import-torch"), 1.6),
    Target("alignmend-trim", ("floor", "import-torch"), 2.0),
    Target("alignmend-trim-sparse", ("floor", "import-torch"), 2.0),
    Target("alignmend-adapter", ("cp", "import-torch"), 1.5),
    Target("mergekit-linear", ("alignmend-resta",), 4.0, at_least=True),
    Target("mergekit-task-arithmetic", ("alignmend-resta",), 4.0, at_least=True),
    Target("mergekit-dare-linear", ("alignmend-resta-density",), 4.0, at_least=True),
    Target("mergekit-ties", ("alignmend-trim",), 4.0, at_least=True),
)
COLD_TARGETS = (
    Target("alignmend-resta", ("floor",), 1.15),
    Target("alignmend-trim", ("floor",), 2.2),
    Target("alignmend-hdr", ("floor",), 2.2),
)


def render(records: Records) -> str:
    """One size's results: the machine, costs, targets and accuracy."""
    parts = [
        _machine(records),
        _costs(records["runs"]),
        _targets(records),
        _accuracy(records["accuracy"]),
        _failures(records["runs"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def title(records: Records) -> str:
    """What tells this section from the others."""
    settings = records["settings"]
    place = "beyond the page cache" if settings["cold"] else "in the page cache"
    label = f" ({settings['label']})" if settings["label"] else ""
    return f"{settings['size']} per model, {place}{label}"


def write_section(path: Path, records: Records) -> None:
    """Replace this size's section between its markers in `path`, or append it."""
    replace_section(path, title(records), f"### {title(records)}\n\n{render(records)}")


def replace_section(path: Path, name: str, content: str) -> None:
    """Replaces what is between the markers of `name` in `path`, or appends it."""
    start, end = f"<!-- start: {name} -->", f"<!-- end: {name} -->"
    section = f"{start}\n{content}{end}"
    text = path.read_text() if path.exists() else "# Benchmark results\n"
    if start in text:
        before, _, rest = text.partition(start)
        text = before + section + rest.partition(end)[2]
    else:
        text = text.rstrip("\n") + f"\n\n{section}\n"
    path.write_text(text)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _machine(records: Records) -> str:
    machine, disk = records["machine"], records["disk"]
    words = ", ".join(f"{key} {value}" for key, value in machine.items())
    peers = ", ".join(f"{key} {value}" for key, value in records["mergekit"].items()) or "not available"
    speed = ", ".join(f"{key.replace('_', ' ')} {value / GIGA:.2f} GB/s" for key, value in disk.items())
    resident = [run["resident_before"] for run in records["runs"] if run["contender"] != "import-torch"]
    shown = f"{min(resident, default=1.0):.0%} to {max(resident, default=1.0):.0%}"
    return (
        f"Machine: {words}. mergekit's environment: {peers}. Disk probe: {speed}. "
        f"{records['settings']['rounds']} alternating rounds, coefficient {records['settings']['coefficient']}; "
        f"{shown} of the inputs lay in the page cache before a run."
    )


def _good(runs: Sequence[Records]) -> dict[str, list[Records]]:
    grouped: dict[str, list[Records]] = {}
    for run in runs:
        if run["exit_code"] == 0:
            grouped.setdefault(run["contender"], []).append(run)
    return grouped


def _median(runs: Sequence[Records], field: str) -> float:
    return float(median(run[field] for run in runs))


def _costs(runs: Sequence[Records]) -> str:
    grouped = _good(runs)
    walls = {name: _median(mine, "wall_seconds") for name, mine in grouped.items()}
    return _table(COST_HEADER, (_cost_row(name, mine, walls) for name, mine in grouped.items()))


def _cost_row(name: str, runs: Sequence[Records], walls: Mapping[str, float]) -> list[str]:
    seconds = [run["wall_seconds"] for run in runs]
    low, _, high = quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    floor = walls.get("floor")
    with_torch = floor + walls["import-torch"] if floor and "import-torch" in walls else None
    return [
        contender_title(name),
        f"{walls[name]:.2f} ({low:.2f}-{high:.2f})",
        f"{_median(runs, 'exit_seconds'):.2f}",
        f"{_median(runs, 'cpu_seconds'):.2f}",
        f"{max(run['peak_bytes'] for run in runs) / MEGA:.0f}",
        f"{walls[name] / floor:.2f}" if floor else "",
        f"{walls[name] / with_torch:.2f}" if with_torch else "",
        str(len(runs)),
    ]


def contender_title(name: str) -> str:
    plain = name.removesuffix("-hashed")
    return TITLES[plain] + (", hashed" if plain != name else "")


def _targets(records: Records) -> str:
    grouped = _good(records["runs"])
    walls = {name: _median(mine, "wall_seconds") for name, mine in grouped.items()}
    targets = COLD_TARGETS if records["settings"]["cold"] else WARM_TARGETS
    measured = [target for target in targets if {target.numerator, *target.denominators} <= walls.keys()]
    rows = [_target_row(target, walls) for target in measured]
    rows += _peak_row(grouped)
    rows += [_error_row(row) for row in records["accuracy"] if row["contender"].startswith("alignmend")]
    return _table(("target", "measured", "limit", "verdict"), rows) if rows else ""


def _peak_row(grouped: Mapping[str, Sequence[Records]]) -> list[list[str]]:
    ours = [run for name, runs in grouped.items() if name.startswith("alignmend") for run in runs]
    if not ours:
        return []
    run = max(ours, key=lambda found: found["peak_bytes"])
    peak = run["peak_bytes"]
    words = f"largest peak RSS of alignmend ({run['contender']})"
    return [[words, f"{peak / MEGA:.0f} MB", f"< {PEAK_LIMIT / MEGA:.0f} MB", _verdict(peak < PEAK_LIMIT)]]


def _error_row(accuracy: Records) -> list[str]:
    error = accuracy["largest_error"]
    return [
        f"largest error of {accuracy['contender']}",
        f"{error:.3f} spacings",
        "<= 1",
        _verdict(error <= 1),
    ]


def _target_row(target: Target, walls: Mapping[str, float]) -> list[str]:
    ratio = walls[target.numerator] / sum(walls[name] for name in target.denominators)
    sign = ">=" if target.at_least else "<="
    return [target.words(), f"{ratio:.2f}", f"{sign} {target.limit:g}", _verdict(target.is_met(ratio))]


def _verdict(met: bool) -> str:
    return "met" if met else "**missed**"


def _accuracy(accuracies: Sequence[Records]) -> str:
    header = ("output against float64", "largest error, bf16 spacings", "correctly rounded", "elements")
    rows = [
        [
            contender_title(row["contender"]),
            f"{row['largest_error']:.3f}",
            f"{row['correctly_rounded']:.4%}",
            f"{row['elements']:,}",
        ]
        for row in accuracies
    ]
    return _table(header, rows) if rows else ""


def _failures(runs: Sequence[Records]) -> str:
    return "\n".join(_failure(run) for run in runs if run["exit_code"])


def _failure(run: Records) -> str:
    last = (run["error"].splitlines() or ["no message"])[-1]
    return f"- {run['contender']} failed (exit code {run['exit_code']}): `{last}`"
