"""Whether a model stems from another, estimated from a few blocks of each: distance and cosine before any work."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignmend.algebra.names import natural_key
from alignmend.execution.files import Files
from alignmend.io.tensors import TensorEntry

if TYPE_CHECKING:
    import numpy as np

TENSORS = 48
BLOCK = 4096
"""Elements read of each sampled tensor: kin and strangers are far apart."""
_KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class Kinship:
    """Of a model and the one it should stem from, over `sampled` weights: |model - parent| / |parent|, and the cosine
    of the two weight vectors: near 1 for a fine-tune, near 0 for strangers.
    """

    distance: float
    cosine: float
    sampled: int


Tensors = Mapping[str, TensorEntry]


def kinship(model: Tensors, parent: Tensors) -> Kinship | None:
    """How near `model` is to `parent`; `None` where they share no matrix of one shape, or are not finite."""
    import numpy as np

    names = [name for name in model if name in parent and _comparable(model[name], parent[name])]
    sums, sampled = np.zeros(4), 0
    with Files() as files:
        for name in spread(names):
            ours, theirs = (_middle(files, side[name]) for side in (model, parent))
            apart = ours - theirs
            products = np.array([ours @ ours, theirs @ theirs, ours @ theirs, apart @ apart], dtype=np.float64)
            if np.isfinite(products).all():  # saving tells by name of what is not finite
                sums += products
                sampled += len(ours)
    if not sampled:
        return None
    own, whole, apart_norm = np.sqrt(sums[[0, 1, 3]])
    return Kinship(float(apart_norm / (whole or 1.0)), float(sums[2] / (own * whole or 1.0)), sampled)


def nonfinite(model: Tensors) -> str | None:
    """The first of the sampled matrices with NaN or infinity in its sample."""
    import numpy as np

    names = [name for name in model if _comparable(model[name], model[name])]
    with Files() as files:
        return next((name for name in spread(names) if not np.isfinite(_middle(files, model[name])).all()), None)


def fingerprint(tensors: Tensors) -> str:
    """SHA-256 of names, dtypes, shapes and a few blocks: the same for the same weights, wherever they lie."""
    digest = hashlib.sha256()
    with Files() as files:
        for name in spread(list(tensors)):
            entry = tensors[name]
            count = min(BLOCK, entry.size)
            buffer = bytearray(count * entry.item_size)
            files.read(entry, (entry.size - count) // 2, memoryview(buffer))
            digest.update(f"{name} {entry.dtype} {list(entry.shape)}\n".encode())
            digest.update(buffer)
    return digest.hexdigest()


def spread(names: Sequence[str], most: int = TENSORS) -> list[str]:
    """At most `most` of `names`, evenly over layers for each projection: a plain stride could miss some of them."""
    ordered = sorted(names, key=lambda name: (_DIGITS.sub("", name), natural_key(name)))
    count = min(most, len(ordered))
    return [ordered[(2 * index + 1) * len(ordered) // (2 * count)] for index in range(count)]


def _comparable(model: TensorEntry, parent: TensorEntry) -> bool:
    floats = all(entry.dtype == "BF16" or entry.dtype in _KINDS for entry in (model, parent))
    return floats and model.shape == parent.shape and len(model.shape) > 1


def _middle(files: Files, entry: TensorEntry) -> np.ndarray:
    """A block from the middle of a tensor as float32; bfloat16 is its upper half."""
    import numpy as np

    count = min(BLOCK, entry.size)
    buffer = bytearray(count * entry.item_size)
    files.read(entry, (entry.size - count) // 2, memoryview(buffer))
    if entry.dtype == "BF16":
        upper = np.frombuffer(buffer, dtype="<u2").astype(np.uint32) << 16
        return upper.view(np.float32)
    return np.frombuffer(buffer, dtype=_KINDS[entry.dtype]).astype(np.float32, copy=False)
