"""`restore`: from a fine-tuned model to a safe one, with the proof."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from alignmend.api.judges import Names, TagPairs, names_of, tags_of
from alignmend.api.progress import Progress, Report, reporting
from alignmend.api.shown import Shown
from alignmend.evaluation.thinking import Thinking
from alignmend.io.session import one_session
from alignmend.restore.request import (
    Limits,
    OutputDtype,
    Prompts,
    Request,
    Rounding,
    TrainingOptions,
    UnalignedKind,
    training_of,
)
from alignmend.restore.steps import Unwatched

if TYPE_CHECKING:
    from alignmend.restore.candidates import Choice
    from alignmend.restore.document import Searched
    from alignmend.restore.front import Measured
    from alignmend.restore.preflight import Preflight
    from alignmend.restore.workflow import Ended

Chooser: TypeAlias = "Callable[[Searched, Measured | None], Measured | None]"
"""Given the search and its best candidate, which one to write; `None` for none."""


@dataclass(frozen=True, repr=False)
class RestoreResult(Shown):
    """How a restore ended, and with what proof; true where the model is restored or was safe already."""

    ended: Ended
    preflight: Preflight | None
    """What was found before anything was done."""

    @property
    def how(self) -> str:
        """`restored`, `already safe`, `nothing qualifies`, `not proven`, `checked` (a dry run) or `stopped`."""
        return self.ended.how

    @property
    def out(self) -> Path:
        """The folder that may be uploaded, where there is one."""
        return self.ended.out

    @property
    def document(self) -> Mapping[str, Any]:
        """`results.json`; empty where nothing was proven."""
        return self.ended.document or {}

    @property
    def search(self) -> Mapping[str, Any]:
        """The candidates that were tried, and which was chosen; empty where nothing was."""
        if "search" in self.document or self.ended.searched is None:
            return dict(self.document.get("search", {}))
        return self.ended.searched.block(None)

    @property
    def report(self) -> Path:
        """The page with answers and plots, which is not for uploading."""
        from alignmend.io.published import reported

        return reported(self.out) / "report.html"

    def __bool__(self) -> bool:
        """Whether the model is restored or was safe already."""
        return self.how in ("restored", "already safe")

    def _facts(self) -> Iterable[str]:
        yield self.how
        yield str(self.out)
        models = self.document.get("models", {})
        for model in ("finetuned", "restored"):
            for suite, rates in models.get(model, {}).items():
                if rate := rates.get("attack_success_rate"):
                    yield f"{model} attack success {rate['value']:.3f} on {suite}"
        if "method" in self.document:
            yield str(self.document["method"]["name"])

    def _parts(self) -> Iterable[Any]:
        from alignmend.report.run_table import run_table
        from alignmend.report.search_text import front_table

        if self.document:
            yield run_table(self.document)
        elif self.preflight is not None:
            yield from (f"{one.verdict:8} {one.check}: {one.found}" for one in self.preflight.findings)
        if self.search:
            yield front_table(self.search)

    def _page(self) -> Path | None:
        return self.report if self.how == "restored" else None


class _Steps(Unwatched):
    """Progress to a callback; the preflight is kept, and the caller may choose."""

    def __init__(self, report: Report, chooser: Chooser | None) -> None:
        super().__init__(report)
        self._chooser = chooser
        self.preflight: Preflight | None = None

    def checked(self, found: Preflight, choice: Choice | None) -> None:
        """Kept for the result."""
        self.preflight = found

    def choose(self, searched: Searched, best: Measured | None) -> Measured | None:
        """The caller's choice, else the best."""
        return best if self._chooser is None or best is None else self._chooser(searched, best)


