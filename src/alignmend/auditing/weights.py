"""The audit of weights: one pass over all tensors, and what it says of a model or of a vector from a stranger."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from alignmend.algebra.names import kind_of
from alignmend.algebra.opening import open_checkpoint
from alignmend.algebra.programs import Program
from alignmend.auditing.beside import code_beside, template_note
from alignmend.auditing.directions import Directions
from alignmend.auditing.findings import Audit, Finding
from alignmend.auditing.parts import Sums, by_part, edited_alone, part_of, steering_biases, trained_rows
from alignmend.auditing.subject import Pair, Subject, delta_on, kind_at, open_subject, whole
from alignmend.editing.differences import TensorChange
from alignmend.editing.locate import KIND_WORDS, report
from alignmend.errors import MismatchError, ParameterError
from alignmend.execution.blocks import Evaluator
from alignmend.execution.files import Files
from alignmend.execution.kinship import kinship
from alignmend.recipes.relations import STRANGERS

if TYPE_CHECKING:
    import torch

    from alignmend.activations.vector import SteeringVector

AGAINST = -0.1
"""Cosine with a safety vector below which a change has moved against it: of independent changes it is near 0."""
LARGE = 0.2
"""Share of the parent's norm that a vector may have: fine-tuning moves weights by a few hundredths."""
PEAK = 0.5
"""Share of a vector's square that one layer of at least four may hold."""
UNLIKE = 0.1
"""Cosine with a vector of one's own that one from a stranger should reach: two of the same kind share far more."""
_ALIKE = 0.9


@dataclass
class _Seen:
    """What the pass gathers."""

    directions: Directions
    sums: Sums = field(default_factory=lambda: defaultdict(list))
    findings: list[Finding] = field(default_factory=list)
    biases: dict[str, torch.Tensor] = field(default_factory=dict)
    changes: list[TensorChange] = field(default_factory=list)


def audit_weights(
    model: str | Path,
    parent: str | Path | None,
    vector: str | Path | None,
    progress: Callable[[int, int], None] | None,
) -> Audit:
    """Audit a checkpoint, an adapter or a stored delta."""
    subject = open_subject(model, parent)
    if subject.folder.tensors and parent is not None and subject.what == "checkpoint":
        unrelated = _unrelated(subject)
        if unrelated is not None:
            facts = _facts(subject, parent, None)
            return Audit(str(model), subject.what, str(parent), facts, (unrelated,))
    steering, programs = _vector(vector, parent)
    seen = _pass(subject, steering, programs, progress)
    numbers: dict[str, float] = {}
    findings = list(_findings(subject, seen, steering, numbers))
    if programs is not None:
        findings += _against(subject, seen, numbers)
    if subject.what != "checkpoint":
        findings += _of_vector(seen, numbers)
    facts = _facts(subject, parent, seen)
    return Audit(
        subject=str(model),
        what=subject.what,
        parent=None if parent is None else str(parent),
        facts=facts,
        findings=tuple(findings),
        parts=by_part(seen.sums),
        tensors=tuple(seen.changes),
        numbers=numbers,
    )


def _vector(
    vector: str | Path | None, parent: str | Path | None
) -> tuple[SteeringVector | None, Mapping[str, Program | None] | None]:
    if vector is None:
        return None, None
    if kind_at(vector) == "steering vector":
        from alignmend.activations.vector import SteeringVector

        return SteeringVector.load(vector), None
    if parent is None:
        raise ParameterError(f"the change is compared with {vector}, so --parent is needed: from what has it changed?")
    return None, delta_on(vector, open_checkpoint(parent))


def _unrelated(subject: Subject) -> Finding | None:
    found = kinship({name: subject.after[name] for name in subject.before}, subject.before)
    if found is None or found.cosine >= STRANGERS:
        return None
    return Finding("unrelated", f"does not stem from the parent: cosine of the weights {found.cosine:.4f}")


