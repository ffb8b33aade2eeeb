"""`alignmend evaluate`: one model, some suites, one or more judges; records and metrics into a folder."""

from __future__ import annotations

import argparse
import json
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from alignmend.cli.evaluate_options import add_evaluate_options
from alignmend.cli.judge_options import make_judges
from alignmend.cli.options import Subparsers, add_json, command
from alignmend.cli.plain import plain_console
from alignmend.cli.progress import progress
from alignmend.cli.thinking_options import thinking_of
from alignmend.errors import ParameterError, RecipeError

if TYPE_CHECKING:
    from alignmend.evaluation.generation import Backend
    from alignmend.evaluation.run import Extra
    from alignmend.evaluation.suites import Suite


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


def _run(arguments: argparse.Namespace) -> int:
    from alignmend.evaluation.run import evaluate_folder

    judges = make_judges(arguments, default_cache=arguments.out / "judge-cache", device=arguments.device)
    suites = _suites(arguments, arguments.suites, arguments.transforms)
    used = _suites(arguments, arguments.tuned_on, [])
    backend = _backend(arguments)
    with progress() as report:
        evaluation = evaluate_folder(
            backend,
            suites,
            judges,
            arguments.out,
            used=used,
            run_code=arguments.run_code,
            unsafe_local_code=arguments.unsafe_local_code,
            extra=lambda: _extra(arguments, backend, suites),
            progress=lambda done, total: report("answer", done, total),
            provenance={"model": arguments.model, "notes": list(getattr(backend, "notes", ()))},
        )
    document = json.loads((arguments.out / "results.json").read_bytes())
    if arguments.json:
        print(json.dumps(document))
        return 0
    for note in document["provenance"]["notes"]:
        print(f"note: {note}")
    for suite in suites:
        for note in suite.origin.notes if suite.origin and not suite.transform else ():
            print(f"note: {suite.name}: {note}")
    _show(document)
    count = len(evaluation.generations)
    command = f"alignmend report {shlex.quote(str(arguments.out))} --out report.html"
    print(f"\n{count:,} answers in {arguments.out}; {command}")
    return 0


def _show(document: dict[str, Any]) -> None:
    from alignmend.report.run_table import agreement_lines, other_lines, overlap_lines, run_table

    plain_console().print(run_table(document))
    for line in [*other_lines(document), *agreement_lines(document), *overlap_lines(document)]:
        print(line)


def _suites(arguments: argparse.Namespace, sources: list[str], transforms: list[str]) -> list[Suite]:
    """Every suite, and where transforms are asked for, also every one of those around each of its requests."""
    from alignmend.evaluation.suites import load_suite
    from alignmend.evaluation.transforms import transform_suite

    plain = [
        load_suite(
            source, data_dir=arguments.data_dir, split=arguments.split, limit=arguments.limit, seed=arguments.seed
        )
        for source in sources
    ]
    changed = [transform_suite(suite, name) for suite in plain if suite.kind != "task" for name in transforms]
    return [*plain, *changed]


def _backend(arguments: argparse.Namespace) -> Backend:
    if arguments.endpoint is not None:
        return _endpoint(arguments)
    options: dict[str, Any] = {
        "name": arguments.name,
        "template": arguments.template,
        "system": arguments.system,
        "preset": arguments.preset,
        "batch_size": arguments.batch_size,
        "max_new_tokens": arguments.max_new_tokens,
        "sampling": _sampling(arguments),
        "thinking": thinking_of(arguments),
        **_steering(arguments),
    }
    if arguments.vllm:
        from alignmend.evaluation.vllm_backend import VllmBackend

        if "steering" in options:
            raise ParameterError(
                "--vllm cannot apply a steering vector: bake it into the checkpoint, leave --vllm out, or measure the "
                "weights alone with --no-steering"
            )
        for name in ("batch_size", "device"):
            if getattr(arguments, name) is not None:
                raise ParameterError(f"--{name.replace('_', '-')} is not for --vllm, which chooses it by itself")
        del options["batch_size"]
        return VllmBackend.from_folder(arguments.model, dtype=arguments.dtype, **options)
    from alignmend.evaluation.generation import TransformersBackend

    return TransformersBackend.from_folder(arguments.model, device=arguments.device, dtype=arguments.dtype, **options)


