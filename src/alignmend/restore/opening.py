"""The models of a restore: where they are, what they are to each other, and the one that is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignmend.algebra.values import Checkpoint
from alignmend.errors import MismatchError
from alignmend.recipes.build import open_references
from alignmend.recipes.schema import ModelReference


@dataclass(frozen=True)
class Opened:
    """The fine-tune and its parent, opened from headers, and where the loaded model comes from."""

    references: Mapping[str, ModelReference]
    """`finetuned`, `aligned`, and `unaligned` where it was given."""
    finetuned: Checkpoint
    aligned: Checkpoint
    layers: int

    @property
    def is_adapter(self) -> bool:
        """Whether the fine-tune is an adapter on the aligned model."""
        return self.finetuned.change is not None

    @property
    def size(self) -> int:
        """Elements of all tensors."""
        return sum(entry.size for entry in self.finetuned.root.folder.tensors.values())

    @property
    def dtype(self) -> str | None:
        """The name of the dtype that most of the weights have on disk; `None` for one without arithmetic."""
        sizes: dict[str, int] = {}
        for entry in self.finetuned.root.folder.tensors.values():
            sizes[entry.dtype] = sizes.get(entry.dtype, 0) + entry.size
        return _DTYPES.get(max(sizes, key=lambda name: sizes[name]))

    @property
    def folder(self) -> Path:
        """The whole model under the fine-tune: itself, or what its adapter stands on."""
        return self.finetuned.root.folder.path


_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


def open_all(finetuned: str, aligned: str, unaligned: str | None) -> Opened:
    """Open the models by folder or hub id; raises what opening raises, before any weight is read."""
    named = {"finetuned": finetuned, "aligned": aligned} | ({} if unaligned is None else {"unaligned": unaligned})
    plain = {role: ModelReference(path=_absolute(path)) for role, path in named.items()}
    found = open_references(plain)
    bases = {role: one.change is not None for role, one in found.items()}
    references = {
        role: one.model_copy(update={"base": "aligned"}) if bases[role] and role != "aligned" else one
        for role, one in plain.items()
    }
    if bases["aligned"]:
        raise MismatchError(
            f"--aligned {aligned} is an adapter", advice="give the whole model that the fine-tune began at"
        )
    found = open_references(references)
    return Opened(references, found["finetuned"], found["aligned"], _layers(found["aligned"].root.folder.config))


def _absolute(written: str) -> str:
    path = Path(written).expanduser()
    return str(path.resolve()) if path.exists() else written


def _layers(config: Mapping[str, Any]) -> int:
    text: Any = config.get("text_config") or config
    count = text.get("num_hidden_layers", text.get("n_layer", text.get("num_layers")))
    if not isinstance(count, int) or count < 1:
        raise MismatchError("the model's config.json does not say how many decoder layers it has (num_hidden_layers)")
    return count


def load(opened: Opened, *, device: str | None, dtype: str) -> tuple[Any, Any]:
    """The model that weights are put into, and the fine-tune's tokenizer (an adapter may have one of its own)."""
    from alignmend.evaluation.devices import adapted_tokenizer, load_model

    model, tokenizer = load_model(opened.folder, device, dtype)
    folder = opened.finetuned.root.folder
    if folder.resized:  # every row is put into it
        model.resize_token_embeddings(
            max(folder.tensors[name].shape[0] for name in folder.resized), mean_resizing=False
        )
    speaker = opened.finetuned.speaker
    return model, tokenizer if speaker is None else adapted_tokenizer(speaker.path, tokenizer)
