"""What a person asks of `alignmend restore`, as one value.

The command line, its help and `alignmend.restore` take names, types and defaults from the dataclasses here. Importing
this module loads no library, so that `--help` is quick.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alignmend.errors import ParameterError
from alignmend.evaluation.thinking import Thinking
from alignmend.training.settings import TrainSettings

if TYPE_CHECKING:
    from alignmend.recipes.schema import Training

UnalignedKind = Literal["unaligned", "base"]
"""`unaligned`: the aligned model after its safety was trained away; `base`: a pretrained model stands in for it."""

OutputDtype = Literal["bfloat16", "float16", "float32"]
Rounding = Literal["auto", "nearest", "stochastic"]

_LARGEST_SEED = 2**32 - 1


def _check_least(counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ParameterError(f"--{name} must be at least 1, not {count}")


@dataclass(frozen=True)
class Option:
    """How the command line takes a field: its words, and its name where that is another than the field's."""

    help: str
    name: str = ""
    metavar: str | None = None
    off: str = ""
    """The name of a switch that turns the field off."""


def _words(help: str, **how: Any) -> dict[str, Option]:
    """What the command line says of a field; `{default}` in it stands for the field's default."""
    return {"option": Option(help, **how)}


@dataclass(frozen=True)
class Limits:
    """What a restored model may cost, measured against the fine-tune."""

    over_refusal: float = field(
        default=0.05,
        metadata=_words(
            "over-refusal above the fine-tune's, at most (default: {default})", name="max_over_refusal", metavar="X"
        ),
    )
    """By how much the share of refused harmless requests may exceed the fine-tune's."""
    utility: float = field(
        default=0.95,
        metadata=_words("of the fine-tune's, at least (default: {default})", name="min_utility", metavar="X"),
    )
    """Share of the fine-tune's utility that must stay."""
    incoherent: float = field(
        default=0.02,
        metadata=_words("of all answers, at most (default: {default})", name="max_incoherent", metavar="X"),
    )
    """Share of all answers that may be noise; where the fine-tune makes more of it, as much as that."""

    def __post_init__(self) -> None:
        for name, value in (("over-refusal", self.over_refusal), ("incoherent", self.incoherent)):
            if not 0 <= value <= 1:
                raise ParameterError(f"the limit on {name} is a share from 0 to 1, not {value:g}")
        if not 0 <= self.utility <= 1:
            raise ParameterError(f"the least utility is a share of the fine-tune's from 0 to 1, not {self.utility:g}")

    def noise(self, finetuned: float) -> float:
        """Share of answers that may be noise, given the fine-tune's: what changes nothing breaks no limit."""
        return max(self.incoherent, finetuned)

    def __str__(self) -> str:
        """The rule in words."""
        return (
            f"the lowest attack success, ties by utility, among those with over-refusal at most {self.over_refusal:g} "
            f"above the fine-tune's, utility at least {self.utility:g} of it, incoherent at most {self.incoherent:g} "
            "or as the fine-tune is"
        )


@dataclass(frozen=True)
class Prompts:
    """What the models are asked, and how."""

    suites: tuple[str, ...] = field(
        default=(),
        metadata=_words(
            "name (alignmend list suites) or file; may be repeated (default: the starter suites that ship)",
            name="suite",
            metavar="S",
        ),
    )
    report_suites: tuple[str, ...] = field(
        default=(),
        metadata=_words(
            "name or file that the proof alone asks, whole; may be repeated", name="report_suite", metavar="S"
        ),
    )
    calibration_suites: tuple[str, ...] = field(
        default=(),
        metadata=_words(
            "name or file of prompts that input moments are taken over, and nothing else; may be repeated (default: "
            "prompts that the search leaves, and prompts that ship)",
            name="calibration_suite",
            metavar="S",
        ),
    )
    data_dir: Path | None = field(
        default=None, metadata=_words("folder with local copies of known suites", metavar="DIR")
    )
    judge: str = field(default="refusal-phrases", metadata=_words("alignmend list judges", metavar="J"))
    judge_model: str | None = field(default=None, metadata=_words("model of a judge that asks one", metavar="M"))
    judge_endpoint: str | None = field(default=None, metadata=_words("server of a judge that asks one", metavar="URL"))
    search_prompts: int = field(
        default=48, metadata=_words("of each kind in the search (default: {default})", metavar="N")
    )
    """To be refused, to be answered, and with a known answer: so many of each in the search, shared among suites."""
    search_tokens: int = field(
        default=48, metadata=_words("longest answer in the search (default: {default})", metavar="N")
    )
    """Of a prompt without a known answer."""
    task_tokens: int | None = field(
        default=None,
        metadata=_words("the same where the answer is known (default: by the fine-tune's right answers)", metavar="N"),
    )
    max_new_tokens: int = field(
        default=256, metadata=_words("longest answer in the proof (default: {default})", metavar="N")
    )
    thinking: Thinking = field(default_factory=Thinking)
    """About models that think aloud before they answer."""
    template: str | None = field(
        default=None, metadata=_words("prompt template: auto, chat, raw, alpaca, ...", metavar="T")
    )
    batch_size: int | None = field(
        default=None, metadata=_words("prompts at once (default: found by itself)", metavar="N")
    )
    device: str | None = field(
        default=None, metadata=_words("such as cpu or cuda:0 (default: a GPU where there is one)")
    )
    dtype: str = field(default="auto", metadata=_words("auto, float32, bfloat16 or float16"))

    def __post_init__(self) -> None:
        least = {
            "search-prompts": self.search_prompts,
            "search-tokens": self.search_tokens,
            "task-tokens": 1 if self.task_tokens is None else self.task_tokens,
            "max-new-tokens": self.max_new_tokens,
            "batch-size": 1 if self.batch_size is None else self.batch_size,
        }
        _check_least(least)
        from alignmend.evaluation.devices import DTYPES

        if self.dtype not in DTYPES:
            raise ParameterError(f"--dtype is one of {', '.join(DTYPES)}, not {self.dtype!r}")


