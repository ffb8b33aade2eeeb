"""`alignmend.json`: what an output was made of, by which arithmetic, and what its files must be."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from alignmend.errors import FileFormatError, OutputError
from alignmend.io.atomic import close_to_others
from alignmend.io.strict_json import read_object, shown

MANIFEST_NAME = "alignmend.json"
STEERING_NAME = "steering.safetensors"
"""A steering vector that belongs to the checkpoint beside it."""
FORMAT_VERSION: Literal[1] = 1
MAX_MANIFEST_BYTES = 100_000_000

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ByteCount = Annotated[int, Field(ge=0)]
_FILE_NAME = re.compile(r"[^/\\\0]+(/[^/\\\0]+)*")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Versions(_Part):
    """The software that wrote the output."""

    alignmend: str
    libraries: dict[str, str] = {}
    """Distribution name -> version, of what took part in the arithmetic."""


class Method(_Part):
    """A published method that the recipe uses."""

    name: str
    title: str | None = None
    """Title of the paper."""
    arxiv: str | None = None
    equation: str | None = None


class InputFile(_Part):
    """One weight file of an input."""

    file: str
    bytes: ByteCount
    header_sha256: Sha256
    sha256: Sha256 | None = None


class Input(_Part):
    """Identity of one input, as `identity` gives it."""

    location: str
    revision: str | None = None
    files: list[InputFile] = []


class OutputFile(_Part):
    """One file of the output; a relative path with `/`."""

    file: str
    bytes: ByteCount
    sha256: Sha256 | None = None

    @field_validator("file")
    @classmethod
    def _stays_inside(cls, value: str) -> str:
        if not _FILE_NAME.fullmatch(value) or {".", ".."} & set(value.split("/")):
            raise ValueError("must be a relative path inside the output folder")
        return value


class TensorRounding(_Part):
    """How far rounding moved one tensor's step."""

    name: str
    relative_error: float | None
    """Norm of (realised step - intended step) over norm of the intended step; None where the step is zero."""
    details: dict[str, JsonValue] = {}


class Rounding(_Part):
    """The step that was meant against the step that the output dtype could hold."""

    dtype: str
    mode: Literal["nearest", "stochastic"] = "nearest"
    seed: int | None = None
    relative_error: float | None = None
    """Over all tensors together, as for one."""
    worst: list[TensorRounding] = []
    details: dict[str, JsonValue] = {}


class TensorVectors(_Part):
    """The two vectors of a realignment on one tensor."""

    name: str
    task_norm: float
    safety_norm: float
    cosine: float | None = None
    """None where one of them is zero."""


class Vectors(_Part):
    """Task delta = finetuned - aligned and safety vector = aligned - unaligned: Frobenius norms over all weights, and
    the cosine of the angle between them. An estimate where `sampled` is less than `weights`.
    """

    task_norm: float
    safety_norm: float
    cosine: float
    sampled: int
    weights: int
    tensors: list[TensorVectors] = []
    """Where every weight was read."""


class PatchTensor(_Part):
    """One tensor of a patch, as for the whole."""

    name: str
    kept: int
    weights: int
    norm: float
    cosines: dict[str, float | None] = {}


class Patch(_Part):
    """A labelled part of the change, as its mask left it, before coefficients and rescaling."""

    label: str
    kept: int
    """Weights where its mask is true."""
    weights: int
    """Out of how many: those of the tensors that it changes at all."""
    norm: float
    cosines: dict[str, float | None] = {}
    """With the parts listed before it; None where one of the two is zero."""
    tensors: list[PatchTensor] = []


class StoredDelta(_Part):
    """How a folder holds a delta."""

    form: Literal["dense", "sparse"]
    """`dense`: whole tensors; `sparse`: per tensor the flat indices and the values of what is not zero."""
    target: str
    """Which of the inputs it is to be added to."""
    tensors: ByteCount
    """How many tensors it changes."""
    values: ByteCount
    """How many numbers are stored."""


class Manifest(_Part):
    """The whole of `alignmend.json`."""

    format_version: Literal[1] = FORMAT_VERSION
    versions: Versions
    recipe: dict[str, JsonValue] | None = None
    expression: str
    methods: list[Method] = []
    parameters: dict[str, JsonValue] = {}
    inputs: dict[str, Input] = {}
    """By role."""
    data: dict[str, Input] = {}
    """Files beside the models that the result depends on, such as pairs."""
    outputs: list[OutputFile] = []
    rounding: Rounding | None = None
    vectors: Vectors | None = None
    patches: list[Patch] = []
    delta: StoredDelta | None = None
    """For a delta that is stored by itself."""
    private: bool = False
    """True for working files that must not be published, such as an unaligned model."""
    notes: list[str] = []

    @field_validator("outputs")
    @classmethod
    def _each_once(cls, value: list[OutputFile]) -> list[OutputFile]:
        names = [output.file for output in value]
        if len(set(names)) != len(names):
            raise ValueError("lists a file twice")
        return sorted(value, key=lambda output: output.file)


def manifest_bytes(manifest: Manifest) -> bytes:
    """The one JSON text of `manifest`: sorted keys, outputs by name, no clock in it."""
    value = manifest.model_dump(mode="json")
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write `manifest` to the file `path` and flush it to the disk; raises `OutputError`.

    A private one closes its folder to others.
    """
    try:
        with path.open("wb") as file:
            file.write(manifest_bytes(manifest))
            file.flush()
            os.fsync(file.fileno())
        if manifest.private:
            close_to_others(path.parent)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror})", advice="check the disk and its rights"
        ) from None


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an output `folder`; raises `FileFormatError` when it is missing or malformed."""
    path = folder / MANIFEST_NAME
    advice = "only folders written by alignmend have a manifest; an altered one must be written again"
    value = read_object(path, limit=MAX_MANIFEST_BYTES, advice=advice)
    if (version := value.get("format_version")) != FORMAT_VERSION:
        raise FileFormatError(
            f"{path} has format_version {shown(version)}, this alignmend reads {FORMAT_VERSION}",
            advice="update alignmend",
        )
    try:
        return Manifest.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        raise FileFormatError(f"{path}: {shown(at)}: {first['msg']}", advice=advice) from None