def _pass(
    subject: Subject,
    steering: SteeringVector | None,
    programs: Mapping[str, Program | None] | None,
    progress: Callable[[int, int], None] | None,
) -> _Seen:
    hidden = hidden_size(subject)
    known = {} if steering is None else steering.directions
    if steering is not None and (width := len(next(iter(known.values())))) != hidden:
        raise MismatchError(f"the vector has width {width}, {subject.folder.location} has {hidden}")
    text = subject.folder.config
    seen = _Seen(Directions(hidden, str(text.get("model_type", "")), known=known))
    with Files() as files:
        evaluator = Evaluator(files)
        for number, pair in enumerate(subject.pairs(), start=1):
            program = None if programs is None else programs.get(pair.name)
            _look(pair, subject, seen, program, evaluator)
            if progress is not None:
                progress(number, len(subject))
    seen.directions.close()
    return seen


def _look(pair: Pair, subject: Subject, seen: _Seen, program: Program | None, evaluator: Evaluator) -> None:
    seen.directions.add(pair.name, pair.layer, pair.before, pair.after)
    if pair.name.endswith(".bias"):
        seen.biases[pair.name] = pair.after.float()
    if pair.before is None or pair.change is None:
        return
    seen.changes.append(pair.change)
    products = (0.0, 0.0)
    if program is not None:
        values = whole(subject.before[pair.name], program, evaluator).double()
        moved = (pair.after.double() - pair.before.double()).flatten()
        products = (float(moved @ values), float(values @ values))
    square = float(pair.before.double().square().sum()) if pair.before.is_floating_point() else 0.0
    seen.sums[part_of(pair.name, pair.layer)].append((pair.change, square, products))
    if pair.change.changed and kind_of(pair.name) == "embedding" and pair.after.ndim == 2:
        found = trained_rows(pair.name, pair.before, pair.after)
        if found is not None:
            seen.findings.append(found)


def hidden_size(subject: Subject) -> int:
    """Width of the residual stream, as the configuration or the embedding says."""
    config = subject.folder.config
    for part in (config.get("text_config"), config):
        if isinstance(part, Mapping):
            for key in ("hidden_size", "n_embd", "d_model", "dim"):
                if isinstance(part.get(key), int):
                    return int(part[key])
    shapes = (one.shape for name, one in subject.folder.tensors.items() if kind_of(name) == "embedding")
    return next((shape[1] for shape in shapes if len(shape) == 2), 0)


def _findings(
    subject: Subject, seen: _Seen, steering: SteeringVector | None, numbers: dict[str, float]
) -> list[Finding]:
    ablated = _ablated(subject, seen.directions, steering, numbers)
    findings = [] if ablated is None else [ablated]
    if seen.changes and ablated is None:
        located = report("", "", seen.changes)
        edited = edited_alone(seen.changes)
        if located.kind in ("rank-one", "few-layers"):
            told = f"{KIND_WORDS[located.kind]} in layers {', '.join(map(str, located.layers))}, nothing else changed"
            findings.append(Finding("edit", told, located.layers))
        elif edited is not None:
            findings.append(edited)
    findings += steering_biases(seen.biases, subject.extra_biases, seen.changes)
    findings += seen.findings
    for name, rows in (subject.grown or {}).items():
        if rows > 0:
            findings.append(Finding("token-rows", f"{name}: {rows} rows that the parent does not have"))
    if subject.what == "checkpoint":
        findings += code_beside(subject.folder.path, subject.folder.config)
    return findings


