"""Input moments on disk: one safetensors file, with what its matrices belong to in the header's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NoReturn, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alignmend.errors import FileFormatError
from alignmend.io.header import Header
from alignmend.io.session import header_of
from alignmend.io.strict_json import shown
from alignmend.io.tensors import TensorEntry

TextKind = Literal["harmful", "harmless", "borderline"]
KINDS: tuple[TextKind, ...] = get_args(TextKind)
METADATA_KEY = "moments"
"""Where the header holds the record."""
_ADVICE = "make it anew with  alignmend moments"
_Count = Annotated[int, Field(ge=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TextRecord(_Part):
    """The texts of one kind."""

    texts: _Count
    positions: _Count
    """Tokens over which the mean was taken."""


class WeightRecord(_Part):
    """One weight that has moments."""

    site: str
    """The input that it shares with other weights: the name of the first of them."""
    transposed: bool = False
    """Whether the matrix is stored (in, out)."""


class MomentsRecord(_Part):
    """What the matrices of a file are."""

    format_version: Literal[1] = 1
    positions: Literal["last", "all"]
    answer_tokens: int = Field(ge=0)
    template: str
    kinds: dict[TextKind, TextRecord]
    weights: dict[str, WeightRecord]
    """By name on disk."""
    left_out: list[str]
    """Matrices inside decoder layers whose inputs are not seen, such as those of experts."""
    fingerprints: dict[str, str]
    """Of the model in which the inputs were seen, and of the adapter or delta on it."""

    @property
    def sites(self) -> tuple[str, ...]:
        """Every input site once, in the order of the weights."""
        return tuple(dict.fromkeys(weight.site for weight in self.weights.values()))


@dataclass(frozen=True)
class MomentsFile:
    """A file of moments, known from its header; no matrix has been read."""

    location: str
    """What the user wrote."""
    path: Path
    header: Header
    record: MomentsRecord

    @property
    def headers(self) -> tuple[Header, ...]:
        """Of the one file."""
        return (self.header,)

    @property
    def revision(self) -> str | None:
        """Moments do not come from the hub."""
        return None

    def entry(self, kind: TextKind, site: str) -> TensorEntry:
        """The mean of x x^T, [size, size], or fewer rows R, [rows, size], with R^T R in its place."""
        return self.header.entries[tensor_name(kind, site)]

    @property
    def sizes(self) -> Mapping[str, int]:
        """How wide each site is."""
        kind = next(iter(self.record.kinds))
        return {site: self.entry(kind, site).shape[1] for site in self.record.sites}


def tensor_name(kind: TextKind, site: str) -> str:
    """What the matrix of a kind of text at a site is called."""
    return f"{kind}/{site}"


def open_moments_file(location: str | Path) -> MomentsFile:
    """Open what `alignmend moments` wrote; raises `FileFormatError` for what is missing, truncated or damaged."""
    header = header_of(Path(location))
    text = header.metadata.get(METADATA_KEY)
    if text is None:
        raise FileFormatError(f"{location} holds no input moments", advice="give a file that  alignmend moments  wrote")
    try:
        record = MomentsRecord.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        raise FileFormatError(
            f"{location}: its record of moments: {shown(at)}: {first['msg']}", advice=_ADVICE
        ) from None
    if not record.kinds or not record.weights:
        raise FileFormatError(
            f"{location} holds moments of no {('texts' if record.weights else 'weights')}", advice=_ADVICE
        )
    _check_tensors(header, record)
    return MomentsFile(str(location), header.path, header, record)


def _check_tensors(header: Header, record: MomentsRecord) -> None:
    """Every kind has a matrix of one width for every site, and there is nothing else."""
    expected = {tensor_name(kind, site): site for site in record.sites for kind in record.kinds}
    if missing := [name for name in expected if name not in header.entries]:
        _refuse(header, missing[0], f"is missing ({len(missing)} of {len(expected)} matrices are)")
    widths: dict[str, int] = {}
    for name, entry in header.entries.items():
        if name not in expected:
            _refuse(header, name, "is none of the matrices that the file speaks of")
        if entry.dtype != "F32" or len(entry.shape) != 2 or not 0 < entry.shape[0] <= entry.shape[1]:
            _refuse(header, name, f"is {entry.dtype} {list(entry.shape)}, not a square float32 matrix or fewer rows")
        if widths.setdefault(expected[name], entry.shape[1]) != entry.shape[1]:
            _refuse(header, name, "is as wide as no other kind of text has it")


def _refuse(header: Header, name: str, problem: str) -> NoReturn:
    raise FileFormatError(f"{header.path}: {shown(name)} {problem}", advice=_ADVICE)
