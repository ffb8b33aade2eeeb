"""The proof: the written checkpoint is loaded again and answers prompts that the search never saw."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignmend.evaluation.generation import TransformersBackend
from alignmend.evaluation.judges import Judge
from alignmend.evaluation.metrics import PairedDifference, is_attack_success, mcnemar
from alignmend.evaluation.records import JudgementRow
from alignmend.evaluation.run import Evaluation, evaluate_folder, grouped_metrics
from alignmend.evaluation.suites import Suite
from alignmend.evaluation.utility.estimates import Estimate, estimate
from alignmend.restore.measuring import Anchor, Pair, likelihoods
from alignmend.restore.request import Limits
from alignmend.restore.scoring import Worth, accuracies, worth_of
from alignmend.restore.suites import Split, by_kind

FINETUNED, RESTORED = "finetuned", "restored"
Told = Callable[[int, int], None]


@dataclass(frozen=True)
class Side:
    """One model on the report prompts; `kept` is how it finds the texts that utility is measured on."""

    evaluation: Evaluation
    kept: tuple[float, ...]


@dataclass(frozen=True)
class Proof:
    """Fine-tuned and restored, side by side."""

    finetuned: Side
    restored: Side
    before: Worth
    after: Worth
    broken: tuple[str, ...]
    """Limits that the restored model does not keep on the report prompts."""
    paired: Mapping[str, PairedDifference]
    kept_name: str
    tokens: tuple[int, ...]

    @property
    def safer(self) -> bool:
        """Whether fewer requests succeed than before; noise is no refusal."""
        return self.after.safer_than(self.before)

    @property
    def utility(self) -> Estimate:
        """Of the kept texts: exp of the mean change of a token's log-likelihood, texts drawn for the interval."""
        changes = [after - before for after, before in zip(self.restored.kept, self.finetuned.kept, strict=True)]
        found = estimate(changes, self.tokens)
        return Estimate(math.exp(found.value), math.exp(found.low), math.exp(found.high), found.n)

    @property
    def drift(self) -> float:
        """Nats by which a token of the kept texts has become less likely; below 0 where it is likelier."""
        return -math.log(self.utility.value) if self.tokens else 0.0


@dataclass(frozen=True)
class Asked:
    """What both sides are asked, and where the records go."""

    split: Split
    judge: Judge
    folder: Path
    told: Told

    def side(self, name: str, backend: TransformersBackend, texts: Sequence[Pair]) -> Side:
        """Ask one model; what an earlier run has answered is kept."""
        found = evaluate_folder(
            backend, self.split.report, self.judge, self.folder / name, used=self.split.search, progress=self.told
        )
        return Side(found, tuple(one.total for one in likelihoods(backend, texts)))


def prove(sides: tuple[Side, Side], asked: Asked, limits: Limits, kept: Anchor, kept_name: str) -> Proof:
    """Compare the fine-tuned and the restored side."""
    before, after = sides
    kinds = by_kind(asked.split.report)
    known = accuracies(before.evaluation.judgements)
    start = worth_of(before.evaluation.judgements, kinds, before=known, kept={kept_name: 1.0}, drift=0.0)
    draft = Proof(before, after, start, start, (), _paired(before.evaluation, after.evaluation), kept_name, kept.tokens)
    texts = {kept_name: draft.utility.value} if kept.tokens else {}
    end = worth_of(after.evaluation.judgements, kinds, before=known, kept=texts, drift=draft.drift)
    return replace(draft, after=end, broken=end.broken(limits, start))


def _paired(before: Evaluation, after: Evaluation) -> dict[str, PairedDifference]:
    """Attack success before and after on the same prompts."""
    sides = [_attacks(one.judgements) for one in (before, after)]
    return {f"attack success, {FINETUNED} against {RESTORED}": mcnemar(*sides)}


def _attacks(rows: Sequence[JudgementRow]) -> list[bool]:
    return [is_attack_success(row) for row in rows if row.expected == "refuse"]


def metrics_of_sides(proof: Proof) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Model -> suite -> metric, with the utility of the kept texts as a suite of its own."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {
        FINETUNED: dict(proof.finetuned.evaluation.metrics),
        RESTORED: dict(proof.restored.evaluation.metrics),
    }
    if proof.tokens:
        count = len(proof.tokens)
        found[FINETUNED][proof.kept_name] = {"utility": Estimate(1.0, 1.0, 1.0, count)}
        found[RESTORED][proof.kept_name] = {"utility": proof.utility}
    return found


def groups_of_sides(proof: Proof, suites: Sequence[Suite]) -> dict[str, Any]:
    """Rates by category for both."""
    return {
        FINETUNED: grouped_metrics(proof.finetuned.evaluation, suites),
        RESTORED: grouped_metrics(proof.restored.evaluation, suites),
    }
