"""Scores on disk: one safetensors file or a folder of shards, each tensor written into its place when it is known."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from alignmend.errors import OutputError
from alignmend.io.identity import sha256_of_files
from alignmend.io.manifest import MANIFEST_NAME, Manifest, OutputFile, manifest_bytes, write_manifest
from alignmend.io.shards import INDEX_NAME, OutputTensor, Shard, index_text, parse_size, plan_shards
from alignmend.io.staging import Staging, check_space, staging, sync

METADATA_KEY = "alignmend"
"""Where the header of a single file holds the manifest."""
_SHARD_SIZE = "5GB"
_DTYPES = {"float32": "F32", "bfloat16": "BF16"}


@dataclass(frozen=True)
class ScoreFiles:
    """Files of the right size, to be filled tensor by tensor."""

    folder: Path
    shards: tuple[Shard, ...]
    dtype: str

    def write(self, scores: Mapping[str, Tensor]) -> None:
        """Put these tensors into their places, rounded to the files' dtype."""
        import torch

        places = {name: (shard, start) for shard in self.shards for name, start in shard.offsets.items()}
        for name, tensor in scores.items():
            shard, start = places[name]
            data = tensor.to(getattr(torch, self.dtype)).contiguous().reshape(-1).view(torch.uint8).numpy().data
            with (self.folder / shard.file).open("r+b") as file:
                file.seek(start)
                file.write(data)


def check_place(out: Path, *, overwrite: bool) -> None:
    """Raise `OutputError` where `out` is taken: a file ends in `.safetensors`, anything else is a folder."""
    if is_file(out):
        if out.is_dir() or (os.path.lexists(out) and not overwrite):
            raise OutputError(f"{out} exists", advice="choose another name, or pass --overwrite to replace it")
        return
    with staging(out, key="scores", overwrite=overwrite) as stage:
        stage.discard()


def is_file(out: Path) -> bool:
    """Whether `out` names one file and not a folder."""
    return out.suffix == ".safetensors"


@contextmanager
def score_stage(out: Path, *, overwrite: bool) -> Iterator[Staging]:
    """A hidden folder beside `out`, which is gone again whatever happens, Ctrl-C included."""
    place = out.with_name(f".{out.name}.scores") if is_file(out) else out
    with staging(place, key="scores", overwrite=overwrite) as stage:
        try:
            yield stage
        except BaseException:
            stage.discard()
            raise


def begin(
    stage: Staging, tensors: Iterable[tuple[str, tuple[int, ...]]], dtype: str, manifest: Manifest, out: Path
) -> ScoreFiles:
    """Files with headers and room for `tensors` (names, shapes); raises `OutputError` where the disk is too small."""
    named = [OutputTensor(name, _DTYPES[dtype], shape) for name, shape in tensors]
    if is_file(out):
        (whole,) = plan_shards(named, 1 << 62)
        shards: tuple[Shard, ...] = (with_metadata(whole, {METADATA_KEY: manifest_bytes(manifest).decode()}),)
    else:
        shards = plan_shards(named, parse_size(_SHARD_SIZE))
    check_space(stage.path, sum(shard.size for shard in shards))
    for shard in shards:
        with (stage.path / shard.file).open("wb") as file:
            file.write(shard.header)
            file.truncate(shard.size)
    if len(shards) > 1:
        total = sum(tensor.bytes for tensor in named)
        (stage.path / INDEX_NAME).write_text(index_text(shards, total), encoding="utf-8")
    return ScoreFiles(stage.path, shards, dtype)


def publish(stage: Staging, files: ScoreFiles, manifest: Manifest, out: Path, *, overwrite: bool) -> Manifest:
    """Give what was written its name; returns the manifest with the hashes of the files."""
    paths = sorted(path for path in stage.path.iterdir() if path.is_file())
    names = [out.name] if is_file(out) else [path.name for path in paths]
    hashes = sha256_of_files(paths)
    outputs = [
        OutputFile(file=name, bytes=path.stat().st_size, sha256=sha256)
        for name, path, sha256 in zip(names, paths, hashes, strict=True)
    ]
    complete = manifest.model_copy(update={"outputs": outputs})
    if not is_file(out):
        write_manifest(stage.path / MANIFEST_NAME, complete)
        stage.publish(overwrite)
        return complete
    check_place(out, overwrite=overwrite)
    sync(paths[0])
    paths[0].replace(out)
    sync(out.parent)
    stage.discard()
    return complete


def with_metadata(shard: Shard, texts: Mapping[str, str]) -> Shard:
    """The shard with these texts in its header, its tensors moved by as much."""
    table = json.loads(shard.header[8:])
    table["__metadata__"].update(texts)
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    moved = len(header) - len(shard.header)
    offsets = {name: start + moved for name, start in shard.offsets.items()}
    return replace(shard, header=header, offsets=offsets, size=shard.size + moved)
