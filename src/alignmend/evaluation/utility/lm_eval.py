"""Tasks of lm-evaluation-harness (Gao et al., github.com/EleutherAI/lm-evaluation-harness), run as a library.

The harness reads its tasks' data from the hub, or, for tasks of one's own, from wherever their YAML files say; it asks
and scores by its own rules, which make its numbers comparable with other people's. Needs the extra `lm-eval`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignmend.errors import ParameterError, RecipeError, missing_extra
from alignmend.evaluation.devices import automatic_batch_size
from alignmend.evaluation.generation import Steer
from alignmend.evaluation.metrics import Z_95, wilson
from alignmend.evaluation.utility.estimates import Estimate
from alignmend.execution.threads import few_threads
from alignmend.nearest import nearest

_SHARES = frozenset({"acc", "acc_norm", "acc_bytes", "exact_match"})
"""Metrics that are 0 or 1 for each sample; others have the harness's standard error."""
_BOOTSTRAP_DRAWS = 1000
_SEED = 1234


@dataclass(frozen=True)
class HarnessResults:
    """`metrics`: task or group -> metric -> value with its 95 % interval and the number of samples.

    A metric is called as the harness calls it, with the filter behind a comma where there is one (`exact_match,
    strict-match`). `without_interval` holds what the harness gives no standard error for. `settings` are its version,
    the tasks' versions, the number of examples shown, the limit, and whether the chat template was used.
    """

    metrics: Mapping[str, Mapping[str, Estimate]]
    without_interval: Mapping[str, Mapping[str, float]]
    settings: Mapping[str, Any]


def run_lm_eval(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[str],
    *,
    task_folder: Path | None = None,
    limit: int | None = None,
    examples: int | None = None,
    chat_template: bool = False,
    batch_size: int | None = None,
    steering: Steer | None = None,
    unsafe_local_code: bool = False,
) -> HarnessResults:
    """Runs `tasks` (names of tasks or groups) on a `transformers` causal model.

    `task_folder` holds YAML files of further tasks, `limit` asks the first so many samples of each task, `examples` is
    the number of solved examples shown (the task's own by default); `steering`, given the model, makes a context around
    all of it. `unsafe_local_code` lets tasks run the code that the model writes, without any sandbox. Raises
    `MissingExtraError` without the harness, `RecipeError` for unknown tasks.
    """
    if limit is not None and limit < 1:
        raise ParameterError(f"limit must be at least 1, not {limit}")
    manager = _manager(tasks, task_folder)
    harness_model = _harness_model(model, tokenizer, batch_size)
    with few_threads(model), nullcontext() if steering is None else steering(model):
        raw = _evaluated(
            harness_model,
            _loaded(manager, tasks, examples),
            limit=limit,
            apply_chat_template=chat_template,
            confirm_run_unsafe_code=unsafe_local_code,
        )
    return _results(raw, limit=limit, chat_template=chat_template)


def _manager(tasks: Sequence[str], folder: Path | None) -> Any:
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise missing_extra("lm-eval", "lm-eval") from error
    if folder is not None and not folder.is_dir():
        raise RecipeError(f"{folder}: not a folder; tasks of one's own are YAML files in a folder")
    if not tasks:
        raise RecipeError("no task was named for lm-evaluation-harness")
    if folder is not None:
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        if set(tasks) <= set(manager.all_tasks):
            return manager  # without its own thousands of tasks, which take seconds to list
    manager = TaskManager(include_path=None if folder is None else str(folder))
    known = list(manager.all_tasks)
    for task in tasks:
        if task not in known:
            raise RecipeError(f"lm-evaluation-harness has no task {task!r}{nearest(task, known)}")
    return manager


def _harness_model(model: Any, tokenizer: Any, batch_size: int | None) -> Any:
    from lm_eval.models.huggingface import HFLM

    size = batch_size or (automatic_batch_size(model) if model.device.type == "cpu" else "auto")
    device = str(model.device)
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=size, device=device, trust_remote_code=False)


def _loaded(manager: Any, tasks: Sequence[str], examples: int | None) -> Any:
    """The tasks with the examples they show; a task that fixes them to none is left as it is."""
    try:
        loaded = manager.load(list(tasks))
    except (OSError, ValueError, KeyError) as error:
        raise RecipeError(f"lm-evaluation-harness cannot load {', '.join(tasks)}: {error}") from error
    for task in loaded["tasks"].values():
        own = task.get_config("num_fewshot")
        if own is None or (examples is not None and own != 0):
            task.set_config(key="num_fewshot", value=examples or 0)
        task.set_fewshot_seed(seed=_SEED)
    return loaded


def _evaluated(harness_model: Any, loaded: Any, **options: Any) -> Mapping[str, Any]:
    import lm_eval

    try:
        raw: Mapping[str, Any] = lm_eval.evaluate(
            lm=harness_model, task_dict=loaded, bootstrap_iters=_BOOTSTRAP_DRAWS, log_samples=False, **options
        )
    except ValueError as error:
        raise RecipeError(f"lm-evaluation-harness refused: {error}") from error
    return raw


def _results(raw: Mapping[str, Any], **settings: Any) -> HarnessResults:
    from importlib.metadata import version

    metrics: dict[str, dict[str, Estimate]] = {}
    without: dict[str, dict[str, float]] = {}
    for task, row in raw["results"].items():
        n = int(row.get("sample_len") or raw["n-samples"].get(task, {}).get("effective", 0))
        for key, value in row.items():
            metric, _, applied = key.partition(",")
            if not applied or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            name = metric if applied == "none" else key
            found = _estimate(metric, float(value), row.get(f"{metric}_stderr,{applied}"), n)
            if found is None:
                without.setdefault(task, {})[name] = float(value)
            else:
                metrics.setdefault(task, {})[name] = found
    about = {"lm_eval": version("lm-eval"), "versions": dict(raw["versions"]), "examples": dict(raw["n-shot"])}
    return HarnessResults(metrics, without, about | settings)


def _estimate(metric: str, value: float, error: object, n: int) -> Estimate | None:
    """Wilson's interval for a share, whose standard error is 0 at both ends; else value ± 1.96 standard errors."""
    right = round(value * n)
    if metric in _SHARES and n and abs(right - value * n) < 1e-6 * n:
        rate = wilson(right, n)
        return Estimate(value, rate.low, rate.high, n)
    if not isinstance(error, int | float) or math.isnan(error) or not n:
        return None
    return Estimate(value, value - Z_95 * error, value + Z_95 * error, n)
