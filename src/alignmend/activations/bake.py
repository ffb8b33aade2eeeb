"""A vector written into a checkpoint as biases, so that it steers without this package.

In a Llama, the output of a block is its input plus attention plus MLP; a bias of the MLP's last projection is therefore
the same as a vector added to every output of the block (or of its MLP). Only the purely additive form is that.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from alignmend.activations.gguf import additive
from alignmend.activations.steering import Strength
from alignmend.activations.vector import SteeringVector
from alignmend.errors import MismatchError, OutputError, UnsupportedFormatError
from alignmend.execution.operands import versions
from alignmend.io.card import CARD_NAME, model_card, read_licences
from alignmend.io.copies import copy_companions
from alignmend.io.file_state import refuse_changed
from alignmend.io.folder import CheckpointFolder, open_checkpoint_folder
from alignmend.io.identity import identity, sha256_of_files
from alignmend.io.manifest import MANIFEST_NAME, Input, Manifest, OutputFile, write_manifest
from alignmend.io.patching import change_in_place
from alignmend.io.published import published
from alignmend.io.shards import INDEX_NAME
from alignmend.io.staging import check_space, staging

if TYPE_CHECKING:
    import torch

    from alignmend.activations.effect import Fidelity

MODEL_TYPES = ("llama",)
"""Architectures whose stock code reads `mlp_bias` and adds the MLP's output to the residual as it is."""
EXACT = 1e-3
"""The largest difference of a logit that float32 sums in another order may make."""
_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
_TORCH_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def bake(
    vector: SteeringVector,
    model: str | Path,
    out: str | Path,
    *,
    coefficient: float,
    approximate: bool = False,
    strength: Strength = "relative",
    overwrite: bool = False,
    measure: Callable[[Path], Fidelity] | None = None,
) -> tuple[str, ...]:
    """Write the checkpoint `model` to the folder `out`, with `coefficient` times `vector` as biases of its MLPs.

    Plain `transformers`, vLLM and others that know `mlp_bias` then steer by themselves, at every token (prompt and
    padding too). Returns what a user must know. `approximate` allows a stand-in for other forms, `strength` being
    theirs, as in `export_gguf`. `measure` is given the folder before it gets its name, and what it finds is noted in
    manifest and card; an exact bake of float32 weights that it finds to be unlike the hooked model is refused. Raises
    `UnsupportedFormatError` for other architectures, `MismatchError`, `OutputError`.
    """
    folder = open_checkpoint_folder(model)
    _check(folder, vector)
    scaled, notes = additive(vector, coefficient, approximate=approximate, strength=strength)
    destination = Path(out)
    with staging(destination, key=_key(folder, scaled), overwrite=overwrite) as stage:
        check_space(stage.path, sum(header.path.stat().st_size for header in folder.headers))
        _write_weights(folder, _biases(folder, scaled), stage.path)
        copy_companions(folder, stage.path, dtype=None)
        _write_text(stage.path / "config.json", json.dumps({**folder.config, "mlp_bias": True}, indent=2) + "\n")
        if measure is not None:
            notes = (*notes, *_measured(measure(stage.path), folder, exact=not approximate))
        _write_records(folder, vector, stage.path, name=destination.name, coefficient=coefficient, notes=notes)
        refuse_changed({header.path: header.state for header in folder.headers})
        stage.publish(overwrite)
    return notes


def _measured(found: Fidelity, folder: CheckpointFolder, *, exact: bool) -> tuple[str, ...]:
    rounded = {tensor.dtype for tensor in folder.tensors.values()} - {"F32"}
    if exact and not rounded and found.difference.largest_logit > EXACT:
        raise OutputError(
            f"the baked checkpoint is not the hooked model: {found.difference.words()}; up to {EXACT:g} is rounding"
        )
    return found.notes()


