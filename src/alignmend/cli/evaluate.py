"""`alignmend evaluate`: one model, some suites, one or more judges; records and metrics into a folder."""

from __future__ import annotations

import argparse
import json
import shlex

from alignmend.cli.evaluate_options import add_evaluate_options
from alignmend.cli.judge_options import judge_keywords
from alignmend.cli.options import Subparsers, add_json, command
from alignmend.cli.plain import plain_console
from alignmend.cli.progress import progress
from alignmend.cli.thinking_options import thinking_keywords


def add_to(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = command(
        subparsers,
        "evaluate",
        _run,
        summary="Ask a model the prompts of some suites and judge its answers",
        detail="Writes generations.jsonl (as answers come), judgements.jsonl and results.json. The same command goes "
        "on where an earlier one was interrupted.",
        interrupted="; what was answered is kept, run the same command to go on",
    )
    add_evaluate_options(parser)
    add_json(parser)


_SAME = (
    "suites", "out", "name", "data_dir", "split", "limit", "seed", "transforms", "tuned_on", "preset", "template",
    "system", "max_new_tokens", "temperature", "batch_size", "device", "dtype", "vector", "coefficient", "steering",
    "run_code", "unsafe_local_code", "endpoint", "key_variable", "concurrency", "left_out", "vllm", "reference",
    "lm_eval_folder",
)  # fmt: skip
"""Options that are keywords of `alignmend.evaluate` under the same name."""


def _run(arguments: argparse.Namespace) -> int:
    from alignmend.api.evaluating import evaluate

    judged = {name if name == "judge" else f"judge_{name}": value for name, value in judge_keywords(arguments).items()}
    options = {name: getattr(arguments, name) for name in _SAME} | judged | thinking_keywords(arguments)
    tasks = arguments.lm_eval.split(",") if arguments.lm_eval else ()
    with progress() as report:
        found = evaluate(arguments.model, **options, lm_eval=tasks, progress=report)
    if arguments.json:
        print(json.dumps(found.document))
        return 0
    for note in found.notes:
        print(f"note: {note}")
    table, *lines = found.lines()
    plain_console().print(table)
    for line in lines:
        print(line)
    count = len(found.evaluation.generations)
    command = f"alignmend report {shlex.quote(str(arguments.out))} --out report.html"
    print(f"\n{count:,} answers in {arguments.out}; {command}")
    return 0
