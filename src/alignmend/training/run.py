"""A whole training run: model and pairs in, a private checkpoint or adapter out, whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from alignmend.errors import AlignmendError, MismatchError, OutputError, ParameterError, memory_told, missing_extra

try:
    from accelerate import PartialState
    from peft import PeftModel  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer
except ImportError as error:
    raise missing_extra("transformers, accelerate and peft", "train") from error

from alignmend.execution.threads import few_threads
from alignmend.io.atomic import make_folder, no_empty_folders, private_files
from alignmend.io.folder import CheckpointFolder, open_checkpoint_folder
from alignmend.io.identity import identity
from alignmend.io.manifest import MANIFEST_NAME, Input, Manifest, read_manifest
from alignmend.io.pretrained import pretrained
from alignmend.io.staging import settle as settle_staging
from alignmend.io.staging import staging
from alignmend.training.adapter import stable_config, with_lora
from alignmend.training.encoding import Encoded, encode
from alignmend.training.learning import Learned, Progress, learn
from alignmend.training.loading import has_gpu, quiet
from alignmend.training.output import Made, finish, parameters, versions
from alignmend.training.pairs import PairsFile, read_pairs
from alignmend.training.settings import ALL_LINEAR, TrainSettings
from alignmend.training.working import Working, held, remove, settle, working_folder


@dataclass(frozen=True)
class Trained:
    """A harm model or patch that was written."""

    path: Path
    manifest: Manifest


@dataclass(frozen=True)
class _Job:
    base: CheckpointFolder
    file: PairsFile
    settings: TrainSettings
    out: Path
    overwrite: bool
    progress: Progress | None
    retain: PairsFile | None


def train_model(
    model: str | Path,
    pairs: Path,
    out: Path,
    settings: TrainSettings,
    *,
    retain: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Trained | None:
    """Train `model` (a folder or hub id) on the file `pairs` and write the folder `out`, marked private.

    `retain` is a file of pairs whose answers must stay likely, for `ascent-retain` alone.
    A full run writes a checkpoint, a LoRA run a PEFT adapter. Under `accelerate launch` every process calls this; the
    main one writes and gets the result, the others `None`. The same arguments give the same bytes with one thread on
    one platform. A run that was killed leaves a hidden folder beside `out`; `resume` continues from its last
    checkpoint and ends in the bytes of a run that nothing disturbed, and leaves a finished one as it is.
    Raises `FileFormatError` for pairs or a model that cannot be used, `ParameterError`, `OutputError`.
    """
    base = open_checkpoint_folder(model)
    _check_retain(settings, retain)
    kept = None if retain is None else read_pairs(retain, safe=True)
    job = _Job(base, read_pairs(pairs), settings, out, overwrite, progress, kept)
    _refuse_own_input(job)
    state, work = PartialState(cpu=not has_gpu()), working_folder(out)
    if resume and (done := _finished(job)) is not None:
        return _left_as_it_is(out, done, work) if state.is_main_process else None
    if not state.is_main_process:
        state.wait_for_everyone()  # until the main process has prepared the folder
        with private_files():
            _train(job, work)
        return None
    with no_empty_folders(work.path.parent):
        _check_place(out, overwrite=overwrite)
        make_folder(work.path.parent)
        with private_files(), held(work, key=_key(job), resume=resume):
            state.wait_for_everyone()
            encoded, learned = _train(job, work)
            manifest = _publish(job, work, encoded, learned)
    return Trained(out, manifest)


def check_places(outs: Iterable[Path], *, overwrite: bool = False) -> None:
    """Raise `OutputError` where one of several outputs cannot be written, before the first is trained."""
    if not PartialState(cpu=not has_gpu()).is_main_process:
        return
    for out in outs:
        with no_empty_folders(working_folder(out).path.parent):
            _check_place(out, overwrite=overwrite)


def _check_retain(settings: TrainSettings, retain: Path | None) -> None:
    if settings.objective == "ascent-retain" and retain is None:
        raise ParameterError(
            "objective ascent-retain needs pairs whose answers stay likely", advice="give them as retain data"
        )
    if settings.objective != "ascent-retain" and retain is not None:
        raise ParameterError(
            "retain data are for objective ascent-retain", advice=f"leave them out of {settings.objective}"
        )


def _left_as_it_is(out: Path, done: Manifest, work: Working) -> Trained:
    settle(work)
    settle_staging(out)
    return Trained(out, done)


def _train(job: _Job, work: Working) -> tuple[Encoded, Learned]:
    settings, location = job.settings, job.base.path
    with memory_told(f"training {job.base.location}", _less_memory(settings)), quiet():
        tokenizer = pretrained(AutoTokenizer, location)
        network = pretrained(AutoModelForCausalLM, location, dtype=_training_dtype(settings))
        longest = getattr(network.config, "max_position_embeddings", None) or settings.max_length
        template, longest = settings.template, min(settings.max_length, longest)
        encoded = encode(tokenizer, job.file, template=template, max_length=longest)
        kept = encode(tokenizer, job.retain, template=template, max_length=longest).rows if job.retain else ()
        if settings.lora_rank is not None:
            network = _adapted(network, settings)
        with few_threads(network):
            learned = learn(network, encoded.rows, settings, work, job.progress, retained=kept)
    if settings.lora_rank is not None and PartialState(cpu=not has_gpu()).is_main_process:
        _rewrite_adapter(job, work)
    return encoded, learned


def _less_memory(settings: TrainSettings) -> str:
    ways = [f"fewer pairs at once (--batch-size, --train-batch-size of restore; now {settings.batch_size})"]
    if settings.lora_rank is None:
        ways.append("an adapter instead of all weights (--lora-rank 16)")
    ways.append(f"shorter pairs (--max-length; now {settings.max_length})")
    if not settings.gradient_checkpointing:
        ways.append("--gradient-checkpointing of train")
    return f"free memory, or take {', '.join(ways)}"


def _training_dtype(settings: TrainSettings) -> Any:
    """Weights that are trained are float32, or small steps would be lost; a frozen base on a GPU stays as stored."""
    frozen_on_gpu = settings.lora_rank is not None and has_gpu()
    return "auto" if frozen_on_gpu else torch.float32


def _adapted(network: Any, settings: TrainSettings) -> Any:
    rank, targets = settings.lora_rank, settings.lora_targets or ALL_LINEAR
    if rank is None:
        raise TypeError("rank is None")
    try:
        return with_lora(network, rank=rank, targets=targets, seed=settings.seed)
    except ValueError as error:
        raise MismatchError(
            f"LoRA cannot be put on {', '.join(settings.lora_targets) or ALL_LINEAR}: {error}"
        ) from error


def _rewrite_adapter(job: _Job, work: Working) -> None:
    """Give the adapter's configuration stable bytes and the name of its base."""
    local = Path(job.base.location).expanduser()
    name = str(local.resolve()) if local.exists() else job.base.location
    stable_config(work.finished, name)


