"""Do a recipe's models belong together? Told from a few blocks and the tokenizers' files before any work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from alignmend.algebra.operations import common_rows
from alignmend.algebra.values import Checkpoint
from alignmend.algebra.walks import adapters_of
from alignmend.errors import FileFormatError, MismatchError, NonFiniteError
from alignmend.execution.kinship import kinship
from alignmend.execution.moment_checks import moments_of, of_another_model
from alignmend.io.manifest import Vectors, read_manifest
from alignmend.io.seen import tensors_as
from alignmend.io.tokenizers import compare_tokenizers, listed

PARENTS = ("aligned", "base", "target")
STRANGERS = 0.3
"""Cosine of two models' weights below which one cannot stem from the other: a refusal."""
DISTANT = 0.9
"""Below this a warning: fine-tuning hardly turns weights so far."""
TURNED = 0.8
"""Safety vectors that a fine-tune may have moved against; one that began at the unaligned model has moved one whole."""
LONGER = 10.0
"""How many times longer one vector of a realignment may be than the other, until a wrong parent is likelier."""

Models = Mapping[str, Checkpoint]


@dataclass(frozen=True)
class Relations:
    """What to know of how a recipe's models relate, and what was measured of their vectors."""

    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    vectors: Vectors | None = None


def relations(
    models: Models,
    result: Checkpoint | None = None,
    *,
    allow_unrelated: bool = False,
    exact: bool = False,
    threads: int | None = None,
) -> Relations:
    """How `models` (by role) relate to the aligned one, and where there are all roles of a realignment, its vectors.

    `MismatchError` where a model's weights or token ids have nothing to do with the parent's, or moments that `result`
    is weighed by were not taken in the fine-tuned model, unless `allow_unrelated`. Vectors are estimated from a sample,
    or `exact`, which reads everything once more.
    """
    refused, notes = readings(models)
    warnings: list[str] = []
    for is_refusal, text in _of_weights(models):
        (refused if is_refusal else warnings).append(text)
    if refused and not allow_unrelated:
        raise MismatchError(
            f"{'; '.join(refused)}", advice="give the right parent, or --allow-unrelated to go on all the same"
        )
    foreign = list(_of_moments(models, result))
    if foreign and not allow_unrelated:
        raise MismatchError(f"{'; '.join(foreign)}, or --allow-unrelated to go on all the same")
    warnings += foreign
    found = _vectors(models, exact=exact, threads=threads)
    if found is not None:
        warnings += _of_sizes(found)
        notes.append(describe_vectors(found))
    return Relations((*refused, *warnings), tuple(notes), found)


def readings(models: Models) -> tuple[list[str], list[str]]:
    """What the files beside the weights say: reasons to refuse, and notes. Reads no weight, needs no torch."""
    parent = next((name for name in PARENTS if name in models), None)
    refused: list[str] = []
    notes = list(_of_making(models))
    for name in models:
        if parent is not None and name != parent:
            for is_refusal, text in _of_tokens(name, models[name], parent, models[parent]):
                (refused if is_refusal else notes).append(text)
    return refused, notes


def describe_vectors(found: Vectors) -> str:
    """One line: lengths and angle, which say what a coefficient means."""
    over = (
        f"over all {found.weights:,} weights"
        if found.sampled == found.weights
        else f"estimated from {found.sampled:,} of {found.weights:,} weights"
    )
    return (
        f"task delta: norm {found.task_norm:.4g}; safety vector: norm {found.safety_norm:.4g}, "
        f"{found.safety_norm / found.task_norm:.2f} of it, cosine {found.cosine:.3f}: the fine-tune moved by "
        f"{round(_along(found), 2) + 0.0:.2f} safety vectors along it ({over}){_candidate(found)}"
    )


def _candidate(found: Vectors) -> str:
    """The closed form's one number, where the fine-tune moved against the safety vector."""
    undone = -_along(found)
    return f"; a coefficient of {undone:.2f} takes that back, a first candidate" if undone >= 0.005 else ""