def _check(folder: CheckpointFolder, vector: SteeringVector) -> None:
    kind = folder.config.get("model_type")
    if kind not in MODEL_TYPES:
        raise UnsupportedFormatError(
            f"{folder.location} is a {kind!r} model: biases can stand for a vector exactly in "
            f"{', '.join(MODEL_TYPES)} only;",
            advice="apply the vector with hooks, or export it to GGUF for llama.cpp",
        )
    width, layers = folder.config.get("hidden_size"), folder.config.get("num_hidden_layers")
    found = next(iter(vector.directions.values())).shape[0]
    if found != width or not isinstance(layers, int) or vector.layers[-1] >= layers:
        raise MismatchError(
            f"the vector has {found} numbers at layers up to {vector.layers[-1]}; {folder.location} has {width} at "
            f"{layers} layers"
        )


def _biases(folder: CheckpointFolder, vector: SteeringVector) -> dict[str, torch.Tensor]:
    """Every bias that the changed config asks for; what the checkpoint has of them already is included."""
    import torch

    biases = {}
    for layer in range(_layer_count(folder)):
        for projection in _PROJECTIONS:
            name = f"model.layers.{layer}.mlp.{projection}"
            weight = folder.tensors[f"{name}.weight"]
            old = _existing(folder, f"{name}.bias")
            bias = torch.zeros(weight.shape[0]) if old is None else old.float()
            if projection == "down_proj" and layer in vector.directions:
                bias = bias + vector.directions[layer]
            biases[f"{name}.bias"] = bias.to(getattr(torch, _TORCH_DTYPES[weight.dtype]))
    return biases


def _layer_count(folder: CheckpointFolder) -> int:
    return int(str(folder.config["num_hidden_layers"]))


def _existing(folder: CheckpointFolder, name: str) -> torch.Tensor | None:
    from safetensors import safe_open

    if name not in folder.tensors:
        return None
    with safe_open(folder.tensors[name].path, framework="pt") as file:
        tensor: torch.Tensor = file.get_tensor(name)
        return tensor


def _write_weights(folder: CheckpointFolder, biases: Mapping[str, torch.Tensor], out: Path) -> None:
    """The files under new names, biases that they hold changed in place, one more file with those that they lack."""
    import torch
    from safetensors.torch import save_file

    missing = {name: bias for name, bias in biases.items() if name not in folder.tensors}
    stored = {name: bias.view(torch.uint8).numpy().tobytes() for name, bias in biases.items()}
    count = len(folder.headers) + bool(missing)
    weight_map: dict[str, str] = {}
    for number, header in enumerate(folder.headers, start=1):
        path = out / f"model-{number:05d}-of-{count:05d}.safetensors"
        shutil.copyfile(header.path, path)
        change_in_place(path, header, stored)
        weight_map.update(dict.fromkeys(header.entries, path.name))
    if missing:
        last = out / f"model-{count:05d}-of-{count:05d}.safetensors"
        save_file(missing, last, {"format": "pt"})
        weight_map.update(dict.fromkeys(missing, last.name))
    total = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    _write_text(out / INDEX_NAME, json.dumps(index, indent=2) + "\n")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _write_records(
    folder: CheckpointFolder,
    vector: SteeringVector,
    out: Path,
    *,
    name: str,
    coefficient: float,
    notes: tuple[str, ...],
) -> None:
    paths = sorted(path for path in out.rglob("*") if path.is_file())
    outputs = [
        OutputFile(file=path.relative_to(out).as_posix(), bytes=path.stat().st_size, sha256=sha256)
        for path, sha256 in zip(paths, sha256_of_files(paths), strict=True)
    ]
    layers = ", ".join(map(str, vector.layers))
    manifest = Manifest(
        versions=versions(),
        expression=f"target with {coefficient:g} x steering vector as MLP bias at layers {layers}",
        parameters={"coefficient": coefficient, "steering": json.loads(json.dumps(dict(vector.about)))},
        inputs={"target": Input.model_validate(identity(folder))},
        outputs=outputs,
        notes=list(notes),
    )
    manifest = published(manifest, out)
    card = model_card(manifest, name=name, licence=read_licences([folder.path]), config=folder.config)
    (out / CARD_NAME).write_text(card, encoding="utf-8")
    write_manifest(out / MANIFEST_NAME, manifest)


def _key(folder: CheckpointFolder, vector: SteeringVector) -> str:
    digest = hashlib.sha256(repr((folder.path, vector.layers)).encode())
    for layer in vector.layers:
        digest.update(vector.directions[layer].numpy().tobytes())
    return digest.hexdigest()