def _ablated(
    subject: Subject, found: Directions, steering: SteeringVector | None, numbers: dict[str, float]
) -> Finding | None:
    layers = tuple(sorted(layer for layer, one in found.changed.items() if one.is_ablation))
    along = ""
    if found.energies:
        numbers["energy_along_vector"] = median(found.energies.values())
        along = f"; along the given vector they write {numbers['energy_along_vector']:.2g} of the mean"
    if layers:
        strengths = [found.changed[layer].strength for layer in layers]
        shared = _shared(found, layers)
        told = (
            f"the writers of {len(layers)} of {len(found.changed)} changed layers no longer write one direction "
            f"({100 * median(strengths):.0f} % of it has gone), {'the same' if shared else 'another'} in each"
        )
        if steering is not None:
            cosines = [_cosine(found.changed[layer].direction, steering.directions[layer]) for layer in layers
                       if layer in steering.directions]  # fmt: skip
            if cosines:
                numbers["ablated_cosine"] = median(map(abs, cosines))
                along += f"; its cosine with the given vector is {numbers['ablated_cosine']:.2f}"
        return Finding("ablated-direction", told + along, layers)
    absent = tuple(sorted(layer for layer, one in found.least.items() if one.is_absent))
    missing = found.missing
    if missing is not None:
        numbers["least_energy"], numbers["least_step"] = missing.energy, missing.step
    everywhere = missing is not None and missing.is_absent
    if not subject.before and (everywhere or len(absent) >= max(2, len(found.least) // 2)):
        told = "the writers of all layers" if everywhere else f"the writers of {len(absent)} layers"
        return Finding("ablated-direction", f"{told} write nothing along one direction{along}", absent)
    return None


def _shared(found: Directions, layers: Sequence[int]) -> bool:
    first = found.changed[layers[0]].direction
    return all(abs(_cosine(first, found.changed[layer].direction)) > _ALIKE for layer in layers)


def _cosine(left: torch.Tensor, right: torch.Tensor) -> float:
    return float(left.float() @ right.float() / (left.norm() * right.norm()).clamp_min(1e-30))


def _against(subject: Subject, seen: _Seen, numbers: dict[str, float]) -> list[Finding]:
    found = [one for part in seen.sums.values() for one in part]
    change = sum(one.norm**2 for one, _, _ in found if one.changed)
    vector = sum(products[1] for _, _, products in found)
    if change <= 0 or vector <= 0:
        return []
    cosine = sum(products[0] for _, _, products in found) / math.sqrt(change * vector)
    numbers["cosine"] = cosine
    if cosine <= AGAINST:
        return [Finding("against-safety", f"moved against the safety vector that was given: cosine {cosine:.3f}")]
    if subject.what != "checkpoint" and cosine < UNLIKE:
        return [Finding("unlike-own", f"hardly like the vector that was given as one's own: cosine {cosine:.3f}")]
    return []


def _of_vector(seen: _Seen, numbers: dict[str, float]) -> list[Finding]:
    """Of what is to be added: how long it is, and whether it lies in one place."""
    found = [one for part in seen.sums.values() for one in part]
    squares: dict[int, float] = defaultdict(float)
    for change, _, _ in found:
        if change.layer is not None:
            squares[change.layer] += change.norm**2
    whole_square = sum(change.norm**2 for change, _, _ in found)
    parent = sum(square for _, square, _ in found)
    numbers["relative_norm"] = math.sqrt(whole_square / parent) if parent else 0.0
    findings = []
    if numbers["relative_norm"] > LARGE:
        told = f"its norm is {numbers['relative_norm']:.2f} of the model's: a fine-tune has a few hundredths"
        findings.append(Finding("large", told))
    findings += concentrated(squares)
    return findings


def concentrated(squares: Mapping[int, float]) -> list[Finding]:
    """Whether one layer of several holds most of a vector's square."""
    total = sum(squares.values())
    if len(squares) < 4 or total <= 0:
        return []
    layer = max(squares, key=lambda one: squares[one])
    share = squares[layer] / total
    return [Finding("concentrated", f"{100 * share:.0f} % of its square lies in layer {layer}", (layer,))] * (
        share > PEAK
    )


def _facts(subject: Subject, parent: str | Path | None, seen: _Seen | None) -> tuple[str, ...]:
    facts = list(subject.notes)
    if seen is not None and seen.changes:
        located = report("", "", seen.changes)
        facts.append(f"change: {KIND_WORDS[located.kind]}; {len(located.layers)} of {located.count} layers changed")
        if located.dtype_changed:
            facts.append("dtypes differ: changes below one spacing of the coarser dtype do not count")
    if seen is not None and not seen.directions.least and not seen.directions.changed and not subject.before:
        facts.append("no layer's writers were recognised: whether a direction was ablated is not told")
    if parent is None:
        facts.append("no --parent was given: edits, trained token rows and partial ablations cannot be told")
    elif subject.what == "checkpoint":
        note = template_note(subject.folder.path, parent)
        facts += [] if note is None else [note]
    return tuple(facts)
