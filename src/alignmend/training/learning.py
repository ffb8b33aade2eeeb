"""Gradient steps through `transformers.Trainer`, so that Accelerate and PEFT work as in a user's own training."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from alignmend.errors import NonFiniteError, OutputError, ParameterError
from alignmend.execution.threads import SMALL_PARAMETERS, multiplies_bfloat16, parameter_count
from alignmend.training.encoding import collate
from alignmend.training.guiding import guided
from alignmend.training.loading import has_gpu
from alignmend.training.loop import TokenRow
from alignmend.training.measuring import Measured, measure, read_measured, write_measured
from alignmend.training.objectives import OBJECTIVES, Beside, Objective, answers_only, objective_named
from alignmend.training.settings import WARM_UP_SHARE, TrainSettings
from alignmend.training.working import Working

Progress = Callable[[str, int, int], None]
CHECKPOINTS = 10
"""How many checkpoints a run writes; only the last is kept."""


@dataclass(frozen=True)
class Learned:
    """What a run did."""

    before: Measured
    after: Measured
    log: tuple[dict[str, float], ...]
    """One row per step: `step`, `loss` (nats per answer token, before the step), `gradient_norm`, `learning_rate`;
    `objective` too where that is not the loss with a sign."""
    stopped: bool
    """Whether an ascent has reached its bound: the last row of the log is then a step that was not made."""
    computed_in: str
    """The numbers that passes ran in."""


def learn(
    model: Any,
    rows: Sequence[TokenRow],
    settings: TrainSettings,
    work: Working,
    progress: Progress | None = None,
    *,
    retained: Sequence[TokenRow] = (),
) -> Learned:
    """Train `model` in place, from the last checkpoint in `work` where there is one, and write it to `work.finished`.

    `retained` are rows that `ascent-retain` keeps likely. The caller's random states stay as they are.
    Raises `NonFiniteError` where the loss is no number, `ParameterError` where an ascent begins above its bound.
    """
    with _own_randomness():
        trainer = trainer_for(model, guided(model, rows, settings, retained), settings, work.checkpoints)
        follow = _Follow(trainer, rows, settings, work, progress)
        trainer.add_callback(follow)
        checkpoint = work.last_checkpoint()
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        after = measure(trainer, rows)
        _write(trainer, work.finished)
        trainer.accelerator.wait_for_everyone()
    before = read_measured(work.before)
    log = tuple(_row(entry, follow.objective) for entry in trainer.state.log_history if "loss" in entry)
    computed_in = "bfloat16" if trainer.args.bf16 else "float32"
    return Learned(before, after, log, stopped=follow.stopped, computed_in=computed_in)


def trainer_for(model: Any, rows: Sequence[TokenRow], settings: TrainSettings, folder: Path) -> Any:
    """The trainer of a run: AdamW without weight decay, a tenth of warm-up, then a cosine to zero."""
    known = {field.name for field in fields(TrainingArguments)}
    saving_memory = "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.rate,
        num_train_epochs=settings.epochs,
        max_steps=-1 if settings.max_steps is None else settings.max_steps,
        weight_decay=0.0,
        max_grad_norm=settings.clip,
        seed=settings.seed,
        data_seed=settings.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=1 / CHECKPOINTS,
        save_total_limit=1,
        use_cpu=not has_gpu(),
        bf16=computes_in_bfloat16(settings, model),
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        **{saving_memory: settings.gradient_checkpointing},
    )
    # Several devices are for `accelerate launch`: one process that spreads over them would train otherwise.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    trainer = _Trainer(
        model,
        arguments,
        data_collator=collate,
        train_dataset=list(rows),
        compute_loss_func=StepLoss(objective_named(settings.objective), settings.retain_weight, settings.beta),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def computes_in_bfloat16(settings: TrainSettings, model: Any) -> bool:
    """Whether passes run in bfloat16, with float32 weights: `auto` is where it is faster."""
    if settings.compute != "auto":
        return settings.compute == "bfloat16"
    if has_gpu():
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return multiplies_bfloat16() and parameter_count(model) >= SMALL_PARAMETERS


class StepLoss:
    """An objective that remembers the loss of the answers over the parts of a step on this device."""

    def __init__(self, objective: Objective, retain_weight: float = 1.0, beta: float = 0.1) -> None:
        self.objective = objective
        self.beside = self._numbers = Beside(retain_weight=retain_weight, beta=beta)
        self.parts: list[torch.Tensor] = []

    def accompany(self, batch: dict[str, Any]) -> None:
        """Take out of `batch` what the model does not want, for the loss of this batch."""
        found = {name: batch.pop(name, None) for name in ("reference", "retain_labels")}
        self.beside = replace(self._numbers, **found)

    def __call__(self, outputs: Any, labels: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """As the objective."""
        loss = self.objective(outputs, labels, num_items_in_batch, self.beside)
        if self.objective.sign is None:
            with torch.no_grad():
                self.parts.append(OBJECTIVES["descent"](outputs, labels, num_items_in_batch))
        else:
            self.parts.append(self.objective.sign * loss.detach())
        return loss

    def take(self, accelerator: Any) -> float:
        """Mean negative log-likelihood of the step over all devices, in nats per answer token; begins anew."""
        own = torch.stack(self.parts).sum()
        self.parts.clear()
        return float(accelerator.reduce(own, "sum").item())


class _Trainer(Trainer):  # type: ignore[misc]
    """With a learning rate that is above zero at every step, so that one step alone does something too."""

    lr_scheduler: Any
    compute_loss_func: Any

    def compute_loss(self, model: Any, inputs: Any, *given: Any, **more: Any) -> Any:
        """As ever, with what only the objective reads kept from the model."""
        self.compute_loss_func.accompany(inputs)
        if self.compute_loss_func.beside.retain_labels is not None:
            return super().compute_loss(model, inputs, *given, **more)
        with answers_only(self.accelerator.unwrap_model(model), inputs["labels"]):
            return super().compute_loss(model, inputs, *given, **more)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule of the run, made once."""
        if self.lr_scheduler is None:
            chosen = self.optimizer if optimizer is None else optimizer
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                chosen, lambda step: rate_share(step, num_training_steps)
            )
        return self.lr_scheduler


