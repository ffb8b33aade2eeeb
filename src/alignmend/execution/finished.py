"""Whether an output that is already there is the finished work of the run that is asked to resume."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from alignmend.algebra.notation import notation
from alignmend.algebra.values import Checkpoint
from alignmend.errors import FileFormatError
from alignmend.execution.description import Description
from alignmend.execution.operands import file_states, identities, label_all, operands_of, states, versions
from alignmend.io.companions import is_tokenizer_file
from alignmend.io.copies import without_places
from alignmend.io.manifest import MANIFEST_NAME, Input, Manifest, read_manifest
from alignmend.io.published import published


def finished(
    out: Path,
    checkpoint: Checkpoint,
    description: Description,
    files: Mapping[str, int | None],
    companions: Mapping[str, Path],
) -> Manifest | None:
    """The manifest at `out` where it tells of the same recipe, arithmetic, inputs and versions, else None.

    `files` are names that must be among its outputs, with their sizes where they are known, `companions` what was to be
    copied beside them. Inputs and companions must not have changed since.
    """
    try:
        manifest = read_manifest(out)
        written = (out / MANIFEST_NAME).stat().st_mtime_ns
    except (FileFormatError, OSError):
        return None
    operands = operands_of(checkpoint)
    labels = label_all(operands, description.labels)
    wanted = Manifest(
        versions=versions(),
        recipe=None if description.recipe is None else dict(description.recipe),
        expression=notation(checkpoint, labels),
        inputs=identities(operands, labels, content_hash=False),
        data=dict(description.data),
        private=description.private,
    )
    wanted = published(wanted, description.home or out)
    same = (
        manifest.versions == wanted.versions
        and manifest.recipe == wanted.recipe
        and manifest.expression == wanted.expression
        and _headers(manifest.inputs) == _headers(wanted.inputs)
        and (wanted.recipe is not None or _locations(manifest.inputs) == _locations(wanted.inputs))
        and _headers(manifest.data) == _headers(wanted.data)
        and all(changed < written for _, _, changed in (*file_states(operands), *states(companions.values())))
        and _tokenizer(output.file for output in manifest.outputs) == _tokenizer(companions)
    )
    return manifest if same and _is_whole(manifest, out, {**files, **_sizes(companions)}) else None


def _sizes(companions: Mapping[str, Path]) -> dict[str, int | None]:
    """Of what is copied byte for byte; the config may have been told another dtype."""
    changed = (name for name, path in companions.items() if name == "config.json" or without_places(path) is not None)
    return {name: path.stat().st_size for name, path in companions.items()} | dict.fromkeys(changed)


def _tokenizer(names: Iterable[str]) -> set[str]:
    """One that has gone since it was copied tells of itself by no date."""
    return {name for name in names if is_tokenizer_file(name)}


def _locations(inputs: Mapping[str, Input]) -> dict[str, str]:
    """What a recipe says by itself: folders of one name may hold weights of one layout."""
    return {role: given.location for role, given in inputs.items()}


def _headers(inputs: Mapping[str, Input]) -> dict[str, list[tuple[str, int, str]]]:
    return {role: [(one.file, one.bytes, one.header_sha256) for one in given.files] for role, given in inputs.items()}


def _is_whole(manifest: Manifest, out: Path, files: Mapping[str, int | None]) -> bool:
    sizes = {output.file: output.bytes for output in manifest.outputs}
    expected = all(name in sizes and size in (None, sizes[name]) for name, size in files.items())
    return expected and all((out / name).is_file() and (out / name).stat().st_size == sizes[name] for name in sizes)
