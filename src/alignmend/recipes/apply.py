"""Recipe in, checkpoint out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignmend.errors import ParameterError
from alignmend.execution.description import Description
from alignmend.execution.plan import Plan, explain
from alignmend.io.manifest import Input
from alignmend.recipes.areas import with_area
from alignmend.recipes.build import Built, build, located, sweep
from alignmend.recipes.relations import Relations, readings, relations
from alignmend.recipes.schema import ModelReference, Recipe
from alignmend.recipes.second_stage import SecondStage, second_stage

if TYPE_CHECKING:
    from alignmend.execution.save import Saved


@dataclass(frozen=True)
class Origin:
    """What a manifest tells of a recipe whose parts were made for it: the models that it named, the files that they
    came from, and notes.
    """

    models: Mapping[str, ModelReference | list[ModelReference]]
    data: Mapping[str, Input]
    notes: tuple[str, ...] = ()
    home: Path | None = None
    """Where the output will stand in the end, if it is written somewhere else first."""
    kept: Mapping[str, str] = field(default_factory=dict)
    """Files that the recipe names, by where they will lie in the end."""


@dataclass(frozen=True)
class Switches:
    """How a recipe is applied, beyond what it says itself."""

    threads: int | None = None
    resume: bool = False
    overwrite: bool = False
    hash: bool = True
    hash_inputs: bool = False
    allow_nonfinite: bool = False
    as_adapter: bool = False
    adapter_rank: int | None = None
    """The largest rank of that adapter; None keeps it exact."""
    allow_unrelated: bool = False
    """Whether models that do not belong together are a warning only."""
    may_fit: bool = False
    """Whether a model may be loaded to fit the steering vector of a second stage."""
    origin: Origin | None = None
    """Of a recipe whose parts were made for it."""
    within: Path | None = None
    """A folder that holds the output among others; nothing unfinished lies in it."""
    diagnose: bool = False
    """Whether task delta and safety vector are measured on every weight, in a pass of its own."""


def apply_recipe(
    recipe: Recipe,
    folder: Path,
    out: Path,
    switches: Switches | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Saved, ...]:
    """Write what a recipe describes to `out`; a sweep writes one folder per combination below it.

    `folder` is where the recipe lies. Every combination is checked before the first is written.
    """
    chosen = switches or Switches()
    recipe, told = with_area(recipe, folder)
    jobs = [
        _Job(
            one,
            out / name if name else out,
            second_stage(one, folder, may_fit=chosen.may_fit),
            folder,
            chosen.within or (out if name else None),
        )
        for name, one in ((name, _told(build(one, folder), told)) for name, one in sweep(recipe))
    ]
    related = relations(  # a sweep has the same models
        jobs[0].built.models,
        jobs[0].built.checkpoint,
        allow_unrelated=chosen.allow_unrelated,
        exact=chosen.diagnose,
        threads=chosen.threads,
    )
    return tuple(_apply(job, chosen, related, progress) for job in jobs)


@dataclass(frozen=True)
class _Job:
    """One combination of a sweep."""

    built: Built
    out: Path
    stage: SecondStage | None
    folder: Path
    """Where the recipe lies."""
    sweep: Path | None
    """Of which it is one combination."""


def explain_recipe(recipe: Recipe, folder: Path, threads: int | None = None) -> tuple[Plan, ...]:
    """What `apply_recipe` would do, from headers and tokenizers' files alone; only an edit is looked for in weights."""
    output = recipe.output
    recipe, area = with_area(recipe, folder)
    built = [_told(build(combination, folder), area) for _, combination in sweep(recipe)]
    refused, told = readings(built[0].models)
    stage = built[0].stage
    later = () if stage is None else (f"a second stage then fits a steering vector on the result: {stage.summary}",)
    known = (*later, *(f"{text}: apply refuses this without --allow-unrelated" for text in refused), *told)
    plans = (
        explain(
            one.checkpoint,
            dtype=output.dtype,
            dtypes=output.dtypes,
            max_shard_size=output.max_shard_size,
            threads=threads,
            labels=one.labels,
        )
        for one in built
    )
    return tuple(replace(plan, notes=(*plan.notes, *one.notes, *known)) for plan, one in zip(plans, built, strict=True))


def _told(built: Built, notes: tuple[str, ...]) -> Built:
    return replace(built, notes=(*built.notes, *notes))


def describe(
    built: Built,
    related: Relations | None = None,
    stage: SecondStage | None = None,
    origin: Origin | None = None,
    folder: Path = Path(),
) -> Description:
    """What the manifest says of the result of a recipe that lies in `folder`."""
    found = related or Relations()
    recipe, notes = built.recipe, built.notes
    if origin is not None:
        data = recipe.data.model_copy(update=dict(origin.kept))
        recipe, notes = recipe.model_copy(update={"models": origin.models, "data": data}), (*notes, *origin.notes)
    return Description(
        recipe=located(recipe, folder).model_dump(mode="json", exclude_defaults=True),
        parameters=built.recipe.parameters,
        methods=(built.method.record,),
        labels=built.labels,
        warnings=found.warnings,
        notes=(*notes, *found.notes),
        vectors=found.vectors,
        data={**({} if stage is None else stage.data), **({} if origin is None else origin.data)},
        home=None if origin is None else origin.home,
    )


def _apply(
    job: _Job, switches: Switches, related: Relations, progress: Callable[[str, int, int], None] | None
) -> Saved:
    # Imported when something is computed: torch takes a second to load, and explaining does not need it.
    from alignmend.execution.adapter_output import save_adapter
    from alignmend.execution.save import save

    built, stage = job.built, job.stage
    output = built.recipe.output
    common: dict[str, Any] = {
        "dtype": output.dtype,
        "resume": switches.resume,
        "overwrite": switches.overwrite,
        "hash": switches.hash,
        "hash_inputs": switches.hash_inputs,
        "description": replace(describe(built, related, stage, switches.origin, job.folder), sweep=job.sweep),
    }
    if switches.adapter_rank is not None and not switches.as_adapter:
        raise ParameterError("--adapter-rank says what --as-adapter writes", advice="give both, or neither")
    if switches.as_adapter and stage is not None:
        raise ParameterError(
            "an adapter has no second stage", advice="leave out --as-adapter, or  --set steering=false"
        )
    if switches.as_adapter:
        return save_adapter(built.checkpoint, job.out, rank=switches.adapter_rank, **common)
    return save(
        built.checkpoint,
        job.out,
        dtypes=output.dtypes,
        max_shard_size=output.max_shard_size,
        rounding=output.rounding,
        seed=output.seed,
        threads=switches.threads,
        allow_nonfinite=switches.allow_nonfinite,
        completion=stage,
        progress=progress,
        **common,
    )
