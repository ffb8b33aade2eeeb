"""A checked recipe becomes an expression: operands are opened, adapters stood on their bases, the method called."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alignmend.activations.safe_align import SafeAlign
from alignmend.algebra.names import input_embedding
from alignmend.algebra.nodes import AdapterDelta, Operand, StoredDelta
from alignmend.algebra.opening import open_adapter, open_checkpoint, open_delta, open_moments, open_scores
from alignmend.algebra.values import Checkpoint, Delta, Moments, Scores
from alignmend.algebra.walks import stored_source
from alignmend.errors import FileFormatError, MismatchError, RecipeError
from alignmend.io.adapter import open_adapter_folder
from alignmend.io.companions import is_tokenizer_file
from alignmend.io.copies import companions_of
from alignmend.io.delta import is_delta_folder, open_delta_folder
from alignmend.io.folder import is_adapter_folder
from alignmend.io.hub import find
from alignmend.io.tokenizers import listed, tokens_beyond
from alignmend.methods.registry import Argument, Method, get_method
from alignmend.methods.steered import Steered
from alignmend.recipes.schema import Data, ModelReference, Recipe, arguments_of
from alignmend.recipes.score_origins import exchanged_scores

_USUAL_BASES = ("aligned", "base")
"""Roles that an adapter in another role stands on, unless it says otherwise."""
_OWN_BASES = {"safety": "target", "over_safety": "target"}
"""Roles whose adapters stand on a role of their own: patches, on the model that they patch."""
_BASE_OF = "base of "
_ADAPTER, _DELTA = "an adapter", "a stored delta"


@dataclass(frozen=True)
class _Part:
    """Something that is a model only together with its base."""

    what: str
    base: str | None
    """Where it says that its base is, if it does."""
    revision: str | None

    @property
    def is_adapter(self) -> bool:
        return self.what == _ADAPTER


@dataclass
class Operands:
    """The opened models of a recipe, by role."""

    folder: Path
    """Where the recipe lies; paths are relative to the current directory, or to this."""
    references: Mapping[str, ModelReference]
    """One per role; of a role with several models, `role[0]`, `role[1]`, ..."""
    opened: dict[str, Checkpoint] = field(default_factory=dict)
    labels: dict[Operand, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    under_way: list[str] = field(default_factory=list)
    """Roles that are being opened, each because the one before stands on it."""

    def open(self, role: str) -> Checkpoint:
        """The model of a role, opened once."""
        if role in self.under_way:
            circle = " on ".join([*self.under_way[self.under_way.index(role) :], role])
            raise RecipeError(
                f"adapters stand on one another in a circle ({circle})", advice="give one of them a full base"
            )
        if role not in self.opened:
            self.under_way.append(role)
            self.opened[role] = self._open(role, self.references[role])
            self.under_way.pop()
        return self.opened[role]

    def open_scores(self, role: str) -> Scores:
        """The scores of a role: a safetensors file, or a folder of them."""
        found = open_scores(self._file(role, "scores"))
        if (source := stored_source(found.node)) is not None:
            self.labels.setdefault(source, role)
        return found

    def open_moments(self, role: str) -> Moments:
        """The file of moments of a role."""
        found = open_moments(self._file(role, "moments"))
        self.labels.setdefault(found.source, role)
        return found

    def _file(self, role: str, what: str) -> str:
        reference = self.references[role]
        if reference != ModelReference(path=reference.path):
            raise RecipeError(
                f"{role} is a file of {what}", advice="give its path alone, without revision, prefix and base"
            )
        return self._locate(reference.path)

    def _open(self, role: str, reference: ModelReference) -> Checkpoint:
        location = self._locate(reference.path)
        if (part := _part_at(location, reference.revision)) is not None:
            if reference.prefix:
                raise RecipeError(f"{role} is {part.what}, whose names follow its base", advice="leave prefix out")
            base = self._base(role, reference, part)
            delta = self._part(role, reference, location, base, part)
            own = delta.node.adapter.adapter if isinstance(delta.node, AdapterDelta) else None
            model = replace(base + delta, speaker=own)
            _check_tokens(role, model)
            return model
        if reference.base is not None:
            raise RecipeError(f"{role} is a full checkpoint, so base has no meaning", advice="leave it out")
        model = open_checkpoint(location, revision=reference.revision, prefix=reference.prefix)
        if self.labels.get(model.root, "").startswith(_BASE_OF):
            del self.labels[model.root]  # a role of its own says more
        self.labels.setdefault(model.root, role)
        return model

    def _part(self, role: str, reference: ModelReference, location: str, base: Checkpoint, part: _Part) -> Delta:
        if part.is_adapter:
            delta = open_adapter(location, revision=reference.revision, base=base)
        else:
            delta = open_delta(location, revision=reference.revision, target=base)
        match delta.node:
            case AdapterDelta(adapter):
                self.labels.setdefault(adapter, role)
            case StoredDelta(stored):
                self.labels.setdefault(stored, role)
        return delta

    def _base(self, role: str, reference: ModelReference, part: _Part) -> Checkpoint:
        if reference.base is not None:
            chosen = reference.base
        else:
            known = (_OWN_BASES[role],) if role in _OWN_BASES else _USUAL_BASES
            usual = [other for other in known if other in self.references and other != role]
            chosen = usual[0] if usual else part.base or ""
        if not chosen:
            raise RecipeError(f"{role} is {part.what} that does not say on which model", advice="give it a base")
        if chosen in self.references:
            self._note_base(role, part, self.references[chosen].path)
            found = self.open(chosen)
        else:
            found = self._outside_base(role, chosen, None if reference.base else part.revision, part.what)
        if found.change is not None:
            other = _DELTA if isinstance(found.change, StoredDelta) else _ADAPTER
            raise RecipeError(
                f"{role} is {part.what} on {chosen}, which is {other} itself",
                advice=f"give {role} the base that it was made on (models.{role}.base), or merge {chosen} first",
            )
        return found

    def _outside_base(self, role: str, chosen: str, revision: str | None, what: str) -> Checkpoint:
        """A base that is no role of the recipe."""
        location = self._locate(chosen)
        try:
            if (part := _part_at(location, revision)) is not None:
                raise RecipeError(f"it is {part.what} itself", advice="merge it into its own base first")
            found = open_checkpoint(location, revision=revision)
        except (FileFormatError, RecipeError) as error:
            raise RecipeError(
                f"{role} is {what} on {chosen}; {error}. Another place is given by models.{role}.base"
            ) from None
        self.labels.setdefault(found.root, f"{_BASE_OF}{role}")
        return found

    def _note_base(self, role: str, part: _Part, used: str) -> None:
        if part.base is not None and Path(part.base).name != Path(used).name:
            said, used, made = Path(part.base).name, Path(used).name, "trained on" if part.is_adapter else "saved for"
            self.notes.append(f"{role} is {part.what} that says it was {made} {said}; it is applied to {used}")

    def _locate(self, written: str) -> str:
        """A path that exists here or beside the recipe, else what was written (a hub id)."""
        found = beside(written, self.folder)
        return written if found == Path(written) else str(found)


def _without_tokenizer(checkpoint: Checkpoint) -> tuple[str, ...]:
    """What to say where an output will not be able to read text."""
    folder = checkpoint.root.folder
    if any(map(is_tokenizer_file, companions_of(folder, checkpoint.speaker))):
        return ()
    return (
        f"{folder.location} has no tokenizer, so the output has none either: copy the tokenizer's files of the model "
        "that it was trained from into one of them",
    )


def _check_tokens(role: str, model: Checkpoint) -> None:
    """An adapter's tokenizer goes into the output: every token of its own must have a row of the embedding."""
    folder, own = model.root.folder, model.speaker
    name = input_embedding(tuple(folder.tensors))
    if own is None or name is None:
        return
    rows = folder.tensors[name].shape[0]
    if beyond := tokens_beyond(rows, own.path, folder.path):
        raise MismatchError(
            f"{role}: the tokenizer in {own.path} has {listed(beyond)}, for which neither the embedding of "
            f"{folder.location} ({rows:,} rows) nor the adapter has rows",
            advice=(
                "save the adapter anew with its embedding (resize_token_embeddings, "
                "save_embedding_layers=True), or take the tokenizer's files out of its folder"
            ),
        )