def rate_share(step: int, steps: int) -> float:
    """Share of the peak learning rate at `step` of `steps`, from 0: a linear warm-up, then a cosine towards zero."""
    warm_up = math.ceil(WARM_UP_SHARE * steps)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


class _Follow(TrainerCallback):  # type: ignore[misc]
    """Measures first, reports each step, ends an ascent at its bound, and fails at once where the loss is no number."""

    def __init__(
        self,
        trainer: Any,
        rows: Sequence[TokenRow],
        settings: TrainSettings,
        work: Working,
        progress: Progress | None,
    ) -> None:
        self.trainer, self.rows, self.settings, self.work, self.progress = trainer, rows, settings, work, progress
        self.stopped = False
        self.answer_loss = math.nan
        self.objective: Objective = trainer.compute_loss_func.objective

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Measure the untrained model, once for all resumed runs; the trainer has made it ready for its devices."""
        if state.global_step:
            return
        before = measure(self.trainer, self.rows)
        if not math.isfinite(before.loss):
            raise NonFiniteError(f"the loss is {before.loss} before any step: is the model broken?")
        if self.reached(before.loss):
            raise ParameterError(
                f"the loss is {before.loss:.3g} nats per answer token before any step, and the ascent ends at "
                f"{self.settings.bound:g}",
                advice="raise stop_loss",
            )
        if state.is_world_process_zero:
            write_measured(self.work.before, before)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Leave out the step that would begin at the bound or beyond: an optimizer passes over weights without a
        gradient.
        """
        self.answer_loss = self.trainer.compute_loss_func.take(self.trainer.accelerator)
        if self.reached(self.answer_loss):
            for parameter in self.trainer.model_wrapped.parameters():
                parameter.grad = None
            control.should_training_stop = self.stopped = True

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Look at the loss of the step that was just made."""
        if "loss" not in state.log_history[-1]:  # the closing summary
            return
        if self.objective.sign is None:  # kept with the trainer's state, for a run that is resumed
            state.log_history[-1]["answer_loss"] = self.answer_loss
        row = _row(state.log_history[-1], self.objective)
        if not math.isfinite(sum(row.values())):
            kept = self.work.last_checkpoint()
            raise NonFiniteError(
                f"at step {state.global_step} the loss is {row['loss']} and the norm of the gradient "
                f"{row['gradient_norm']}: lower the learning rate"
                + ("" if kept is None else f" (the last checkpoint before is {kept})")
            )
        if self.progress is not None:
            self.progress(self.settings.objective, state.global_step, state.max_steps)

    def reached(self, loss: float) -> bool:
        """Whether `loss` is at the bound of an ascent or beyond."""
        return self.settings.bound is not None and loss >= self.settings.bound


def _row(entry: dict[str, float], objective: Objective) -> dict[str, float]:
    signed = {} if objective.sign is None else {"loss": objective.sign * entry["loss"]}
    return {
        "step": entry["step"],
        **(signed or {"loss": entry["answer_loss"], "objective": entry["loss"]}),
        "gradient_norm": entry.get("grad_norm", 0.0),
        "learning_rate": entry["learning_rate"],
    }


def _write(trainer: Any, folder: Path) -> None:
    """Collect the weights from all devices and write them as `save_pretrained` does."""
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model(str(folder))
    if trainer.is_world_process_zero():
        if not any(folder.glob("*.safetensors")):
            raise OutputError(f"{folder} got no weights from the devices: the distributed settings do not collect them")
        (folder / "training_args.bin").unlink(missing_ok=True)  # pickled, and the manifest says it all


@contextmanager
def _own_randomness() -> Iterator[None]:
    import numpy

    states = random.getstate(), numpy.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(states[0])
            numpy.random.set_state(states[1])
