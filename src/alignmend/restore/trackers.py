"""A finished restore told to a tracker: one run, a step for each candidate, the card and the rates as artefacts.

Numbers, parameters of candidates, versions, and the two files of the output that may be published anyhow are all that
is sent: no prompts, no answers, no weights, no paths. Every client is the tracker's own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from alignmend.errors import OutputError, missing_extra

Name = Literal["trackio", "wandb", "mlflow", "tensorboard"]
TRACKERS: tuple[Name, ...] = get_args(Name)
_ARTEFACTS = ("README.md", "results.json")
Numbers = Mapping[str, float]


@dataclass(frozen=True)
class Log:
    """All that a tracker is told."""

    config: Mapping[str, str | float | int]
    steps: Sequence[tuple[int, Numbers]]
    final: Numbers
    artefacts: Sequence[Path]


class Tracker(Protocol):
    """A client; `folder` is where one that keeps files puts them."""

    def __call__(self, log: Log, project: str, folder: Path) -> None:
        """Send all of it."""


def check_tracker(name: Name) -> None:
    """`MissingExtraError` where its client is not installed: before any work."""
    if find_spec(name) is None:
        raise missing_extra(name, name)


def log_of(results: Mapping[str, Any], out: Path) -> Log:
    """What is told of a restore, from its `results.json` and the folder that may be published."""
    search = results.get("search") or {}
    limits = {f"limit_{name}": value for name, value in (search.get("limits") or {}).items() if _is_number(value)}
    versions = {f"version_{name}": str(value) for name, value in _versions().items()}
    chosen = search.get("chosen")
    config = {**limits, **versions, **({} if chosen is None else {"chosen": int(chosen)})}
    steps = [(int(row["number"]), dict(_of_candidate(row))) for row in search.get("candidates", ())]
    final = {
        f"{model}/{suite}/{metric}": float(rate["value"])
        for model, suites in results.get("models", {}).items()
        for suite, metrics in suites.items()
        for metric, rate in metrics.items()
    }
    known = {suite: number for number, suite in enumerate(dict.fromkeys(_suites(results)), 1)}
    final = {_without_paths(name, known): value for name, value in final.items()}
    return Log(config, sorted(steps), final, [out / name for name in _ARTEFACTS if (out / name).is_file()])


def _suites(results: Mapping[str, Any]) -> Iterator[str]:
    return (suite for suites in results.get("models", {}).values() for suite in suites)


def _without_paths(name: str, known: Mapping[str, int]) -> str:
    """A suite that is a file of the user's is told by its number."""
    model, _, rest = name.partition("/")
    suite, _, metric = rest.rpartition("/")
    return f"{model}/{f'suite-{known[suite]}' if '/' in suite or os.sep in suite else suite}/{metric}"


def _of_candidate(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in row.get("parameters", {}).items():
        if _is_number(value):
            yield f"parameter/{row['family']}/{name}", float(value)
    for source in ("predicted", "worth"):
        for name, value in (row.get(source) or {}).items():
            number: Any = value.get("value") if isinstance(value, Mapping) else value
            if _is_number(number):
                yield f"{source}/{name}", float(number)
    for name in ("within_limits", "on_front"):
        yield name, float(bool(row.get(name)))
    yield "seconds", float(row.get("seconds", 0.0))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _versions() -> Mapping[str, str]:
    from alignmend.restore.machine import library_versions

    return library_versions()


def log_restore(name: Name, results: Mapping[str, Any], out: Path, *, project: str, folder: Path) -> None:
    """Tell the tracker `name`; `OutputError` where it does not take it, which takes nothing from the restore."""
    check_tracker(name)
    try:
        _TRACKERS[name](log_of(results, out), project, folder)
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise OutputError(
            f"the restore is finished and stands in {out}, but {name} did not take its log ({said}): see that it can "
            "be reached, and run the same command with --resume"
        ) from error


def _trackio(log: Log, project: str, folder: Path) -> None:
    import trackio

    trackio.init(project=project, config=dict(log.config), embed=False, auto_log_gpu=False, auto_log_cpu=False)
    for step, numbers in log.steps:
        trackio.log(dict(numbers), step=step)
    trackio.log(dict(log.final))
    for path in log.artefacts:
        trackio.log_artifact(str(path), name=path.stem.lower(), type="report")
    trackio.finish()


def _wandb(log: Log, project: str, folder: Path) -> None:
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    quiet = wandb.Settings(
        console="off", disable_git=True, disable_code=True, save_code=False, x_disable_stats=True, x_disable_meta=True,
        x_disable_machine_info=True, silent=True,
    )  # fmt: skip
    run = wandb.init(project=project, config=dict(log.config), dir=str(folder), settings=quiet)
    for step, numbers in log.steps:
        run.log(dict(numbers), step=step)
    run.summary.update(dict(log.final))
    files = wandb.Artifact("restore", type="report")
    for path in log.artefacts:
        files.add_file(str(path))
    run.log_artifact(files)
    run.finish()


def _mlflow(log: Log, project: str, folder: Path) -> None:
    import mlflow

    mlflow.set_experiment(project)
    with mlflow.start_run():
        mlflow.log_params({name.replace("/", "."): value for name, value in log.config.items()})
        for step, numbers in log.steps:
            mlflow.log_metrics(dict(numbers), step=step)
        mlflow.log_metrics(dict(log.final))
        for path in log.artefacts:
            mlflow.log_artifact(str(path))


def _tensorboard(log: Log, project: str, folder: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / "tensorboard" / project)) as writer:
        add: Callable[..., None] = writer.add_scalar
        text: Callable[..., None] = writer.add_text
        for step, numbers in log.steps:
            for name, value in numbers.items():
                add(name, value, step)
        for name, value in log.final.items():
            add(name, value, 0)
        text("config", "\n".join(f"    {name}: {value}" for name, value in log.config.items()))
        for path in log.artefacts:
            written = path.read_text(encoding="utf-8")
            text(path.name, written if path.suffix == ".md" else f"    {written.replace(chr(10), chr(10) + '    ')}")


_TRACKERS: Mapping[Name, Tracker] = {
    "trackio": _trackio,
    "wandb": _wandb,
    "mlflow": _mlflow,
    "tensorboard": _tensorboard,
}
