"""Words for models, suites and metrics, and the columns of the main table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Models = Mapping[str, Mapping[str, Mapping[str, Any]]]

_ROLES = {
    "base": "Base",
    "aligned": "Aligned",
    "unaligned": "Unaligned",
    "finetuned": "Fine-tuned",
    "edited": "Edited",
    "restored": "Restored",
    "control": "Random vector",
}
_VARIANTS = {"full": "full", "lora": "LoRA"}

_METRICS = {
    "attack_success_rate": "attack success",
    "attack_success_rate_at_most": "attack success, had all unclear been harmful",
    "coherent_attack_success_rate": "attack success among coherent",
    "macro_attack_success_rate": "attack success, mean of categories",
    "judged_attack_success_rate": "attack success among judged",
    "judged_coverage": "coverage of the judge",
    "refusal_rate": "refusal",
    "partial_refusal_rate": "partial refusal",
    "full_compliance_rate": "full compliance",
    "mean_harm_score": "mean harm score",
    "over_refusal_rate": "over-refusal",
    "macro_over_refusal_rate": "over-refusal, mean of categories",
    "full_over_refusal_rate": "full over-refusal",
    "accuracy": "accuracy",
    "incoherent_rate": "incoherent",
    "unclear_rate": "unclear",
    "unparsed_rate": "judgement not readable",
    "empty_rate": "empty",
    "truncated_rate": "cut off at the token limit",
    "withheld_rate": "withheld by the server",
    "kl_first": "KL, first token",
    "kl_mean": "KL, all tokens",
    "perplexity": "perplexity",
    "reference_perplexity": "perplexity of the reference",
    "utility": "likelihood kept, of the fine-tune's",
}
_HEADLINE_METRICS = ("attack_success_rate", "over_refusal_rate", "accuracy", "incoherent_rate")
_HIGHER_IS_BETTER = {"accuracy", "refusal_rate", "judged_coverage"}


@dataclass(frozen=True)
class Column:
    """One column of the main table: a metric of a suite. `tone` names its colour."""

    suite: str
    metric: str
    label: str
    tone: str

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger number is good news."""
        return self.metric in _HIGHER_IS_BETTER

    def rate(self, suites: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
        """The rate of this column in `suites` (suite -> metric -> rate), or `None`."""
        rate: Mapping[str, Any] | None = suites.get(self.suite, {}).get(self.metric)
        return rate


ATTACK = Column("harmful", "attack_success_rate", "Attack success", "attack")
UNSEEN = Column("harmful_unseen", "attack_success_rate", "Attack, unseen kinds", "attack")
INCOHERENT = Column("all", "incoherent_rate", "Incoherent", "noise")
OVER_REFUSAL = Column("borderline", "over_refusal_rate", "Over-refusal", "over")
BENIGN = Column("benign", "accuracy", "Benign accuracy", "benign")
TASK = Column("task", "accuracy", "Task accuracy", "task")
STANDARD = (ATTACK, UNSEEN, INCOHERENT, OVER_REFUSAL, BENIGN, TASK)
_TONES = {"attack_success_rate": "attack", "over_refusal_rate": "over", "accuracy": "task"}


def columns(models: Models) -> tuple[Column, ...]:
    """The standard columns that some model has, then the headline metrics of every suite without a standard
    one.
    """
    standard = [column for column in STANDARD if any(column.rate(suites) for suites in models.values())]
    covered = {column.suite for column in standard} | {"all"}
    others = dict.fromkeys(suite for suites in models.values() for suite in suites if suite not in covered)
    candidates = [
        Column(suite, metric, f"{suite}: {metric_label(metric)}", _TONES.get(metric, "noise"))
        for suite in others
        for metric in _HEADLINE_METRICS
    ]
    return (*standard, *(c for c in candidates if any(c.rate(suites) for suites in models.values())))


def metric_label(metric: str) -> str:
    """A metric's name in words."""
    return _METRICS.get(metric, metric.replace("_", " "))


def split_name(model: str) -> tuple[str, str]:
    """Role and variant of a model's name: `restored-lora` is (`restored`, `lora`), others are (name, ``)."""
    role, _, variant = model.replace("_", "-").partition("-")
    return (role, variant) if role in _ROLES else (model, "")


def model_label(model: str, models: Models) -> str:
    """A model's name in words, its variant added where several models share the role."""
    role, variant = split_name(model)
    if role not in _ROLES:
        return model
    alone = sum(split_name(other)[0] == role for other in models) == 1
    return _ROLES[role] if alone and not variant else f"{_ROLES[role]} ({variant_label(variant or 'full')})"


def variant_label(variant: str) -> str:
    """`lora` as `LoRA`."""
    return _VARIANTS.get(variant, variant)


def letter(index: int) -> str:
    """0 as `A`, 25 as `Z`, 26 as `AA`: what a model of a report is called where its name is too long."""
    rest, last = divmod(index, 26)
    return (letter(rest - 1) if rest else "") + chr(ord("A") + last)
