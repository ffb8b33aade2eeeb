"""`evaluate`: one model, some suites, one or more judges; records and rates in a folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alignmend.api.judges import Names, TagPairs, make_judges, names_of, tags_of
from alignmend.api.progress import Progress, reporting
from alignmend.api.shown import Shown
from alignmend.errors import ParameterError, RecipeError

if TYPE_CHECKING:
    from alignmend.evaluation.generation import Backend
    from alignmend.evaluation.run import Evaluation, Extra
    from alignmend.evaluation.suites import Suite
    from alignmend.evaluation.thinking import Thinking


@dataclass(frozen=True, repr=False)
class EvaluationResult(Shown):
    """An evaluation that was written to `out`; `document` is its `results.json`."""

    out: Path
    document: Mapping[str, Any]
    evaluation: Evaluation
    suites: tuple[Suite, ...]

    @property
    def metrics(self) -> Mapping[str, Mapping[str, Any]]:
        """Suite -> metric -> `value`, `low`, `high`, `n`."""
        found: Mapping[str, Mapping[str, Any]] = self.document["models"][self.evaluation.model]
        return found

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What to know about the answers and the suites."""
        of_suites = [
            f"{suite.name}: {note}"
            for suite in self.suites
            for note in (suite.origin.notes if suite.origin and not suite.transform else ())
        ]
        return (*self.document["provenance"]["notes"], *of_suites)

    def _facts(self) -> Iterable[str]:
        yield self.evaluation.model
        yield f"{len(self.evaluation.generations):,} answers to {', '.join(suite.name for suite in self.suites)}"
        yield f"judge {self.document['judge']['name']}"
        yield str(self.out)

    def _parts(self) -> Iterable[Any]:
        yield from (f"note: {note}" for note in self.notes)
        yield from self.lines()

    def lines(self) -> Iterable[Any]:
        """The table of rates, and lines for what it has no column for."""
        from alignmend.report.run_table import agreement_lines, other_lines, overlap_lines, run_table

        document = self.document
        yield run_table(document)
        yield from (*other_lines(document), *agreement_lines(document), *overlap_lines(document))


@dataclass(frozen=True)
class _Asked:
    """What was asked for."""

    model: str
    out: Path
    suites: list[str]
    name: str | None
    data_dir: Path | None
    split: str | None
    limit: int | None
    seed: int
    transforms: list[str]
    tuned_on: list[str]
    preset: str
    template: str | None
    system: str | None
    max_new_tokens: int | None
    thinking: Thinking
    temperature: float | None
    batch_size: int | None
    device: str | None
    dtype: str
    vector: Path | None
    coefficient: float | None
    steering: bool
    endpoint: str | None
    key_variable: str
    concurrency: int
    left_out: list[str]
    vllm: bool
    reference: str | None
    lm_eval: list[str]
    lm_eval_folder: Path | None


