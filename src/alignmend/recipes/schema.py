"""The recipe: what may stand in it, by type. Parameters and roles come from the method's own signature."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, create_model

from alignmend.errors import ParameterError, RecipeError
from alignmend.io.shards import parse_size
from alignmend.methods.registry import Argument, Method, get_method
from alignmend.nearest import nearest
from alignmend.recipes.lines import Document, KeyPath, read_yaml
from alignmend.training.settings import TrainSettings

OutputDtype = Literal["bfloat16", "float16", "float32"]
_MAY_BE_EMPTY = ("parameters", "data", "training", "scores", "output")
_SWEEP = "list[float]"
_PLAINER = {
    "model_type": "must be a mapping with keys of its own",
    "dict_type": "must be a mapping with keys of its own",
    "mapping_type": "must be a mapping",
    "is_instance_of": "must be a list",
    "sequence_str": "must be a list",
    "list_type": "must be a list",
}
"""What to say instead of what pydantic says of Python types."""


class _Part(BaseModel):
    # Strict, since a text or a truth value in place of a number is a slip of the pen, not a number.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class ModelReference(_Part):
    """Where a model is: a folder, a hub id, or an adapter folder."""

    path: str = Field(min_length=1)
    revision: str | None = None
    """Hub branch, tag or commit."""
    prefix: str = ""
    """Put before every tensor's name, for a text model that meets a nested decoder."""
    base: str | None = None
    """For an adapter: another role, a folder or a hub id that it was trained on."""


class Output(_Part):
    """How the result is written."""

    dtype: OutputDtype | None = None
    """Of what the target stores in its main dtype; what it keeps in float32 beside that stays so."""
    dtypes: dict[str, OutputDtype] = {}
    """Shell-style pattern -> dtype of the tensors that it fits, whatever the target keeps them in."""
    max_shard_size: str | int = "5GB"
    rounding: Literal["nearest", "stochastic"] = "nearest"
    seed: int = Field(default=0, ge=0)
    """Of stochastic rounding."""


class Data(_Part):
    """Files that `run` needs to make missing parts."""

    harmful_pairs: str | None = None
    contrast_pairs: str | None = None
    harmful_texts: str | None = None
    """Harmful prompts and refusals, which input moments are taken over; refusals that are left out are the aligned
    model's."""
    harmless_texts: str | None = None
    """Plain prompts and answers; answers that are left out are the fine-tune's own."""
    borderline_texts: str | None = None
    """The same of prompts that only sound harmful."""
    steering_vector: str | None = None
    """A vector that was fitted before, instead of contrast pairs."""
    sequence: list[str] = []


class Training(_Part):
    """How `run` trains a model that the recipe lacks; what is left out is as in `alignmend train`."""

    lora_rank: int | None = None
    """Full training where left out."""
    learning_rate: float | None = None
    epochs: float = TrainSettings.epochs
    max_steps: int | None = None
    batch_size: int = TrainSettings.batch_size
    max_length: int = TrainSettings.max_length
    stop_loss: float | None = None
    """Nats per answer token at which an ascent ends."""
    template: str = "auto"
    seed: int = 0


class Scoring(_Part):
    """How `run` takes importance scores that the recipe lacks; what is left out is as in `alignmend scores`.

    Template, longest row and seed are those of `training`.
    """

    method: Literal["snip", "wanda"] = "snip"
    weights: Literal["patched", "base", "patch"] = "patched"
    """W: of the patched model, of the model that is patched, or the patch."""
    tokens: Literal["answer", "question"] = "answer"
    order: Literal["absolute-then-mean", "mean-then-absolute"] = "absolute-then-mean"
    samples: int = 128
    """Pairs that scores are taken on."""
    batch_size: int = 1
    layers_at_once: int | None = None
    """Less memory: so many layers are scored, then the pairs pass again."""
    kinds: list[str] = []
    """Every parameter of these kinds; the matrices of linear layers inside decoder layers where left out."""
    dtype: Literal["float32", "bfloat16"] = "float32"


class Recipe(_Part):
    """A method with its operands and numbers."""

    method: str
    models: dict[str, ModelReference | list[ModelReference]]
    parameters: dict[str, JsonValue] = {}
    data: Data = Data()
    training: Training = Training()
    scores: Scoring = Scoring()
    output: Output = Output()


def load_recipe(path: Path, settings: Sequence[str] = (), lacking: Collection[str] = ()) -> tuple[Recipe, Document]:
    """Read and check a recipe; `settings` are `key=value` overrides such as `parameters.coefficient=0.4`.

    `lacking` names roles that need not be there yet.

    Raises `RecipeError` that names the line, and for an unknown key the nearest known one.
    """
    from alignmend.recipes.hashed import found_again
    from alignmend.recipes.settings import override

    document = found_again(override(read_yaml(path), settings), path)
    return check_recipe(document, lacking), document


def check_recipe(document: Document, lacking: Collection[str] = ()) -> Recipe:
    """A document as a recipe of its method; raises `RecipeError` that lists everything wrong with it."""
    value = {key: block for key, block in document.value.items() if block is not None or key not in _MAY_BE_EMPTY}
    if not isinstance(value.get("method"), str):
        raise RecipeError(f"{document.name} needs a method, such as  method: resta")
    try:
        method = get_method(cast(str, value["method"]))
    except RecipeError as error:
        raise error.at(document.where(("method",))) from None
    models, parameters = _references(value.get("models"), method), value.get("parameters", {})
    problems = [
        *_problems(Recipe, {**value, "models": {}, "parameters": {}}, document, ()),
        *_problems(models_schema(method.name, frozenset(lacking)), models, document, ("models",)),
        *_problems(parameters_schema(method.name), parameters, document, ("parameters",)),
    ]
    if problems:
        raise RecipeError("\n".join(problems))
    checked = parameters_schema(method.name).model_validate(parameters).model_dump(mode="json", exclude_unset=True)
    recipe = Recipe.model_validate({**value, "models": models, "parameters": checked})
    try:
        parse_size(recipe.output.max_shard_size)
    except ParameterError as error:
        raise error.at(document.where(("output", "max_shard_size")), RecipeError) from None
    return recipe


