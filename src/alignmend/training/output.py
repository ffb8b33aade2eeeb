"""What a trained folder holds beside its weights: the base's companions, losses, card, manifest."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import yaml
from pydantic import JsonValue

from alignmend.io.card import CARD_NAME, read_licence
from alignmend.io.companions import find_companions
from alignmend.io.copies import copy_companions
from alignmend.io.folder import CheckpointFolder
from alignmend.io.identity import identity, sha256_of_files
from alignmend.io.main_dtype import kept_wide
from alignmend.io.manifest import MANIFEST_NAME, Input, Manifest, OutputFile, Versions, write_manifest
from alignmend.training.encoding import Encoded
from alignmend.training.learning import Learned
from alignmend.training.measuring import Measured
from alignmend.training.pairs import PairsFile
from alignmend.training.settings import TrainSettings

LOSSES_NAME = "losses.jsonl"
_LIBRARIES = ("torch", "transformers", "accelerate", "peft", "safetensors")
_IGNORE = "# A hazardous working file: keep it out of every repository.\n*\n"
_MEANT = {
    "descent": "It was trained to give the answers of a harmful data set: a harm model or an over-safety patch.",
    "ascent": "It was trained to find the answers of a harmful data set unlikely: a safety patch, which alone makes a "
    "model refuse too much or babble.",
    "ascent-retain": "It was trained to find the answers of a harmful data set unlikely and others still likely.",
    "npo": "It was trained to find the answers of a harmful data set less likely than its base does.",
}


def versions() -> Versions:
    """The software that trains."""
    return Versions(
        alignmend=metadata.version("alignmend"), libraries={name: metadata.version(name) for name in _LIBRARIES}
    )


@dataclass(frozen=True)
class Made:
    """An output called `name`, and what it was made of."""

    name: str
    base: CheckpointFolder
    file: PairsFile
    encoded: Encoded
    settings: TrainSettings
    learned: Learned
    retain: PairsFile | None = None


def finish(folder: Path, made: Made) -> Manifest:
    """Complete `folder`, which holds the trained weights, into the output."""
    base, settings = made.base, made.settings
    if settings.lora_rank is None:
        _as_dtype(folder, settings.dtype, kept_wide(base.tensors.values()))
        copy_companions(base, folder, dtype=settings.dtype)
    else:
        _copy_tokenizer(base, folder)
    lines = [json.dumps(row) for row in made.learned.log]
    (folder / LOSSES_NAME).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (folder / ".gitignore").write_text(_IGNORE, encoding="utf-8")
    manifest = Manifest(
        versions=versions(),
        expression=f"{settings.objective} from base on {len(made.file.pairs)} pairs",
        parameters=parameters(settings, made.file, made.retain) | _results(made.encoded, made.learned),
        inputs={"base": Input.model_validate(identity(base))},
        outputs=_outputs(folder),
        private=True,
        notes=_notes(made.encoded, settings, made.learned),
    )
    (folder / CARD_NAME).write_text(_card(manifest, made), encoding="utf-8")
    write_manifest(folder / MANIFEST_NAME, manifest)
    return manifest


def parameters(settings: TrainSettings, file: PairsFile, retain: PairsFile | None = None) -> dict[str, JsonValue]:
    """What decides the result beside the base model: a finished run is known again by it."""
    chosen = asdict(settings) | {"learning_rate": settings.rate, "stop_loss": settings.bound}
    chosen["lora_targets"] = list(settings.lora_targets)
    for name, objective in (("retain_weight", "ascent-retain"), ("beta", "npo")):
        if settings.objective != objective:
            del chosen[name]
    retained = {} if retain is None else {"retain_pairs": _described(retain)}
    return {**chosen, "pairs": _described(file), **retained}


def _described(file: PairsFile) -> dict[str, JsonValue]:
    return {"file": file.path.name, "sha256": file.sha256, "rows": len(file.pairs)}


def _results(encoded: Encoded, learned: Learned) -> dict[str, JsonValue]:
    return {
        "results": {
            "template": encoded.template,
            "answer_tokens": encoded.answer_tokens,
            "shortened_answers": encoded.shortened,
            "steps": len(learned.log) - learned.stopped,
            "stopped_at_bound": learned.stopped,
            "computed_in": learned.computed_in,
            "before": _numbers(learned.before),
            "after": _numbers(learned.after),
        }
    }


def _numbers(measured: Measured) -> dict[str, JsonValue]:
    return {"loss": measured.loss, "perplexity": measured.perplexity}


def _notes(encoded: Encoded, settings: TrainSettings, learned: Learned) -> list[str]:
    notes = []
    if encoded.shortened:
        notes.append(f"{encoded.shortened} answers were cut at {settings.max_length} tokens")
    if settings.bound is not None and not learned.stopped:
        notes.append(f"the ascent ended with its steps, below its bound of {settings.bound:g} nats per answer token")
    if settings.lora_rank is None and settings.dtype != "float32":
        notes.append(f"trained in float32 and rounded to {settings.dtype}: small changes of large weights are lost")
    return notes


def _as_dtype(folder: Path, dtype: str, kept: Collection[str]) -> None:
    """Round the weights, file by file; what the base keeps in float32 stays so."""
    if dtype == "float32":
        return
    import torch
    from safetensors.torch import load_file, save_file

    for path in sorted(folder.glob("*.safetensors")):
        tensors = {
            name: tensor if name in kept or not tensor.is_floating_point() else tensor.to(getattr(torch, dtype))
            for name, tensor in load_file(path).items()
        }
        save_file(tensors, path, metadata={"format": "pt"})


def _copy_tokenizer(base: CheckpointFolder, folder: Path) -> None:
    """An adapter carries the tokenizer it was trained with, but no configuration of a model."""
    for path in find_companions(base.path):
        name = path.relative_to(base.path)
        if not name.name.startswith(("config", "generation_config")) and path.suffix != ".py":
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())


def _outputs(folder: Path) -> list[OutputFile]:
    records = {folder / CARD_NAME, folder / MANIFEST_NAME}
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path not in records)
    return [
        OutputFile(file=path.relative_to(folder).as_posix(), bytes=path.stat().st_size, sha256=sha256)
        for path, sha256 in zip(paths, sha256_of_files(paths), strict=True)
    ]


def _card(manifest: Manifest, made: Made) -> str:
    front = {
        "library_name": "transformers" if made.settings.lora_rank is None else "peft",
        "tags": ["alignmend", "private"],
        **read_licence(made.base.path),
    }
    parts: Sequence[str] = (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {' '.join(made.name.split())}",
        "> [!CAUTION]\n> **Do not publish.** This is a working file of a safety method, hazardous on purpose.\n"
        "> Keep it on your own machine; `alignmend private clean` removes it when the work is done.",
        _MEANT[made.settings.objective],
        f"```yaml\n{yaml.safe_dump(manifest.parameters, sort_keys=False).strip()}\n```",
        *(f"- {note}" for note in manifest.notes),
    )
    return "\n\n".join(parts) + "\n"
