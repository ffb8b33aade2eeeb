"""Shapes before bytes: what an expression means for every tensor of its target, or every reason why it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from alignmend.algebra import programs as program
from alignmend.algebra.domains import ranked_names
from alignmend.algebra.nodes import Source, Top
from alignmend.algebra.resolver import Resolver
from alignmend.algebra.seeing import scores_seen_by
from alignmend.algebra.thresholds import Findings
from alignmend.algebra.values import Checkpoint, Delta
from alignmend.algebra.walks import ranked_delta
from alignmend.io.tensors import TensorEntry


@dataclass(frozen=True)
class TensorPlan:
    """One output tensor: the target's entry, and the program of what is added to it (None: copied unchanged)."""

    entry: TensorEntry
    change: program.Program | None
    stream: str
    """The name under which randomness is drawn: tied copies of one weight share it."""

    @property
    def name(self) -> str:
        """The tensor's name."""
        return self.entry.name


@dataclass(frozen=True)
class Structure:
    """An expression resolved against the headers of its operands."""

    tensors: tuple[TensorPlan, ...]
    """In natural order of their names."""
    notes: tuple[str, ...]


def resolve(checkpoint: Checkpoint, findings: Findings | None = None) -> Structure:
    """Resolve a checkpoint expression, tensor by tensor.

    Without `findings`, rankings and rules stand open (cuts are zero, coefficients one): enough to check and to plan.
    Raises `MismatchError` that lists every missing, extra, differently shaped or unfit tensor.
    """
    resolver = Resolver(checkpoint.root, checkpoint.change, findings)
    plans = [
        TensorPlan(entry, resolver.change(entry.name), resolver.canonical(entry.name))
        for entry in resolver.target_entries()
    ]
    resolver.problems.raise_if_any()
    return Structure(tuple(plans), tuple(dict.fromkeys((*resolver.notes, *resolver.unscored()))))


def resolve_delta(
    delta: Delta, target: Source, findings: Findings | None = None
) -> Mapping[str, program.Program | None]:
    """The program of `delta` for every tensor of `target`."""
    resolver = Resolver(target, delta.node, findings)
    changes = {entry.name: resolver.change(entry.name) for entry in resolver.target_entries()}
    resolver.problems.raise_if_any()
    return changes


@dataclass(frozen=True)
class Ranked:
    """One tensor of a ranking's population."""

    entry: TensorEntry
    score: program.Program | None
    """None where every score is zero."""


def population(ranking: Top, target: Source, findings: Findings | None = None) -> tuple[Ranked, ...]:
    """The tensors that a ranking is taken over, in ranking order, with the program of their scores."""
    score = scores_seen_by(target, ranking.score)
    resolver = Resolver(target, ranked_delta(score), findings)
    names = ranked_names(score, target.folder)
    members = [
        Ranked(entry, resolver.score(score, entry, common=False))
        for entry in resolver.target_entries()
        if entry.name in names
    ]
    resolver.problems.raise_if_any()
    return tuple(members)