def restore(
    finetuned: str | Path,
    *,
    out: str | Path,
    aligned: str | Path | None = Request.aligned,
    unaligned: str | Path | None = Request.unaligned,
    unaligned_kind: UnalignedKind = Request.unaligned_kind,
    harmful_data: str | Path | None = Request.harmful_data,
    pairs: str | Path | None = Request.pairs,
    task_data: str | Path | None = Request.task_data,
    allow_unrelated: bool = Request.allow_unrelated,
    suites: Names = Prompts.suites,
    report_suites: Names = Prompts.report_suites,
    calibration_suites: Names = Prompts.calibration_suites,
    data_dir: str | Path | None = Prompts.data_dir,
    judge: str = Prompts.judge,
    judge_model: str | None = Prompts.judge_model,
    judge_endpoint: str | None = Prompts.judge_endpoint,
    search_prompts: int = Prompts.search_prompts,
    search_tokens: int = Prompts.search_tokens,
    task_tokens: int | None = Prompts.task_tokens,
    max_new_tokens: int = Prompts.max_new_tokens,
    thinking: bool | None = Thinking.switch,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    max_thinking_tokens: int | None = Thinking.tokens,
    reasoning_tags: TagPairs = (),
    template: str | None = Prompts.template,
    batch_size: int | None = Prompts.batch_size,
    device: str | None = Prompts.device,
    dtype: str = Prompts.dtype,
    methods: Names = Request.methods,
    trials: int = Request.trials,
    screening: bool = Request.screening,
    budget: float | None = Request.budget,
    seed: int = Request.seed,
    max_over_refusal: float = Limits.over_refusal,
    min_utility: float = Limits.utility,
    max_incoherent: float = Limits.incoherent,
    servable: bool = Request.servable,
    as_adapter: bool = Request.as_adapter,
    adapter_rank: int | None = Request.adapter_rank,
    output_dtype: OutputDtype | None = Request.output_dtype,
    rounding: Rounding = Request.rounding,
    keep_private: bool = Request.keep_private,
    overwrite: bool = Request.overwrite,
    resume: bool = Request.resume,
    lora_rank: int | None = TrainingOptions.lora_rank,
    learning_rate: float | None = TrainingOptions.learning_rate,
    epochs: float = TrainingOptions.epochs,
    train_batch_size: int = TrainingOptions.batch_size,
    max_steps: int | None = TrainingOptions.max_steps,
    max_length: int = TrainingOptions.max_length,
    dry_run: bool = False,
    choose: Chooser | None = None,
    progress: Progress = None,
) -> RestoreResult:
    """Give a fine-tuned model its safety back and prove it; `out` appears whole at the end, or not at all.

    Keywords are the options of `alignmend restore`. Checks what there is, trains what is missing (kept private), tries
    candidates on the loaded model, writes the best one within the limits, and proves it on prompts that the search
    never saw. `methods` are families of candidates, all that are possible where none is named. `choose` may take
    another candidate than the best. A dry run checks and stops there.
    """
    from alignmend.restore.workflow import restore as run

    request = Request(
        finetuned=str(finetuned),
        out=Path(out),
        aligned=_name(aligned),
        unaligned=_name(unaligned),
        unaligned_kind=unaligned_kind,
        harmful_data=_path(harmful_data),
        pairs=_path(pairs),
        task_data=_path(task_data),
        methods=tuple(names_of(methods)),
        prompts=Prompts(
            suites=tuple(names_of(suites)),
            report_suites=tuple(names_of(report_suites)),
            calibration_suites=tuple(names_of(calibration_suites)),
            data_dir=_path(data_dir),
            judge=judge,
            judge_model=judge_model,
            judge_endpoint=judge_endpoint,
            search_prompts=search_prompts,
            max_new_tokens=max_new_tokens,
            search_tokens=search_tokens,
            task_tokens=task_tokens,
            template=template,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            thinking=Thinking(thinking, dict(chat_template_kwargs or {}), max_thinking_tokens, tags_of(reasoning_tags)),
        ),
        limits=Limits(max_over_refusal, min_utility, max_incoherent),
        budget=budget,
        trials=trials,
        screening=screening,
        seed=seed,
        output_dtype=output_dtype,
        rounding=rounding,
        servable=servable,
        as_adapter=as_adapter,
        adapter_rank=adapter_rank,
        keep_private=keep_private,
        allow_unrelated=allow_unrelated,
        resume=resume,
        overwrite=overwrite,
        training=training_of(
            TrainingOptions(lora_rank, learning_rate, epochs, train_batch_size, max_steps, max_length), seed
        ),
    )
    with one_session(), reporting(progress) as report:
        steps = _Steps(report, choose)
        ended = run(request, steps, dry_run=dry_run)
    return RestoreResult(ended, steps.preflight)


def _name(given: str | Path | None) -> str | None:
    return None if given is None else str(given)


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)