def _publish(job: _Job, work: Working, encoded: Encoded, learned: Learned) -> Manifest:
    manifest = finish(work.finished, Made(job.out.name, job.base, job.file, encoded, job.settings, learned, job.retain))
    with staging(job.out, key="training", overwrite=job.overwrite) as stage:
        # The manifest goes first: whatever a kill leaves says that it is private.
        for path in sorted(work.finished.iterdir(), key=lambda path: path.name != MANIFEST_NAME):
            path.rename(stage.path / path.name)
        stage.publish(job.overwrite)
    remove(work)
    return manifest


def _check_place(out: Path, *, overwrite: bool) -> None:
    """Refuse a place that is taken or cannot be written before hours of training, not after."""
    with staging(out, key="training", overwrite=overwrite) as stage:
        stage.discard()


def _refuse_own_input(job: _Job) -> None:
    out = job.out.resolve()
    inputs = [job.base.path.resolve(), job.file.path.resolve()]
    inputs += [] if job.retain is None else [job.retain.path.resolve()]
    if any(path == out or out in path.parents for path in inputs):
        raise OutputError(
            f"{job.out} holds the model or the pairs, which would be replaced", advice="write to another folder"
        )


def _key(job: _Job) -> str:
    states = [(header.path.stat().st_size, header.path.stat().st_mtime_ns) for header in job.base.headers]
    described = repr((parameters(job.settings, job.file, job.retain), identity(job.base), states, versions()))
    return hashlib.sha256(described.encode()).hexdigest()


def _finished(job: _Job) -> Manifest | None:
    """What an earlier run of the same kind has finished: then there is nothing left to resume."""
    try:
        manifest = read_manifest(job.out)
        written = (job.out / MANIFEST_NAME).stat().st_mtime_ns
    except (AlignmendError, OSError):
        return None
    chosen = {name: value for name, value in manifest.parameters.items() if name != "results"}
    same = (
        chosen == parameters(job.settings, job.file, job.retain)
        and manifest.versions == versions()
        and manifest.inputs.get("base") == Input.model_validate(identity(job.base))
        and all(header.path.stat().st_mtime_ns < written for header in job.base.headers)
    )
    return manifest if same else None