def _endpoint(arguments: argparse.Namespace) -> Backend:
    from alignmend.evaluation.endpoint import Endpoint
    from alignmend.evaluation.endpoint_backend import EndpointBackend

    for name in ("vector", "template", "batch_size"):
        if getattr(arguments, name) is not None:
            raise ParameterError(f"--{name.replace('_', '-')} is for a model in this process, not for --endpoint")
    endpoint = Endpoint(
        arguments.endpoint,
        arguments.model or None,
        key_variable=arguments.key_variable,
        concurrency=arguments.concurrency,
    )
    return EndpointBackend(
        endpoint,
        name=arguments.name,
        system=arguments.system,
        preset=arguments.preset,
        max_new_tokens=arguments.max_new_tokens,
        sampling=_sampling(arguments),
        thinking=thinking_of(arguments),
    )


def _sampling(arguments: argparse.Namespace) -> Any:
    """`None` where nothing was asked for: the preset decides."""
    if arguments.temperature is None:
        return None
    from alignmend.evaluation.templates import get_preset

    preset = get_preset(arguments.preset).sampling_for(None)
    return replace(preset, temperature=arguments.temperature, seed=arguments.seed)


def _steering(arguments: argparse.Namespace) -> dict[str, Any]:
    """The vector that was given, else the one that belongs to the model."""
    from alignmend.activations.attached import attached, describe
    from alignmend.activations.steering import Steering
    from alignmend.activations.vector import SteeringVector

    if arguments.vector is None:
        if arguments.coefficient is not None:
            raise ParameterError("--coefficient is the strength of a steering vector: give --vector as well")
        found = attached(arguments.model) if arguments.steering else None
    elif arguments.coefficient is None:
        raise ParameterError("--vector needs --coefficient: how strongly the vector is applied, such as 0.1")
    else:
        found = SteeringVector.load(arguments.vector), Steering(arguments.coefficient)
    if found is None:
        return {}
    vector, how = found
    return {
        "steering": lambda model: vector.steer(model, how),
        "steering_description": describe(vector, how),
    }


def _extra(arguments: argparse.Namespace, backend: Backend, suites: list[Suite]) -> Extra:
    """What is measured beside answers: drift from a reference model, tasks of lm-evaluation-harness."""
    from alignmend.evaluation.generation import TransformersBackend

    if arguments.reference is None and not arguments.lm_eval:
        return {}
    if not isinstance(backend, TransformersBackend):
        raise RecipeError("--reference and --lm-eval need the model in this process, not an endpoint")
    found: dict[str, Any] = {}
    if arguments.reference is not None:
        found["drift"] = _drift(arguments, backend, suites)
    if arguments.lm_eval:
        found |= _harness(arguments, backend)
    return found


def _drift(arguments: argparse.Namespace, backend: Any, suites: list[Suite]) -> Any:
    from alignmend.evaluation.devices import load_model
    from alignmend.evaluation.utility.drift import drift

    prompts = [prompt.text for suite in suites for prompt in suite.prompts if prompt.expected == "comply"]
    if len(prompts) < 2:
        raise RecipeError(
            "--reference measures drift on prompts that expect an answer: give a benign or borderline suite"
        )
    reference, _ = load_model(arguments.reference, arguments.device)
    found = drift(
        backend.model,
        reference,
        backend.tokenizer,
        prompts,
        template=backend.template,
        steering=lambda model: backend.steered(),
    )
    return found.estimates


def _harness(arguments: argparse.Namespace, backend: Any) -> Any:
    from alignmend.evaluation.utility.lm_eval import run_lm_eval

    found = run_lm_eval(
        backend.model,
        backend.tokenizer,
        arguments.lm_eval.split(","),
        task_folder=arguments.lm_eval_folder,
        limit=arguments.limit,
        steering=lambda model: backend.steered(),
    )
    return {f"lm-eval {task}": metrics for task, metrics in found.metrics.items()}