def arguments_of(recipe: Recipe) -> dict[str, Any]:
    """A recipe's parameters as its method takes them; in the recipe itself they are JSON, whose keys are text."""
    schema = parameters_schema(recipe.method)
    return schema.model_validate(recipe.parameters).model_dump(exclude_unset=True)


def _references(models: object, method: Method) -> object:
    """Plain text means a path; one model where several may stand means a list of one."""
    if not isinstance(models, Mapping):
        return models
    found: dict[object, object] = {}
    for role, value in models.items():
        many = role in method.arguments and method.arguments[role].many
        values = [
            {"path": one} if isinstance(one, str) else one for one in (value if isinstance(value, list) else [value])
        ]
        found[role] = values if many or isinstance(value, list) else values[0]
    return found


@cache
def parameters_schema(method: str) -> type[BaseModel]:
    """The pydantic model of a method's numbers and switches. A float may also be a list of floats: a sweep."""
    arguments = [argument for argument in get_method(method).arguments.values() if not argument.is_operand]
    return _schema(f"{method} parameters", arguments, lambda argument: _sweepable(argument.annotation))


@cache
def models_schema(method: str, lacking: frozenset[str] = frozenset()) -> type[BaseModel]:
    """The pydantic model of a method's roles; those in `lacking` may be left out."""
    arguments = [
        replace(argument, required=argument.required and argument.name not in lacking)
        for argument in get_method(method).arguments.values()
        if argument.is_operand
    ]
    return _schema(
        f"{method} models", arguments, lambda argument: list[ModelReference] if argument.many else ModelReference
    )


def _schema(name: str, arguments: Sequence[Argument], kind: Any) -> type[BaseModel]:
    fields = {one.name: (kind(one), ... if one.required else one.default) for one in arguments}
    return create_model(name, __base__=_Part, **cast(dict[str, Any], fields))


def _sweepable(annotation: object) -> Any:
    if annotation == (Mapping[int, float] | None):  # a copy of a recipe that went through JSON has text for keys
        return Mapping[Annotated[int, Field(strict=False)], float] | None
    if annotation == Mapping[int, Sequence[int]]:
        return Mapping[Annotated[int, Field(strict=False)], Sequence[int]]
    if annotation == (float | None):
        return float | list[float] | None
    return float | list[float] if annotation is float else annotation


def _problems(schema: type[BaseModel], value: object, document: Document, path: KeyPath) -> list[str]:
    try:
        schema.model_validate(value)
    except ValidationError as error:
        return list(dict.fromkeys(_message(one, schema, value, document, path) for one in error.errors()))
    return []


def _message(error: Any, schema: type[BaseModel], value: object, document: Document, path: KeyPath) -> str:
    place = _place(error["loc"], value, missing=error["type"] == "missing")
    where = document.where((*path, *place))
    shown = ".".join(str(part) for part in (*path, *place))
    if error["type"] == "extra_forbidden" and place:
        known = _fields_at(schema, place[:-1])
        return f"{where}: unknown key {shown!r}{nearest(str(place[-1]), known)}; known here: {', '.join(known)}"
    if error["type"] == "missing":
        made = ""
        if path == ("models",) and place == ("moments",):
            made = "; alignmend run takes it over data.harmful_texts and the other texts"
        elif path == ("models",) and _has_pairs(document):
            made = "; alignmend run trains it from data.harmful_pairs"
        return f"{where}: {shown} is missing{made}"
    if path == ("models",) and not place:
        return f"{document.name} needs models, one line for each role: {', '.join(schema.model_fields)}"
    if _SWEEP in error["loc"] or "float" in error["loc"]:
        return f"{where}: {shown}: give a finite number, or for a sweep a list of them, not {_excerpt(error['input'])}"
    if path == ("models",) and error["type"] == "model_type":
        return f"{where}: {shown}: give one model, a folder or a hub id, not {_excerpt(error['input'])}"
    text = _PLAINER.get(error["type"], error["msg"][0].lower() + error["msg"][1:])
    return f"{where}: {shown}: {text}, not {_excerpt(error['input'])}"


def _has_pairs(document: Document) -> bool:
    data = document.value.get("data")
    return isinstance(data, Mapping) and bool(data.get("harmful_pairs"))


def _place(location: Sequence[str | int], value: object, *, missing: bool) -> KeyPath:
    """The keys that lead to a place in `value`, without pydantic's notes of which type it was trying."""
    found: list[str | int] = []
    here = value
    for number, part in enumerate(location, 1):
        is_item = isinstance(here, list) and isinstance(part, int) and part < len(here)
        if is_item or (isinstance(here, Mapping) and part in here):
            here = cast(Any, here)[part]
        elif not (missing and number == len(location)):
            continue
        found.append(part)
    return tuple(found)


def _excerpt(value: object) -> str:
    return textwrap.shorten(repr(value), 80, placeholder=" ...") if len(repr(value)) > 80 else repr(value)


def _fields_at(schema: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """The keys known at a place inside a schema."""
    if not place:
        return list(schema.model_fields)
    blocks: dict[str, type[BaseModel]] = {"output": Output, "data": Data, "training": Training, "scores": Scoring}
    inner = blocks.get(str(place[0]), ModelReference)
    return list(inner.model_fields)
