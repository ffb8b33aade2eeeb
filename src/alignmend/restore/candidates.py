"""What a search may try with what is at hand, and the recipe of each candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from alignmend.errors import ParameterError
from alignmend.io.folder import is_adapter_folder
from alignmend.io.moments import TextKind
from alignmend.methods.registry import get_method
from alignmend.nearest import nearest
from alignmend.recipes.schema import Data, ModelReference, Output, Recipe, Training
from alignmend.restore.families import FAMILIES, Candidate, Family
from alignmend.restore.request import Request

CALIBRATION = "calibration"
"""Folder of the texts that input moments are taken over: among the private parts, and in the output."""


Models: TypeAlias = dict[str, ModelReference | list[ModelReference]]


@dataclass(frozen=True)
class LeftOut:
    """A family that is not tried, and why."""

    family: str
    why: str


@dataclass(frozen=True)
class Choice:
    """What a search may try."""

    families: tuple[str, ...]
    left_out: tuple[LeftOut, ...]

    def without(self, what: str, why: str) -> Choice:
        """Without the families that need it; raises `ParameterError` where no other is left."""
        gone = tuple(LeftOut(name, why) for name in self.families if what in FAMILIES[name].needs)
        kept = tuple(name for name in self.families if what not in FAMILIES[name].needs)
        if not kept:
            left = (*self.left_out, *gone)
            raise ParameterError("nothing to try: " + "; ".join(f"{one.family}: {one.why}" for one in left))
        return Choice(kept, (*self.left_out, *gone))

    def needs(self, what: str) -> bool:
        """Whether any family needs it."""
        return any(what in FAMILIES[name].needs for name in self.families)


def choose_families(request: Request, *, is_adapter: bool) -> Choice:
    """The families that are asked for and possible.

    Raises `ParameterError` for unknown names, and where none is left.
    """
    asked = request.methods or tuple(FAMILIES)
    for name in asked:
        if name not in FAMILIES:
            raise ParameterError(f"--method {name}: no such family{nearest(name, FAMILIES)}; {', '.join(FAMILIES)}")
    reasons = {name: _why_not(FAMILIES[name], request, is_adapter) for name in asked}
    kept = tuple(name for name, why in reasons.items() if why is None)
    left = tuple(LeftOut(name, why) for name, why in reasons.items() if why is not None)
    if not kept:
        raise ParameterError("nothing to try: " + "; ".join(f"{one.family}: {one.why}" for one in left))
    return Choice(kept, left)


def _why_not(family: Family, request: Request, is_adapter: bool) -> str | None:
    if family.steered and request.servable:
        return "steering that keeps norms cannot be baked into a checkpoint (--servable)"
    if request.as_adapter and (why := _why_no_adapter(family, request, is_adapter)) is not None:
        return f"{why} (--as-adapter)"
    unaligned = request.unaligned is not None or request.harmful_data is not None
    if family.without_unaligned and unaligned and not request.methods:
        return f"needs no unaligned model, and there is one: {family.warning} (--method names it)"
    if "unaligned" in family.needs and not unaligned:
        return "needs an unaligned model: --unaligned MODEL, or --harmful-data FILE to train one"
    if "pairs" in family.needs and request.pairs is None:
        return "needs contrast pairs: --pairs FILE"
    if "patches" in family.needs and request.harmful_data is None:
        return "trains its patches: needs --harmful-data FILE"
    if "patches" in family.needs and is_adapter:
        return "patches are trained on a whole model, and this fine-tune is an adapter: merge it first"
    if family.method in ("harm_direction_removal", "safety_arithmetic") and request.unaligned_kind == "base":
        return "a pretrained base is no harmful model of the aligned one"
    return None


def _why_no_adapter(family: Family, request: Request, is_adapter: bool) -> str | None:
    """Only a sum of adapters is an adapter."""
    if not is_adapter:
        return "the fine-tune is a whole model"
    if not family.low_rank:
        return "a drop, a trim, a merge of patches or a steering vector is no sum of adapters"
    if "unaligned" not in family.needs:
        return None
    given = None if request.unaligned is None else Path(request.unaligned)
    if given is not None and given.is_dir() and not is_adapter_folder(given):
        return "the unaligned model is a whole model"
    if given is None and request.training.lora_rank is None:
        return "the unaligned model is trained over all weights: give --lora-rank"
    return None


@dataclass(frozen=True)
class Operands:
    """Where the models of recipes are, by what they are; `parts` are those that were made."""

    finetuned: ModelReference
    aligned: ModelReference
    given: Mapping[str, ModelReference] = field(default_factory=dict)
    parts: Mapping[str, ModelReference] = field(default_factory=dict)

    texts: Mapping[TextKind, Path] = field(default_factory=dict)
    """Files that input moments are taken over."""

    def models(self, method: str, *, made: bool = True) -> Models:
        """A method's roles; without the parts that were made where `made` is false, as a recipe for users has them."""
        known = {**self.given, **(self.parts if made else {}), "aligned": self.aligned}
        known |= {"finetuned": self.finetuned, "target": self.finetuned}
        if "unaligned" in known:
            known["harmful"] = known["unaligned"]
        roles = [one.name for one in get_method(method).arguments.values() if one.is_operand]
        if "unaligned" in roles and "harmful" in roles:  # another direction, which nobody asked for
            roles.remove("harmful")
        return {role: known[role] for role in roles if role in known}


def text_fields(files: Mapping[TextKind, str]) -> dict[str, str]:
    """Where a recipe names them, under `data`."""
    return {f"{kind}_texts": path for kind, path in files.items()}


def moments_training(request: Request) -> Training:
    """How texts become tokens where input moments are taken."""
    template = request.prompts.template or request.training.template
    return Training(template=template, max_length=request.training.max_length)


def recipe_of(candidate: Candidate, operands: Operands, request: Request, *, made: bool = True) -> Recipe:
    """The recipe that writes `candidate`; with `made` false the one for users, who have the data but not the parts."""
    family, parameters = FAMILIES[candidate.family], dict(candidate.parameters)
    method, steered = family.method, family.steered
    if steered and parameters.get("steering_coefficient") == 0:  # without its second stage it is the first
        method, steered = "harm_direction_removal", False
        del parameters["steering_coefficient"]
    if family.method == "resta" and request.unaligned_kind == "base":
        parameters["safety_vector"] = "instruct-base"
    if candidate.family == "resta_drop":
        parameters["seed"] = request.seed
    if family.method == "safe_patching":
        parameters["seed"] = request.seed
    needs_pairs = "unaligned" in family.needs and "unaligned" not in operands.given
    trained = request.harmful_data if needs_pairs or family.method == "safe_patching" else None
    weighed = operands.texts if "moments" in family.needs else {}
    data = Data(
        harmful_pairs=None if trained is None else str(trained.resolve()),
        contrast_pairs=str(request.pairs.resolve()) if steered and request.pairs is not None else None,
    ).model_copy(update=text_fields({kind: f"{CALIBRATION}/{path.name}" for kind, path in weighed.items()}))
    training = request.training if trained is not None else Training()
    if weighed:
        training = moments_training(request) if trained is None else request.training
    models = operands.models(method, made=made)
    if "unaligned" not in family.needs:
        models.pop("unaligned", None)
    return Recipe(
        method=method,
        models=models,
        parameters=parameters,
        data=data,
        training=training,
        output=_output(request),
    )


def _output(request: Request) -> Output:
    rounding = {"rounding": "stochastic", "seed": request.seed} if request.rounding == "stochastic" else {}
    return Output.model_validate({"dtype": request.output_dtype, **rounding})
