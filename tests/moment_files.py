"""Files of input moments written by hand, in either way that they are stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from alignmend.io.manifest import Manifest, Versions, manifest_bytes
from alignmend.io.moments import MomentsRecord, TextKind, TextRecord, WeightRecord, tensor_name

Stored = Mapping[str, Tensor]
"""By input site: C, [n, n], or rows R with R^T R = C."""


def write_moments(
    path: Path,
    kinds: Mapping[TextKind, Stored],
    weights: Mapping[str, str] | None = None,
    *,
    texts: int = 300,
    positions: int = 1500,
    transposed: Collection[str] = (),
    left_out: Sequence[str] = (),
    fingerprints: Mapping[str, str] | None = None,
    **changes: Any,
) -> Path:
    """`weights` says which weight meets which site; each its own where left out."""
    sites = next(iter(kinds.values()))
    shared = weights or {site: site for site in sites}
    record = MomentsRecord(
        positions="last",
        answer_tokens=4,
        template="chat",
        kinds={kind: TextRecord(texts=texts, positions=positions) for kind in kinds},
        weights={name: WeightRecord(site=site, transposed=name in transposed) for name, site in shared.items()},
        left_out=list(left_out),
        fingerprints=dict(fingerprints or {}),
    ).model_copy(update=changes)
    manifest = Manifest(
        versions=Versions(alignmend=metadata.version("alignmend"), libraries={}),
        expression="moments by hand",
        inputs={},
    )
    tensors = {tensor_name(kind, site): values for kind, found in kinds.items() for site, values in found.items()}
    texts_of = {"moments": record.model_dump_json(), "alignmend": manifest_bytes(manifest).decode(), "run": "by hand"}
    save_file({name: values.float().contiguous().clone() for name, values in tensors.items()}, path, metadata=texts_of)
    return path