def evaluate(
    model: str | Path,
    *,
    suites: Names,
    out: str | Path,
    judge: Names = "refusal-phrases",
    judge_model: str | Mapping[str, str] | None = None,
    judge_endpoint: str | None = None,
    judge_key_variable: str = "OPENAI_API_KEY",
    judge_reasoning_tags: TagPairs = (),
    judge_cache: str | Path | None = None,
    name: str | None = None,
    data_dir: str | Path | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    transforms: Names = (),
    tuned_on: Names = (),
    preset: str = "default",
    template: str | None = None,
    system: str | None = None,
    max_new_tokens: int | None = None,
    thinking: bool | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    max_thinking_tokens: int | None = None,
    reasoning_tags: TagPairs = (),
    temperature: float | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    dtype: str = "auto",
    vector: str | Path | None = None,
    coefficient: float | None = None,
    steering: bool = True,
    run_code: bool = False,
    unsafe_local_code: bool = False,
    endpoint: str | None = None,
    key_variable: str = "OPENAI_API_KEY",
    concurrency: int = 8,
    left_out: Sequence[Literal["seed", "temperature"]] = (),
    vllm: bool = False,
    reference: str | Path | None = None,
    lm_eval: Names = (),
    lm_eval_folder: str | Path | None = None,
    progress: Progress = None,
) -> EvaluationResult:
    """Ask `model` (a folder or hub id) the prompts of `suites`, judge its answers, write all to the folder `out`.

    Keywords are the options of `alignmend evaluate`. Answers that an interrupted run left in `out` are kept. Several
    judges may be named; the first one's verdicts count.
    """
    from alignmend.evaluation.results import read_results
    from alignmend.evaluation.run import evaluate_folder
    from alignmend.evaluation.thinking import Thinking

    asked = _Asked(
        model=str(model),
        out=Path(out),
        suites=names_of(suites),
        name=name,
        data_dir=_path(data_dir),
        split=split,
        limit=limit,
        seed=seed,
        transforms=names_of(transforms),
        tuned_on=names_of(tuned_on),
        preset=preset,
        template=template,
        system=system,
        max_new_tokens=max_new_tokens,
        thinking=Thinking(thinking, dict(chat_template_kwargs or {}), max_thinking_tokens, tags_of(reasoning_tags)),
        temperature=temperature,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        vector=_path(vector),
        coefficient=coefficient,
        steering=steering,
        endpoint=endpoint,
        key_variable=key_variable,
        concurrency=concurrency,
        left_out=list(left_out),
        vllm=vllm,
        reference=None if reference is None else str(reference),
        lm_eval=names_of(lm_eval),
        lm_eval_folder=_path(lm_eval_folder),
    )
    judges = make_judges(
        judge,
        model=judge_model,
        endpoint=judge_endpoint,
        key_variable=judge_key_variable,
        reasoning_tags=judge_reasoning_tags,
        cache=judge_cache or asked.out / "judge-cache",
        device=device,
    )
    loaded = _suites(asked, asked.suites, asked.transforms)
    used = _suites(asked, asked.tuned_on, [])
    backend = _backend(asked)
    with reporting(progress) as report:
        evaluation = evaluate_folder(
            backend,
            loaded,
            judges,
            asked.out,
            used=used,
            run_code=run_code,
            unsafe_local_code=unsafe_local_code,
            extra=lambda: _extra(asked, backend, loaded),
            progress=lambda done, total: report("answer", done, total),
            provenance={"model": asked.model, "notes": list(getattr(backend, "notes", ()))},
        )
    return EvaluationResult(asked.out, read_results(asked.out / "results.json"), evaluation, tuple(loaded))


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


def _suites(asked: _Asked, sources: list[str], transforms: list[str]) -> list[Suite]:
    """Every suite, and where transforms are asked for, also every one of those around each of its requests."""
    from alignmend.evaluation.suites import load_suite
    from alignmend.evaluation.transforms import transform_suite

    plain = [
        load_suite(source, data_dir=asked.data_dir, split=asked.split, limit=asked.limit, seed=asked.seed)
        for source in sources
    ]
    changed = [transform_suite(suite, name) for suite in plain if suite.kind != "task" for name in transforms]
    return [*plain, *changed]


def _backend(asked: _Asked) -> Backend:
    if asked.endpoint is not None:
        return _endpoint(asked, asked.endpoint)
    for name in asked.left_out:
        raise ParameterError(f"--no-{name} is for --endpoint: a model in this process is sent nothing")
    options: dict[str, Any] = {
        "name": asked.name,
        "template": asked.template,
        "system": asked.system,
        "preset": asked.preset,
        "batch_size": asked.batch_size,
        "max_new_tokens": asked.max_new_tokens,
        "sampling": _sampling(asked),
        "thinking": asked.thinking,
        **_steering(asked),
    }
    if asked.vllm:
        from alignmend.evaluation.vllm_backend import VllmBackend

        if "steering" in options:
            raise ParameterError(
                "--vllm cannot apply a steering vector",
                advice=(
                    "bake it into the checkpoint, leave --vllm out, or measure the weights alone with --no-steering"
                ),
            )
        for name in ("batch_size", "device"):
            if getattr(asked, name) is not None:
                raise ParameterError(f"--{name.replace('_', '-')} is not for --vllm, which chooses it by itself")
        del options["batch_size"]
        return VllmBackend.from_folder(asked.model, dtype=asked.dtype, **options)
    from alignmend.evaluation.generation import TransformersBackend

    return TransformersBackend.from_folder(asked.model, device=asked.device, dtype=asked.dtype, **options)


