"""The tensors of an adapter, gathered into parts and checked against its options."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from alignmend.errors import FileFormatError, UnsupportedFormatError
from alignmend.io.adapter_config import AdapterConfig
from alignmend.io.adapter_keys import Role, not_understood, read_keys
from alignmend.io.adapter_parts import (
    AdapterPart,
    DoraPart,
    LowRankPart,
    ParameterPart,
    ReplacedPart,
    TokenRowsPart,
)
from alignmend.io.header import Header
from alignmend.io.same_values import same_values
from alignmend.io.tensors import ARITHMETIC_DTYPES, TensorEntry

WRAPPED = ".base_layer"
"""What stands in the name of a module once for each further parameter of it that PEFT has wrapped."""
_MERGE = "let PEFT merge the adapter (merge_and_unload) and give the merged folder"


def collect_parts(header: Header, config: AdapterConfig) -> dict[str, tuple[AdapterPart, ...]]:
    """Parameter name, sorted -> its parts. Raises as `open_adapter_folder` says."""
    path = header.path
    found: dict[str, dict[Role, TensorEntry]] = defaultdict(dict)
    for name, key in read_keys(path, sorted(header.entries)).items():
        _check_dtype(header.entries[name])
        if WRAPPED in key.parameter and not config.target_parameters:
            raise not_understood(path, name)
        if (known := found[key.parameter].get(key.role)) is not None:
            if same_values(known, header.entries[name]):  # PEFT saves some copies twice
                continue
            raise FileFormatError(
                f"{path}: {found[key.parameter][key.role].name} and {name} both change {key.parameter}",
                advice="save the adapter anew with one of them",
            )
        found[key.parameter][key.role] = header.entries[name]
    if not found:
        raise FileFormatError(
            f"{path} holds no adapter tensor", advice="fetch the adapter again, or save it anew with PEFT"
        )
    return {parameter: _parts(path, config, parameter, found[parameter]) for parameter in sorted(found)}


def _check_dtype(entry: TensorEntry) -> None:
    if entry.dtype not in ARITHMETIC_DTYPES:
        raise UnsupportedFormatError(
            f"{entry.path}: tensor {entry.name} is {entry.dtype}, where {', '.join(sorted(ARITHMETIC_DTYPES))} "
            "can be used",
            advice="save the adapter in one of these, on a base that is not quantized",
        )


def _parts(
    path: Path, config: AdapterConfig, parameter: str, roles: Mapping[Role, TensorEntry]
) -> tuple[AdapterPart, ...]:
    parts: list[AdapterPart] = []
    if "replaced" in roles:
        parts.append(ReplacedPart(roles["replaced"]))
    if "token_rows" in roles:
        parts.append(_token_rows(path, config, parameter, roles["token_rows"]))
    if roles.keys() - {"replaced", "token_rows"}:
        parts.append(_factored(path, config, parameter, roles))
    if "replaced" in roles:  # what else is changed, is changed on the copy
        own = roles["replaced"]
        parts = [replace(part, on=own) if isinstance(part, DoraPart | TokenRowsPart) else part for part in parts]
    return tuple(parts)


def _factored(
    path: Path, config: AdapterConfig, parameter: str, roles: Mapping[Role, TensorEntry]
) -> LowRankPart | DoraPart | ParameterPart:
    embedding = "embedding_a" in roles or "embedding_b" in roles
    a, b = (roles.get("embedding_a"), roles.get("embedding_b")) if embedding else (roles.get("a"), roles.get("b"))
    if a is None or b is None or (embedding and not roles.keys().isdisjoint(("a", "b"))):
        present = ", ".join(entry.name for entry in roles.values())
        raise FileFormatError(
            f"{path}: {parameter} needs exactly one A and one B, the file has {present}", advice="save the adapter anew"
        )
    module = parameter.removesuffix(".weight")
    if config.target_parameters and (WRAPPED in module or config.rank(module) != a.shape[0]):
        _check_shapes(path, a, b)
        return ParameterPart(a, b, module.count(WRAPPED))
    _check_factors(path, config, module, a, b)
    scale, transposed = config.scale(module, a.shape[0]), embedding or config.fan_in_fan_out
    magnitude = roles.get("magnitude")
    _check_magnitude(path, config, module, b, magnitude)
    if magnitude is None:
        return LowRankPart(a, b, scale, transposed, embedding)
    return DoraPart(a, b, scale, magnitude, transposed, embedding)


def _check_factors(path: Path, config: AdapterConfig, module: str, a: TensorEntry, b: TensorEntry) -> None:
    _check_shapes(path, a, b)
    claimed = config.rank(module)
    if claimed is not None and claimed != a.shape[0]:
        raise FileFormatError(
            f"{path}: {a.name} has rank {a.shape[0]}, but adapter_config.json gives {module} rank {claimed}, "
            "which leaves its scale alpha / rank open",
            advice="correct r or rank_pattern there",
        )


def _check_shapes(path: Path, a: TensorEntry, b: TensorEntry) -> None:
    shapes = f"{a.name} {list(a.shape)} and {b.name} {list(b.shape)}"
    if 0 in (*a.shape, *b.shape) or len(a.shape) < 2 or len(b.shape) < 2:
        raise FileFormatError(
            f"{path}: {shapes} are empty or flat, as when sharded parameters are saved without gathering them",
            advice="consolidate the training checkpoint and save the adapter anew",
        )
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise UnsupportedFormatError(
            f"{path}: {shapes} are factors of a convolution, only those of matrices can be used", advice=_MERGE
        )
    if a.shape[0] != b.shape[1]:
        raise FileFormatError(
            f"{path}: {shapes} do not share a rank ({a.shape[0]} and {b.shape[1]})", advice="save the adapter anew"
        )


def _check_magnitude(
    path: Path, config: AdapterConfig, module: str, b: TensorEntry, magnitude: TensorEntry | None
) -> None:
    if config.use_dora != (magnitude is not None):
        raise FileFormatError(
            f"{path}: use_dora is {str(config.use_dora).lower()}, but {module} has "
            f"{'a' if magnitude else 'no'} lora_magnitude_vector: the configuration belongs to other "
            "weights, fetch both again"
        )
    if magnitude is not None and magnitude.shape != b.shape[:1]:
        raise FileFormatError(
            f"{path}: {magnitude.name} has shape {list(magnitude.shape)}, where {b.name} needs {[b.shape[0]]}",
            advice="save the adapter anew",
        )


def _token_rows(path: Path, config: AdapterConfig, parameter: str, trained: TensorEntry) -> TokenRowsPart:
    module = parameter.removesuffix(".weight")
    given = config.trainable_token_indices
    if isinstance(given, dict):
        given = next((rows for name, rows in given.items() if f".{module}".endswith(f".{name}")), None)
    rows = tuple(given or ())
    fits = len(trained.shape) == 2 and trained.shape[0] == len(rows) == len(set(rows))
    if not fits or min(rows, default=-1) < 0:
        raise FileFormatError(
            f"{path}: {trained.name} has shape {list(trained.shape)}, but trainable_token_indices names "
            f"{len(rows)} rows ({', '.join(map(str, rows[:8]))}): they must be as many, all different, none "
            "negative"
        )
    return TokenRowsPart(trained, rows)