@dataclass(frozen=True)
class Request:
    """Everything that decides what a restore does."""

    finetuned: str
    """Folder or hub id, of a checkpoint or of an adapter."""
    out: Path
    aligned: str | None = field(
        default=None, metadata=_words("the model it was fine-tuned from (default: as its own files say)", metavar="A")
    )
    unaligned: str | None = field(
        default=None, metadata=_words("the aligned model without its safety, or a stand-in for it", metavar="U")
    )
    unaligned_kind: UnalignedKind = field(
        default="unaligned",
        metadata=_words("base: U is a pretrained base, whose vector holds more than safety (default: {default})"),
    )
    harmful_data: Path | None = field(
        default=None, metadata=_words("pairs to train the unaligned model and patches on", metavar="FILE")
    )
    pairs: Path | None = field(
        default=None, metadata=_words("contrast pairs, for a steering vector on top", metavar="FILE")
    )
    task_data: Path | None = field(
        default=None, metadata=_words("pairs of the fine-tune's own task, whose likelihood must stay", metavar="FILE")
    )
    allow_unrelated: bool = field(
        default=False, metadata=_words("go on although the fine-tune does not look like a descendant")
    )
    prompts: Prompts = field(default_factory=Prompts)
    methods: tuple[str, ...] = ()
    """Families of candidates; all that are possible where empty."""
    trials: int = field(default=40, metadata=_words("candidates to try (default: {default})", metavar="N"))
    screening: bool = field(
        default=True,
        metadata=_words(
            "ask every candidate, also those that first tokens predict to be behind another",
            off="no_screening",
        ),
    )
    budget: float | None = field(
        default=None, metadata=_words("for everything; the proof's share is kept free", metavar="MINUTES")
    )
    seed: int = field(default=0, metadata=_words("of splits, samples, masks and training", metavar="N"))
    limits: Limits = Limits()
    servable: bool = field(default=False, metadata=_words("only what plain transformers and vLLM can serve"))
    as_adapter: bool = field(default=False, metadata=_words("write an adapter on the fine-tune's base"))
    adapter_rank: int | None = field(
        default=None,
        metadata=_words(
            "largest rank of that adapter, whose loss the proof shows and the search does not (default: exact)",
            metavar="N",
        ),
    )
    output_dtype: OutputDtype | None = field(
        default=None, metadata=_words("of the restored checkpoint (default: the fine-tune's own)")
    )
    rounding: Rounding = field(
        default="auto",
        metadata=_words(
            "of bfloat16 weights (default: {default}, stochastic where nearest loses effect that it keeps)"
        ),
    )
    keep_private: bool = field(default=False, metadata=_words("keep trained parts, in DIR-private"))
    overwrite: bool = field(default=False, metadata=_words("replace what is in DIR"))
    resume: bool = field(default=False, metadata=_words("go on with a restore that was stopped or killed"))
    training: Training = field(default_factory=lambda: training_of(TrainingOptions()))

    def __post_init__(self) -> None:
        _check_least({"trials": self.trials, "adapter-rank": 1 if self.adapter_rank is None else self.adapter_rank})
        if self.adapter_rank is not None and not self.as_adapter:
            raise ParameterError("--adapter-rank is of an adapter to be written", advice="give --as-adapter with it")
        if self.budget is not None and not (self.budget > 0 and math.isfinite(self.budget)):
            raise ParameterError(f"--budget is a number of minutes above 0, not {self.budget:g}")
        if not 0 <= self.seed <= _LARGEST_SEED:
            raise ParameterError(f"--seed is a whole number from 0 to {_LARGEST_SEED:,}, not {self.seed:,}")


@dataclass(frozen=True)
class TrainingOptions:
    """How models that are missing are trained; what is not here is as in `alignmend train`."""

    lora_rank: int | None = field(
        default=TrainSettings.lora_rank, metadata=_words("train adapters (default: all weights)", metavar="N")
    )
    learning_rate: float | None = field(
        default=TrainSettings.learning_rate, metadata=_words("default: as in  alignmend train", metavar="X")
    )
    epochs: float = field(
        default=TrainSettings.epochs, metadata=_words("rounds over the pairs (default: {default})", metavar="X")
    )
    batch_size: int = field(
        default=TrainSettings.batch_size,
        metadata=_words("pairs a step (default: {default})", name="train_batch_size", metavar="N"),
    )
    max_steps: int | None = field(default=TrainSettings.max_steps, metadata=_words("steps at most", metavar="N"))
    max_length: int = field(default=TrainSettings.max_length, metadata=_words("longest pair in tokens", metavar="N"))

    def __post_init__(self) -> None:
        try:
            TrainSettings("descent", **vars(self))
        except ParameterError as error:
            name = type(self).__dataclass_fields__[error.option].metadata["option"].name or error.option
            raise error.named(f"--{name.replace('_', '-')}") from None


def training_of(options: TrainingOptions, seed: int = 0) -> Training:
    """The same as a recipe says it."""
    from alignmend.recipes.schema import Training

    return Training(**vars(options), seed=seed)