def _endpoint(asked: _Asked, url: str) -> Backend:
    from alignmend.evaluation.endpoint import Endpoint
    from alignmend.evaluation.endpoint_backend import EndpointBackend

    for name in ("vector", "template", "batch_size"):
        if getattr(asked, name) is not None:
            raise ParameterError(f"--{name.replace('_', '-')} is for a model in this process, not for --endpoint")
    if "temperature" in asked.left_out and asked.temperature is not None:
        raise ParameterError("--temperature and --no-temperature contradict each other;", advice="give one of them")
    endpoint = Endpoint(
        url,
        asked.model or None,
        key_variable=asked.key_variable,
        concurrency=asked.concurrency,
        left_out=frozenset(asked.left_out),
    )
    return EndpointBackend(
        endpoint,
        name=asked.name,
        system=asked.system,
        preset=asked.preset,
        max_new_tokens=asked.max_new_tokens,
        sampling=_sampling(asked),
        thinking=asked.thinking,
    )


def _sampling(asked: _Asked) -> Any:
    """`None` where nothing was asked for: the preset decides."""
    if asked.temperature is None:
        return None
    from alignmend.evaluation.templates import get_preset

    preset = get_preset(asked.preset).sampling_for(None)
    return replace(preset, temperature=asked.temperature, seed=asked.seed)


def _steering(asked: _Asked) -> dict[str, Any]:
    """The vector that was given, else the one that belongs to the model."""
    from alignmend.activations.attached import attached, describe
    from alignmend.activations.steering import Steering
    from alignmend.activations.vector import SteeringVector

    if asked.vector is None:
        if asked.coefficient is not None:
            raise ParameterError("--coefficient is the strength of a steering vector", advice="give --vector as well")
        found = attached(asked.model) if asked.steering else None
    elif asked.coefficient is None:
        raise ParameterError("--vector needs --coefficient: how strongly the vector is applied, such as 0.1")
    else:
        found = SteeringVector.load(asked.vector), Steering(asked.coefficient)
    if found is None:
        return {}
    vector, how = found
    return {
        "steering": lambda model: vector.steer(model, how),
        "steering_description": describe(vector, how),
    }


def _extra(asked: _Asked, backend: Backend, suites: list[Suite]) -> Extra:
    """What is measured beside answers: drift from a reference model, tasks of lm-evaluation-harness."""
    from alignmend.evaluation.generation import TransformersBackend

    if asked.reference is None and not asked.lm_eval:
        return {}
    if not isinstance(backend, TransformersBackend):
        raise RecipeError("--reference and --lm-eval need the model in this process, not an endpoint")
    found: dict[str, Any] = {}
    if asked.reference is not None:
        found["drift"] = _drift(asked, asked.reference, backend, suites)
    if asked.lm_eval:
        found |= _harness(asked, backend)
    return found


def _drift(asked: _Asked, reference: str, backend: Any, suites: list[Suite]) -> Any:
    from alignmend.evaluation.devices import load_model
    from alignmend.evaluation.utility.drift import drift

    prompts = [prompt.text for suite in suites for prompt in suite.prompts if prompt.expected == "comply"]
    if len(prompts) < 2:
        raise RecipeError(
            "--reference measures drift on prompts that expect an answer", advice="give a benign or borderline suite"
        )
    other, _ = load_model(reference, asked.device)
    found = drift(
        backend.model,
        other,
        backend.tokenizer,
        prompts,
        template=backend.template,
        steering=lambda model: backend.steered(),
    )
    return found.estimates


def _harness(asked: _Asked, backend: Any) -> Any:
    from alignmend.evaluation.utility.lm_eval import run_lm_eval

    found = run_lm_eval(
        backend.model,
        backend.tokenizer,
        asked.lm_eval,
        task_folder=asked.lm_eval_folder,
        limit=asked.limit,
        steering=lambda model: backend.steered(),
    )
    return {f"lm-eval {task}": metrics for task, metrics in found.metrics.items()}
