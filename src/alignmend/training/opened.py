"""A model that something is measured in: a checkpoint, or an adapter or stored delta merged into its base meanwhile."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from alignmend.algebra.opening import open_adapter, open_checkpoint, open_delta
from alignmend.algebra.values import Checkpoint
from alignmend.errors import OutputError, ParameterError, missing_extra

try:
    from transformers import AutoModelForCausalLM
except ImportError as error:
    raise missing_extra("transformers", "train") from error

from alignmend.execution.save import save
from alignmend.io.adapter import open_adapter_folder
from alignmend.io.delta import is_delta_folder, open_delta_folder
from alignmend.io.folder import CheckpointFolder, is_adapter_folder, open_checkpoint_folder
from alignmend.io.identity import identity
from alignmend.io.manifest import Input
from alignmend.io.pretrained import pretrained
from alignmend.io.private import mark_private
from alignmend.training.loading import has_gpu

_MERGED = "A model with its adapter or delta merged, for as long as it is measured. Delete it when no run is using it."


@dataclass(frozen=True)
class OpenedModel:
    """What the user named: a checkpoint, perhaps an adapter or a stored delta on it."""

    folder: CheckpointFolder
    adapter: str | None

    @property
    def described(self) -> dict[str, Input]:
        """What a manifest says of it."""
        found = {"model": identity(self.folder)}
        if self.adapter is not None:
            is_delta = is_delta_folder(Path(self.adapter))
            found["adapter"] = identity((open_delta_folder if is_delta else open_adapter_folder)(self.adapter))
        return {role: Input.model_validate(value) for role, value in found.items()}

    @property
    def point(self) -> Checkpoint:
        """The model as an expression."""
        root = open_checkpoint(self.folder.path)
        if self.adapter is None:
            return root
        is_delta = is_delta_folder(Path(self.adapter))
        return root + (open_delta(self.adapter, target=root) if is_delta else open_adapter(self.adapter, base=root))


def open_model(model: str | Path, adapter: str | Path | None, base: str | Path | None = None) -> OpenedModel:
    """Open a folder or hub id, or the folder of an adapter or a stored delta, whose own base is found where `base` is
    not given.

    Raises `ParameterError` for two adapters, or an adapter that does not name its base.
    """
    if (is_delta := is_delta_folder(Path(model))) or is_adapter_folder(Path(model)):
        if adapter is not None:
            already = "a stored delta" if is_delta else "an adapter already"
            raise ParameterError(f"{model} is {already}", advice="give the model that both are for, and one adapter")
        named = open_delta_folder(model).target.location if is_delta else open_adapter_folder(model).base
        adapter = model
        model = base if base is not None else (named or "")
        if not model:
            raise ParameterError(f"{adapter} does not name its base model", advice="give it as base")
    return OpenedModel(open_checkpoint_folder(model), None if adapter is None else str(adapter))


def refuse_own_input(out: Path, models: Sequence[OpenedModel], files: Sequence[Path]) -> None:
    """Raise `OutputError` where `out` is, or holds, a model or one of the files."""
    paths = list(files)
    for model in models:
        paths += [model.folder.path, *(header.path for header in model.folder.headers)]
        paths += [Path(model.adapter)] if model.adapter is not None else []
    place = out.resolve()
    if any(path.resolve() == place or place in path.resolve().parents for path in paths):
        raise OutputError(f"{out} holds a model or the pairs, which would be replaced", advice="write to another place")


@contextmanager
def merged_folder(model: OpenedModel, place: Path) -> Iterator[CheckpointFolder]:
    """The checkpoint itself; one with an adapter is merged in float32 into `place`, which is gone afterwards."""
    if model.adapter is None:
        yield model.folder
        return
    shutil.rmtree(place, ignore_errors=True)  # of a run that was killed
    place.mkdir()
    mark_private(place, _MERGED)
    save(model.point, place / "model", dtype="float32", hash=False)
    try:
        yield open_checkpoint_folder(place / "model")
    finally:
        shutil.rmtree(place)


def float_network(path: Path) -> Any:
    """The model in float32 on the best device, ready to answer."""
    network = pretrained(AutoModelForCausalLM, path, dtype=torch.float32)
    return network.to("cuda" if torch.cuda.is_available() else "mps" if has_gpu() else "cpu").eval()
