"""Which weights answered: a hash that costs milliseconds whatever the model's size."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

SAMPLES_PER_TENSOR = 1024
SAMPLES_PER_FILE = 4096
_SAMPLE_BYTES = 64


def model_fingerprint(model: Any) -> str:
    """SHA-256 over every tensor's name, dtype, shape and up to 1,024 evenly spaced elements, in hex.

    Two models that differ in all weights (another training, another coefficient) have different
    fingerprints; a change to single elements that are not sampled goes unseen. Hooks are not part of it.
    """
    import torch

    digest = hashlib.sha256()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            flat = tensor.detach().reshape(-1)
            sample = flat[:: max(1, flat.numel() // SAMPLES_PER_TENSOR)].contiguous().cpu()
            digest.update(sample.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def folder_fingerprint(*paths: Path | str) -> str:
    """SHA-256 over name, size and up to 4,096 evenly spaced samples of every weight file, in hex.

    Of a checkpoint, or of a base and the adapter on it, for an engine that keeps the weights to itself. A hub id
    stands for itself: weights that change under it go unseen. It differs from `model_fingerprint` of the same weights.
    """
    digest = hashlib.sha256()
    for path in paths:
        _add_folder(digest, path)
    return digest.hexdigest()


def _add_folder(digest: Any, path: Path | str) -> None:
    folder = Path(path)
    if not folder.is_dir():
        digest.update(f"hub {path}".encode())
        return
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as content:
            for start in range(0, size, max(_SAMPLE_BYTES, size // SAMPLES_PER_FILE)):
                content.seek(start)
                digest.update(content.read(_SAMPLE_BYTES))
