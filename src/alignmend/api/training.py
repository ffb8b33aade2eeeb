"""`train`: a harm model or a patch from pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignmend.api.judges import Names, names_of
from alignmend.api.progress import Progress, reporting
from alignmend.api.shown import Shown
from alignmend.errors import ParameterError
from alignmend.training.settings import Compute, Dtype, ObjectiveName, TrainSettings

if TYPE_CHECKING:
    from alignmend.io.manifest import Manifest
    from alignmend.training.run import Trained


@dataclass(frozen=True, repr=False)
class TrainResult(Shown):
    """A harm model or patch that was written, marked private."""

    trained: Trained

    @property
    def out(self) -> Path:
        """The folder."""
        return self.trained.path

    @property
    def manifest(self) -> Manifest:
        """What was made of what."""
        return self.trained.manifest

    @property
    def results(self) -> Mapping[str, Any]:
        """Steps, and loss and perplexity `before` and `after`."""
        found: Any = self.manifest.parameters["results"]
        return dict(found)

    def _facts(self) -> Iterable[str]:
        results = self.results
        yield str(self.out)
        yield f"{results['steps']} steps"
        yield f"loss {results['before']['loss']:.4g} -> {results['after']['loss']:.4g} nats per answer token"
        yield "private: do not publish"

    def _parts(self) -> Iterable[Any]:
        yield self.manifest.expression
        yield from (f"note: {note}" for note in self.manifest.notes)


def train(
    model: str | Path,
    data: str | Path,
    *,
    out: str | Path,
    objective: ObjectiveName,
    lora_rank: int | None = None,
    full: bool = False,
    retain_data: str | Path | None = None,
    lora_targets: Names = TrainSettings.lora_targets,
    learning_rate: float | None = TrainSettings.learning_rate,
    epochs: float = TrainSettings.epochs,
    max_steps: int | None = TrainSettings.max_steps,
    batch_size: int = TrainSettings.batch_size,
    gradient_accumulation: int = TrainSettings.gradient_accumulation,
    max_length: int = TrainSettings.max_length,
    clip: float = TrainSettings.clip,
    stop_loss: float | None = TrainSettings.stop_loss,
    retain_weight: float = TrainSettings.retain_weight,
    beta: float = TrainSettings.beta,
    template: str = TrainSettings.template,
    seed: int = TrainSettings.seed,
    dtype: Dtype = TrainSettings.dtype,
    gradient_checkpointing: bool = TrainSettings.gradient_checkpointing,
    compute: Compute = TrainSettings.compute,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = None,
) -> TrainResult | None:
    """Train `model` on the pairs in `data` and write `out`: an adapter of `lora_rank`, or with `full` a checkpoint.

    Keywords are the options of `alignmend train`. `None` in all but the main one of several processes.
    """
    if (lora_rank is None) != full:
        raise ParameterError(
            "train either an adapter (lora_rank=16) or all weights (full=True)", advice="give one of them"
        )
    settings = TrainSettings(
        objective,
        lora_rank=lora_rank,
        lora_targets=tuple(names_of(lora_targets)),
        learning_rate=learning_rate,
        epochs=epochs,
        max_steps=max_steps,
        batch_size=batch_size,
        gradient_accumulation=gradient_accumulation,
        max_length=max_length,
        clip=clip,
        stop_loss=stop_loss,
        retain_weight=retain_weight,
        beta=beta,
        template=template,
        seed=seed,
        dtype=dtype,
        gradient_checkpointing=gradient_checkpointing,
        compute=compute,
    )
    from alignmend.training.run import train_model

    with reporting(progress) as report:
        trained = train_model(
            str(model),
            Path(data),
            Path(out),
            settings,
            retain=None if retain_data is None else Path(retain_data),
            resume=resume,
            overwrite=overwrite,
            progress=report,
        )
    return None if trained is None else TrainResult(trained)