def _along(found: Vectors) -> float:
    """<task, safety> / |safety|^2; minus lambda, where a fine-tune is a safe one minus lambda safety vectors."""
    return found.cosine * found.task_norm / found.safety_norm


def _of_weights(models: Models) -> Iterator[tuple[bool, str]]:
    """Full checkpoints only: what is an adapter on the parent stems from it."""
    role = next((name for name in PARENTS if name in models), None)
    if role is None or models[role].change is not None:
        return
    parent = models[role].root.folder
    for name, model in models.items():
        found = None
        if model.change is None and name != role:
            found = kinship(tensors_as(model.root.folder, parent), parent.tensors)
        if found is not None and found.cosine < DISTANT:
            yield (
                found.cosine < STRANGERS,
                f"{name} ({model.root.folder.location}) does not look like a descendant of {role} "
                f"({parent.location}): the cosine of their weights is {found.cosine:.2f} and their distance "
                f"{found.distance:.2f} of the norm, over {found.sampled:,} sampled weights",
            )


def _of_moments(models: Models, result: Checkpoint | None) -> Iterator[str]:
    """Moments must be of the model that is changed."""
    if result is None or "finetuned" not in models:
        return
    for file in moments_of(result):
        if (problem := of_another_model(file, models["finetuned"])) is not None:
            yield problem


def _vectors(models: Models, *, exact: bool, threads: int | None) -> Vectors | None:
    if not {"finetuned", "aligned", "unaligned"} <= models.keys():
        return None
    from alignmend.execution.vectors import exact_vectors, sampled_vectors

    finetuned, aligned = models["finetuned"], models["aligned"]
    task, safety = common_rows(finetuned - aligned), common_rows(aligned - models["unaligned"])
    try:
        if exact:
            return exact_vectors(task, safety, finetuned, threads=threads)
        return sampled_vectors(task, safety, finetuned)
    except (MismatchError, NonFiniteError):  # told better by what computes the result, where it stands in its way
        return None


def _of_sizes(found: Vectors) -> Iterator[str]:
    """What lengths and angle say against the models' roles."""
    ratio = found.safety_norm / found.task_norm
    if _along(found) < -TURNED:
        yield (
            f"finetuned lies nearer to unaligned than to aligned, {-_along(found):.2f} of the way: was it fine-tuned "
            "from unaligned? Give as aligned the model that it was fine-tuned from, and an unaligned one made from it"
        )
    if ratio < 1 / LONGER:
        yield (
            f"the task delta is {1 / ratio:.0f} times as long as the safety vector: make sure that finetuned was "
            "fine-tuned from aligned itself, not from another release of it"
        )
    if ratio > LONGER:
        yield (
            f"the safety vector is {ratio:.0f} times as long as the task delta: make sure that unaligned was made from "
            "aligned by a short training, and sweep from small coefficients"
        )


def _of_tokens(name: str, model: Checkpoint, role: str, parent: Checkpoint) -> Iterator[tuple[bool, str]]:
    found = compare_tokenizers(_folder(parent), _folder(model))
    if found is None:
        return
    if found.moved:
        yield True, f"{name} and {role} give other ids to the same tokens ({listed(found.moved)})"
    if found.added:
        yield False, f"{name} has tokens that {role} lacks: {listed(found.added)}"
    if found.missing:
        yield False, f"{name} lacks tokens that {role} has: {listed(found.missing)}"
    if found.files:
        yield False, f"{name} and {role} have different {' and '.join(found.files)}: make sure that token ids agree"
    if found.template:
        yield False, f"{name} and {role} have different chat templates; the output keeps the target's"


def _of_making(models: Models) -> Iterator[str]:
    """Of what was trained here, how."""
    for name, model in models.items():
        try:
            manifest = read_manifest(_folder(model))
        except FileFormatError:
            continue
        if manifest.private:
            yield f"{name} was made by alignmend: {manifest.expression}"


def _folder(model: Checkpoint) -> Path:
    """Where a model's own files are: of an adapter, the adapter's folder."""
    adapters = () if model.change is None else adapters_of(model.change)
    return adapters[0].adapter.adapter.path if len(adapters) == 1 else model.root.folder.path
