"""What an output may tell of its inputs when it is uploaded: no place on this machine, no name of an unaligned model.

A folder is told by a path relative to the output where both lie in one project, else by a hash of what is in it. What
is not for others (answers, the report, the search) lies in `OUT-report` beside `OUT`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignmend.errors import AlignmendError
from alignmend.io.atomic import replace_bytes
from alignmend.io.hub import find, is_hub_id
from alignmend.io.identity import sha256_of
from alignmend.io.manifest import Manifest
from alignmend.io.private import is_private
from alignmend.io.session import header_of

HASHED = "sha256:"
"""How a location begins that is told by a hash."""
BASE_NAME = "base.json"
"""In a report folder: where the base of an adapter is on this machine."""
_HIDDEN_ROLES = frozenset({"unaligned", "harmful", "safety", "over_safety"})
"""Roles of models that were trained to be worse."""
_PROJECT_DEPTH = 2
"""A relative path says nothing of the machine where both places share this many folders from the root."""
_HEX = 16
_SAMPLES, _SAMPLE_BYTES = 8, 1 << 16
_CACHED = re.compile(r"models--([^/]+?)--([^/]+)/snapshots/[0-9a-f]{40}/?$")
_ABSOLUTE = re.compile(r"(?<![\w.:/~])(?:~|/)(?:[^\s/'\"`,;:()<>|]+/)+([^\s/'\"`,;:()<>|]+)")


def report_folder(out: Path) -> Path:
    """`OUT-report`, beside `out`: where what is not to be uploaded lies."""
    plain = out if out.name not in ("", "..") else out.resolve()
    return plain.with_name(f"{plain.name}-report")


def reported(out: Path) -> Path:
    """The report folder that belongs to `out`; of a link also that beside what it leads to."""
    places = (report_folder(out), report_folder(out.resolve()))
    return next((place for place in places if place.is_dir()), places[0])


def is_hidden(role: str) -> bool:
    """Whether a role is that of an unaligned model."""
    return role.partition("[")[0] in _HIDDEN_ROLES


@dataclass
class Publisher:
    """Rewrites locations for an output that will stand at `out`."""

    out: Path
    words: frozenset[str] = frozenset()
    """Roles: words of an expression, whatever folders are called."""
    known: dict[str, str] = field(default_factory=dict)
    """Location as written -> as published."""

    def location(self, written: str, *, hidden: bool = False) -> str:
        """A hub id, a path relative to the output, or a hash."""
        if written.startswith(HASHED):
            return written
        if not (hidden or self._is_private(written)):
            told = self._told(written)
        else:
            told = self._hashed(written)
            self._know(Path(written).name, told)
        self._know(written, told)
        return told

    def _know(self, written: str, told: str) -> None:
        if written not in ("", told, *self.words, *_HIDDEN_ROLES):
            self.known[written] = told

    def text(self, text: str) -> str:
        """Free text without the places that are known, nor any other absolute path."""
        for written in sorted(self.known, key=len, reverse=True):
            pattern = rf"(?<![\w./-]){re.escape(written)}(?![\w-])"
            if re.fullmatch(r"[^\W\d_]+", written):  # a word, and a name only where a message quotes it
                pattern = rf"(?<=\(){re.escape(written)}(?=\))"
            text = re.sub(pattern, self.known[written].replace("\\", "\\\\"), text)
        return _ABSOLUTE.sub(lambda match: match[1], text)

    def tree(self, value: Any) -> Any:
        """Plain JSON with every text in it rewritten, but for keys."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self.tree(one) for key, one in value.items()}
        return [self.tree(one) for one in value] if isinstance(value, list | tuple) else value

    def recipe(self, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """A recipe in plain JSON, its models and data told as the output may tell them."""
        models = {
            role: [self._model(role, one) for one in given] if isinstance(given, list) else self._model(role, given)
            for role, given in recipe.get("models", {}).items()
        }
        data = {
            name: [self.location(one) for one in given] if isinstance(given, list) else self.location(given)
            for name, given in recipe.get("data", {}).items()
        }
        rest = {key: self.tree(value) for key, value in recipe.items() if key not in ("models", "data")}
        told = {"models": models, **({"data": data} if data else {})}
        return {key: told.get(key, rest.get(key)) for key in recipe}

    def _model(self, role: str, given: Any) -> Any:
        if isinstance(given, str):
            return self.location(given, hidden=is_hidden(role))
        if not isinstance(given, Mapping) or not isinstance(given.get("path"), str):
            return self.tree(given)
        told = {**given, "path": self.location(given["path"], hidden=is_hidden(role))}
        if told["path"].startswith(HASHED):
            told.pop("revision", None)
        base = given.get("base")
        if isinstance(base, str) and (Path(base).exists() or is_hub_id(base)):
            told["base"] = self.location(base)
        return told

    def _told(self, written: str) -> str:
        path = Path(written).expanduser()
        if path.is_relative_to(report_folder(self.out).resolve()):  # also what will lie there only later
            return Path(os.path.relpath(path, self.out.resolve())).as_posix()
        if not path.exists():
            is_told = is_hub_id(written) or (
                written.startswith("../") and Path(os.path.normpath(self.out / written)).exists()
            )
            return written if is_told else self._hashed(written)
        if (cached := _CACHED.search(path.resolve().as_posix())) is not None:
            return f"{cached[1]}/{cached[2]}"
        return relative(path, self.out) or self._hashed(written)

    def _hashed(self, written: str) -> str:
        return f"{HASHED}{digest_of(written)}"

    @staticmethod
    def _is_private(written: str) -> bool:
        path = Path(written).expanduser()
        return path.exists() and is_private(path if path.is_dir() else path.parent)


def relative(path: Path, out: Path) -> str | None:
    """`path` as seen from `out`, where both lie in one project; else None."""
    there, here = path.resolve(), out.resolve()
    shared = os.path.commonpath([there, here])
    if len(Path(shared).parts) - 1 < _PROJECT_DEPTH or there == here:
        return None
    return Path(os.path.relpath(there, here)).as_posix()


def digest_of(written: str) -> str:
    """The beginning of a SHA-256: of a file, or of the headers and of samples of the weights that are at a location.

    Of what cannot be read it is one of its name.
    """
    digest = hashlib.sha256()
    try:
        path = find(written).path
        if path.is_file() and path.suffix != ".safetensors":
            return sha256_of(path)[:_HEX]
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        for file in files:
            digest.update(_sampled(file))
    except (AlignmendError, OSError):
        files = []
    return (digest if files else hashlib.sha256(written.encode("utf-8", "surrogateescape"))).hexdigest()[:_HEX]


def _sampled(file: Path) -> bytes:
    """Headers are alike for every fine-tune of one model, so some weights are looked at too."""
    header = header_of(file)
    digest = hashlib.sha256(f"{header.header_hash} {header.size}".encode())
    with file.open("rb") as opened:
        for sample in range(_SAMPLES):
            opened.seek(max(0, header.size * (sample + 1) // _SAMPLES - _SAMPLE_BYTES))
            digest.update(opened.read(_SAMPLE_BYTES))
    return digest.digest()


def published_base(location: str, out: Path) -> str | None:
    """The base that an adapter at `out` may name; `None` where that would be a place on this machine."""
    told = Publisher(out).location(location)
    return None if told.startswith(HASHED) else told


def note_base(out: Path, base: Path) -> None:
    """Keep where the base of an adapter at `out` is, out of what is uploaded."""
    place = report_folder(out)
    place.mkdir(parents=True, exist_ok=True)
    replace_bytes(place / BASE_NAME, (json.dumps({"base": str(base.resolve())}) + "\n").encode())


def noted_base(out: Path) -> str | None:
    """What `note_base` kept, where it is there and leads to a folder."""
    try:
        said = json.loads((reported(out) / BASE_NAME).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    base = said.get("base") if isinstance(said, dict) else None
    return base if isinstance(base, str) and Path(base).is_dir() else None


def published(manifest: Manifest, out: Path) -> Manifest:
    """`manifest` as an output that will stand at `out` may tell it. One of a private folder stays as it is."""
    if manifest.private:
        return manifest
    publisher = Publisher(out, frozenset({*manifest.inputs, *manifest.data}))
    inputs = {}
    for role, one in manifest.inputs.items():
        location = publisher.location(one.location, hidden=is_hidden(role))
        revision = None if location.startswith(HASHED) else one.revision
        files = [
            file.model_copy(update={"file": f"{number}.safetensors"}) if location.startswith(HASHED) else file
            for number, file in enumerate(one.files, 1)
        ]
        inputs[role] = one.model_copy(update={"location": location, "revision": revision, "files": files})
    data = {
        name: one.model_copy(update={"location": publisher.location(one.location)})
        for name, one in manifest.data.items()
    }
    recipe = None if manifest.recipe is None else publisher.recipe(manifest.recipe)
    value = manifest.model_dump() | {
        "inputs": inputs,
        "data": data,
        "recipe": recipe,
        "parameters": publisher.tree(manifest.parameters),
        "notes": [publisher.text(note) for note in manifest.notes],
    }
    return Manifest.model_validate(value)
