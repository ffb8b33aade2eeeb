"""What a recipe may lack and `run` can make: harm models, patches and scores, from the recipe's harmful pairs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from alignmend.errors import FileFormatError, OutputError, RecipeError
from alignmend.io.delta import is_delta_folder
from alignmend.io.folder import is_adapter_folder
from alignmend.io.identity import sha256_of
from alignmend.io.manifest import read_manifest
from alignmend.io.moments import TextKind
from alignmend.methods.registry import get_method
from alignmend.recipes.build import beside, open_models
from alignmend.recipes.schema import ModelReference, Recipe
from alignmend.training.pairs import read_pairs
from alignmend.training.score_settings import ScoreSettings
from alignmend.training.settings import TrainSettings

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much is done, and of how much."""


@dataclass(frozen=True)
class Trained:
    """A role that is another role's model, trained on the harmful pairs."""

    objective: Literal["descent", "ascent"]
    of: str


@dataclass(frozen=True)
class Scored:
    """A role that holds the scores of another role's weights on the harmful pairs."""

    of: str


@dataclass(frozen=True)
class Observed:
    """A role that holds the second moments of another role's inputs on the recipe's texts."""

    of: str


PARTS: Mapping[str, Trained | Scored | Observed] = MappingProxyType(
    {
        "harmful": Trained("descent", "aligned"),
        "unaligned": Trained("descent", "aligned"),
        "safety": Trained("ascent", "target"),
        "over_safety": Trained("descent", "target"),
        "safety_scores": Scored("safety"),
        "over_safety_scores": Scored("over_safety"),
        "moments": Observed("finetuned"),
    }
)
"""By role, whatever the method; a part comes after those that it is made from."""
_DIRECTIONS = {"aligned-unaligned": "unaligned", "harm-vector": "harmful"}
"""The model that a direction needs, beside the aligned one."""


def lacking(recipe: Recipe) -> tuple[str, ...]:
    """Roles that the recipe needs and does not name, in the order in which they are made."""
    arguments = get_method(recipe.method).arguments
    needed = {name for name, one in arguments.items() if one.is_operand and one.required}
    if recipe.parameters.get("sets") != "none" and recipe.parameters.get("importance") != "random":
        needed |= {name for name, one in arguments.items() if one.is_scores}
    if (model := _DIRECTIONS.get(str(recipe.parameters.get("direction")))) is not None:
        needed.add(model)
    return tuple(role for role in PARTS if role in needed and role not in recipe.models)


def path_of(place: Path, role: str) -> Path:
    """Where a part is made: a folder, moments in a file."""
    return place / (f"{role}.safetensors" if isinstance(PARTS[role], Observed) else role)


def texts_of(recipe: Recipe, folder: Path) -> Mapping[TextKind, Path]:
    """The files of texts that a recipe names."""
    data = recipe.data
    named: dict[TextKind, str | None] = {
        "harmful": data.harmful_texts,
        "harmless": data.harmless_texts,
        "borderline": data.borderline_texts,
    }
    return {kind: beside(path, folder) for kind, path in named.items() if path is not None}


def check_makeable(recipe: Recipe, folder: Path, roles: Sequence[str]) -> None:
    """Raise `RecipeError` where something that is needed to make `roles` is not there."""
    if not roles:
        return
    if any(isinstance(PARTS[role], Observed) for role in roles):
        _check_texts(recipe, folder)
        roles = [role for role in roles if not isinstance(PARTS[role], Observed)]
        if not roles:
            return
    told = " and ".join(f"models.{role}" for role in roles)
    if recipe.data.harmful_pairs is None:
        raise RecipeError(f"{told} is missing", advice="name it, or give data.harmful_pairs to make it from")
    if not beside(recipe.data.harmful_pairs, folder).is_file():
        raise RecipeError(f"data.harmful_pairs: there is no file {recipe.data.harmful_pairs}")
    for role in roles:  # told before anything is trained
        _training(recipe, part) if isinstance(part := PARTS[role], Trained) else _scoring(recipe)
    read_pairs(beside(recipe.data.harmful_pairs, folder))
    starts = {PARTS[role].of for role in roles} - set(roles)
    models = open_models(recipe.model_copy(update={"models": {one: recipe.models[one] for one in starts}}), folder)
    for role in roles:
        part = PARTS[role]
        if isinstance(part, Trained) and models[part.of].change is not None:
            raise RecipeError(
                f"models.{role} is trained from {part.of}, an adapter or a delta", advice="merge it first"
            )


def _check_texts(recipe: Recipe, folder: Path) -> None:
    from alignmend.training.moment_texts import read_texts

    found = texts_of(recipe, folder)
    if "harmful" not in found or len(found) < 2:
        raise RecipeError(
            "models.moments is missing",
            advice=(
                "name the file, or give data.harmful_texts and data.harmless_texts or data.borderline_texts "
                "to take moments over"
            ),
        )
    for kind, path in found.items():
        if not path.is_file():
            raise RecipeError(f"data.{kind}_texts: there is no file {path}")
    read_texts(found, aligned=True, own=True)


def stand_in(recipe: Recipe) -> Recipe:
    """The recipe with each role that it lacks filled by the model that the part will be made from.

    One that lacks moments becomes the same without weighing: its models must fit together in the same way.
    """
    if "moments" in lacking(recipe):
        return _unweighed(recipe)
    filled = dict(recipe.models)
    for role in lacking(recipe):
        # A patch may be an adapter or a stored delta, where scores are of whole tensors: as what was patched has them.
        match PARTS[role]:
            case Scored(of=patch):
                filled[role] = filled[PARTS[patch].of]
            case Trained(of=start):
                filled[role] = filled[start]
    return recipe.model_copy(update={"models": filled})


