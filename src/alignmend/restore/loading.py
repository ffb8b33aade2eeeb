"""A restored model as one thing: its weights, its tokenizer, and the steering vector that belongs to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load(
    folder: str | Path, *, device: str | None = None, dtype: str = "auto", steering: bool = True
) -> tuple[Any, Any]:
    """Model and tokenizer of a folder (or cached hub id), steered by its own vector for as long as the model lives.

    A checkpoint without `steering.safetensors` is loaded as it is, and so is any with `steering` false. `device` is a
    GPU where there is one, unless given; `dtype` `auto` is float32 on a CPU, the stored one elsewhere.
    """
    from alignmend.activations.attached import attached
    from alignmend.evaluation.devices import load_model

    found = attached(folder) if steering else None
    model, tokenizer = load_model(folder, device, dtype)
    if found is not None:
        vector, how = found
        vector.install(model, how)
    return model, tokenizer


def backend_of(folder: str | Path, *, device: str | None = None, dtype: str = "auto", **options: Any) -> Any:
    """A folder as a backend that answers prompts, steered by its own vector; `options` are `TransformersBackend`'s."""
    from alignmend.activations.attached import attached, describe
    from alignmend.evaluation.generation import TransformersBackend

    found = attached(folder)
    if found is not None:
        vector, how = found
        options |= {
            "steering": lambda model: vector.steer(model, how),
            "steering_description": describe(vector, how),
        }
    return TransformersBackend.from_folder(folder, device=device, dtype=dtype, **options)