def beside(written: str, folder: Path) -> Path:
    """A path that exists here or beside the recipe in `folder`; as it was written where it exists nowhere."""
    here, there = Path(written), folder / written
    try:
        if here.exists() and there.exists() and not here.samefile(there):
            raise RecipeError(
                f"{written} exists in the current folder and beside the recipe", advice="write an absolute path"
            )
        return there if there.exists() and not here.exists() else here
    except (OSError, ValueError) as error:  # a name too long for a file, or with NUL in it
        raise RecipeError(f"{textwrap.shorten(written, 80)} cannot be looked up ({error})") from None


def located(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with every model and file that it names where it is, seen from here."""

    def moved(one: ModelReference) -> ModelReference:
        base = None if one.base is None or one.base in recipe.models else str(beside(one.base, folder))
        return one.model_copy(update={"path": str(beside(one.path, folder)), "base": base or one.base})

    models = {
        role: [moved(one) for one in given] if isinstance(given, list) else moved(given)
        for role, given in recipe.models.items()
    }
    data = {
        name: [str(beside(one, folder)) for one in given] if isinstance(given, list) else str(beside(given, folder))
        for name, given in recipe.data.model_dump(exclude_defaults=True).items()
    }
    return recipe.model_copy(update={"models": models, "data": Data.model_validate(data)})


def _part_at(location: str, revision: str | None) -> _Part | None:
    """What an adapter or a stored delta says of itself; None for anything else."""
    path = Path(location)
    path = path if path.exists() else find(location, revision=revision).path
    if is_adapter_folder(path):
        adapter = open_adapter_folder(location, revision=revision)
        return _Part(_ADAPTER, adapter.base, adapter.base_revision)
    if is_delta_folder(path):
        target = open_delta_folder(location, revision=revision).target
        return _Part(_DELTA, target.location, target.revision)
    return None


@dataclass(frozen=True)
class Built:
    """A recipe's expression, and what is to be said about it."""

    checkpoint: Checkpoint
    method: Method
    recipe: Recipe
    labels: Mapping[Operand, str]
    notes: tuple[str, ...]
    models: Mapping[str, Checkpoint] = field(default_factory=dict)
    """By role; of a role with several models, `role[0]`, `role[1]`, ..."""
    stage: SafeAlign | None = None
    """How the activations are steered afterwards."""


def open_models(recipe: Recipe, folder: Path) -> Mapping[str, Checkpoint]:
    """A recipe's models by role. Headers only."""
    arguments = get_method(recipe.method).arguments
    references = _flat(recipe.models)
    models = [role for role in references if not _is_file(arguments, role)]
    return open_references(references, folder, models)


def open_references(
    references: Mapping[str, ModelReference], folder: Path = Path(), roles: Sequence[str] | None = None
) -> Mapping[str, Checkpoint]:
    """Models by role, of `roles` or all; an adapter may name another role as its base. Headers only."""
    operands = Operands(folder, dict(references))
    return {role: operands.open(role) for role in (references if roles is None else roles)}


def _is_file(arguments: Mapping[str, Argument], role: str) -> bool:
    return role in arguments and (arguments[role].is_scores or arguments[role].is_moments)


def build(recipe: Recipe, folder: Path) -> Built:
    """Open a recipe's models and call its method. Headers only.

    Raises `RecipeError` for what the recipe lacks, and what opening and arithmetic raise.
    """
    method = get_method(recipe.method)
    operands = Operands(folder, _flat(recipe.models))
    arguments = arguments_of(recipe)
    scores: dict[str, Path] = {}
    for role, given in recipe.models.items():
        if method.arguments[role].is_scores:
            arguments[role] = operands.open_scores(role)
            scores[role] = beside(operands.references[role].path, folder)
            continue
        if method.arguments[role].is_moments:
            arguments[role] = operands.open_moments(role)
            continue
        many = method.arguments[role].many
        names = [f"{role}[{number}]" for number in range(len(given))] if isinstance(given, list) else [role]
        models = [operands.open(name) for name in names]
        arguments[role] = models if many else models[0]
    if wrong := list(exchanged_scores(scores, operands.opened)):
        raise RecipeError("; ".join(wrong))
    made = method.build(**arguments)
    checkpoint, stage = (made.checkpoint, made.stage) if isinstance(made, Steered) else (made, None)
    notes = (*operands.notes, *_without_tokenizer(checkpoint))
    return Built(checkpoint, method, recipe, operands.labels, notes, operands.opened, stage)


def _flat(models: Mapping[str, ModelReference | list[ModelReference]]) -> dict[str, ModelReference]:
    flat: dict[str, ModelReference] = {}
    for role, given in models.items():
        flat |= (
            {f"{role}[{number}]": one for number, one in enumerate(given)} if isinstance(given, list) else {role: given}
        )
    return flat


def sweep(recipe: Recipe) -> tuple[tuple[str, Recipe], ...]:
    """(folder name, recipe) for each combination of a recipe's swept parameters; one, unnamed, without a sweep.

    A parameter that takes a number sweeps where it is given a list.
    """
    arguments = get_method(recipe.method).arguments
    swept = {
        name: value
        for name, value in recipe.parameters.items()
        if isinstance(value, list) and arguments[name].annotation in (float, float | None)
    }
    found: list[tuple[str, Recipe]] = [("", recipe)]
    for name, values in swept.items():
        found = [
            (_named(label, name, value), _with(one, name, value))
            for label, one in found
            for value in _distinct(name, values)
        ]
    return tuple(found)


def _distinct(name: str, values: Sequence[object]) -> Sequence[object]:
    if not values or len(set(values)) != len(values):
        raise RecipeError(f"parameters.{name} sweeps over {list(values)}", advice="give at least one number, each once")
    return values


def _named(label: str, name: str, value: object) -> str:
    short = f"{value:g}" if isinstance(value, float | int) else str(value)
    part = f"{name}-{short if short == str(value) or float(short) == value else value}"
    return f"{label}_{part}" if label else part


def _with(recipe: Recipe, name: str, value: Any) -> Recipe:
    return recipe.model_copy(update={"parameters": {**recipe.parameters, name: value}})