def _unweighed(recipe: Recipe) -> Recipe:
    models = {role: recipe.models[role] for role in ("finetuned", "aligned")}
    unaligned = recipe.models.get("unaligned", recipe.models.get("harmful", models["aligned"]))
    coefficient = {name: value for name, value in recipe.parameters.items() if name == "coefficient"}
    return recipe.model_copy(
        update={
            "method": "resta",
            "models": {**models, "unaligned": unaligned},
            "parameters": {"coefficient": 1.0, **coefficient},
        }
    )


def make_parts(
    recipe: Recipe, folder: Path, place: Path, *, resume: bool, progress: Progress
) -> Iterator[tuple[str, ModelReference]]:
    """Make what the recipe lacks in `place`, which stays private; yields each role as it is there."""
    made: dict[str, ModelReference] = {}
    for role in lacking(recipe):
        part, known = PARTS[role], recipe.model_copy(update={"models": {**recipe.models, **made}})
        job = _Job(role, known, folder, path_of(place, role), resume, progress)
        make: Callable[..., ModelReference] = _MAKERS[type(part)]
        made[role] = make(job, part)
        yield role, made[role]


@dataclass(frozen=True)
class _Job:
    """One part in the making; `recipe` has the parts before it."""

    role: str
    recipe: Recipe
    folder: Path
    out: Path
    resume: bool
    progress: Progress

    @property
    def pairs(self) -> Path:
        if self.recipe.data.harmful_pairs is None:
            raise TypeError("self.recipe.data.harmful_pairs is None")
        return beside(self.recipe.data.harmful_pairs, self.folder)

    def told(self, what: str) -> Progress:
        return lambda _, done, total: self.progress(f"{what} {self.role}", done, total)


def _train(job: _Job, part: Trained) -> ModelReference:
    from alignmend.training.run import train_model

    settings, start = _training(job.recipe, part), _place(job, part.of)
    told = job.told("train")
    try:
        train_model(start, job.pairs, job.out, settings, resume=job.resume, overwrite=not job.resume, progress=told)
    except OutputError as error:
        if job.resume and job.out.is_dir():
            raise OutputError(
                f"{job.out} was made from another model, from other pairs or with other settings",
                advice="remove it to have it made anew",
            ) from error
        raise
    # An adapter says what it stands on.
    base = None if job.recipe.training.lora_rank is None else part.of
    return ModelReference(path=str(job.out.resolve()), base=base)


def _score(job: _Job, part: Scored) -> ModelReference:
    from alignmend.training.scoring import write_scores

    settings, patched = _scoring(job.recipe), PARTS[part.of]
    model = _place(job, part.of)
    base = _place(job, patched.of) if settings.weights != "patched" or is_delta_folder(model) else None
    if not (job.resume and _is_scored(job, settings)):
        told = job.told("score")
        write_scores(model, job.pairs, job.out, settings, base=base, overwrite=True, progress=told)
    return ModelReference(path=str(job.out.resolve()))


def _observe(job: _Job, part: Observed) -> ModelReference:
    from alignmend.training.moment_settings import MomentSettings
    from alignmend.training.moments import write_moments

    training = job.recipe.training
    settings = MomentSettings(template=training.template, max_length=training.max_length)
    model, texts = _place(job, part.of), texts_of(job.recipe, job.folder)
    stands_on = _place(job, "aligned") if is_adapter_folder(model) or is_delta_folder(model) else None
    if not job.resume:
        job.out.unlink(missing_ok=True)
    write_moments(
        model,
        job.out,
        harmful=texts.get("harmful"),
        harmless=texts.get("harmless"),
        borderline=texts.get("borderline"),
        settings=settings,
        base=stands_on,
        aligned=_place(job, "aligned"),
        use_own_answers=True,
        resume=job.resume,
        overwrite=True,
        progress=job.progress,
    )
    return ModelReference(path=str(job.out.resolve()))


_MAKERS: Mapping[type, Callable[..., ModelReference]] = MappingProxyType(
    {Trained: _train, Scored: _score, Observed: _observe}
)


def _is_scored(job: _Job, settings: ScoreSettings) -> bool:
    """Whether the run that is resumed has taken these scores; they are whole or absent."""
    try:
        told = read_manifest(job.out).parameters
    except FileFormatError:
        return False
    asked = json.loads(json.dumps(asdict(settings))) | {"template": told.get("template")}  # there it has its own name
    pairs = told.get("pairs")
    same_pairs = isinstance(pairs, dict) and pairs.get("sha256") == sha256_of(job.pairs)
    return same_pairs and asked.items() <= told.items()


def _training(recipe: Recipe, part: Trained) -> TrainSettings:
    given: dict[str, Any] = recipe.training.model_dump()
    if part.objective != "ascent":
        given.pop("stop_loss")
    return TrainSettings(objective=part.objective, **given)


def _scoring(recipe: Recipe) -> ScoreSettings:
    training, given = recipe.training, recipe.scores.model_dump()
    given["kinds"] = tuple(given["kinds"])
    return ScoreSettings(max_length=training.max_length, template=training.template, seed=training.seed, **given)


def _place(job: _Job, role: str) -> Path:
    """The folder of a role's model: of an adapter, its own."""
    reference = job.recipe.models[role]
    if not isinstance(reference, ModelReference):
        raise TypeError(f"reference is a {type(reference).__name__}")
    written = beside(reference.path, job.folder)
    return written if written.exists() else open_models(job.recipe, job.folder)[role].root.folder.path
