"""Loads a suite: a known one by its name (from a local copy or the hub), or a file of the user's own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alignmend.errors import AlignmendError, FileFormatError, RecipeError
from alignmend.evaluation.records import Expected, Prompt
from alignmend.evaluation.suites.definition import SHIPPED, Copy, Definition, definitions, get_definition
from alignmend.evaluation.suites.hub import hub_file
from alignmend.evaluation.suites.rows import Defaults, numbered, to_prompt
from alignmend.evaluation.suites.structure import misfits, repetition_note
from alignmend.evaluation.suites.suite import Origin, Suite
from alignmend.evaluation.suites.tables import SUFFIXES, Placed, read_table

ALL_SPLITS = "all"


def load_suite(
    source: str | Path,
    *,
    data_dir: str | Path | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    name: str | None = None,
    expected: Expected | None = None,
    language: str | None = None,
    complete: bool = True,
) -> Suite:
    """The suite called `source`, or in the file `source`; named `name`, or as it is known, or by the file's stem.

    A known suite is read from its local copy in `data_dir` if there is one, else from the hub (cache first), one that
    ships with this package always from there; its published size and structure are checked, unless a part of it will
    do (not `complete`). A sample of one is named `NAME-sample`.
    A file (JSONL, JSON, CSV, TSV, plain lines, Parquet) has `prompt` and optionally `id` (default: the line's
    number), `category`, `subcategory`, `language`, `expected` (`refuse` or `comply`), `answer`, `scoring`, `split`,
    `source`; other columns are kept in `Prompt.extra`.
    `expected` and `language` are for prompts that say none; with `language`, prompts in another one are left out.
    `split` keeps one split (default: the suite's own, or all; `all` keeps all), `limit` a sample of that many prompts.
    `RecipeError` for an unknown name, split or language, `FileFormatError` for a file that is not what it should be.
    """
    asked = _Asked(Defaults("", expected=expected, language=language), split, name, complete)
    if isinstance(source, str) and not _is_path(source):
        suite = _load_known(
            source, get_definition(source), None if data_dir is None else Path(data_dir).expanduser(), asked
        )
    else:
        suite = _load_file(Path(source), asked)
    return suite if limit is None else suite.limited(limit, seed)


@dataclass(frozen=True)
class _Asked:
    """What the caller said."""

    defaults: Defaults
    split: str | None
    name: str | None
    complete: bool


def _is_path(source: str) -> bool:
    if source in definitions():
        return False
    return "/" in source or "\\" in source or source.endswith((*SUFFIXES, ".gz")) or Path(source).exists()


def _load_file(path: Path, asked: _Asked) -> Suite:
    defaults = replace(asked.defaults, suite=asked.name or path.name.split(".")[0])
    prompts = [to_prompt(f"{path}, {place}", row, place.split()[-1], defaults) for place, row in read_table(path)]
    kept = _selected(prompts, asked, asked.split, str(path))
    origin = Origin(path.name, _sha256(path), notes=repetition_note(kept))
    return Suite(defaults.suite, kept, origin=origin)


def _load_known(name: str, definition: Definition, data_dir: Path | None, asked: _Asked) -> Suite:
    copy, paths, origin = _find(name, definition, data_dir)
    shown = asked.name or (f"{name}-sample" if copy.sample else name)
    prompts = _prompts(shown, definition, copy, paths, asked)
    origin = _checked(prompts, definition, copy, origin) if asked.complete else origin
    split = asked.split or definition.default_split
    kept = _selected(prompts, asked, split, name)
    notes = (*origin.notes, *_selection_notes(definition, copy, prompts, kept, split), *repetition_note(kept))
    return Suite(shown, kept, kind=definition.kind, licence=definition.licence, origin=replace(origin, notes=notes))


def _find(name: str, definition: Definition, data_dir: Path | None) -> tuple[Copy, list[Path], Origin]:
    """The copy to read, its files, and where they come from."""
    shipped = next((copy for copy in definition.copies if copy.shipped), None)
    if shipped is not None:
        return _from_file(shipped, SHIPPED / (shipped.file or ""))
    files = [copy for copy in definition.copies if copy.file]
    if data_dir is not None and not data_dir.is_dir():
        raise FileFormatError(f"{data_dir}: not a folder; the folder with local copies of suites is needed")
    for copy in files if data_dir is not None else ():
        path = (data_dir or Path()) / (copy.file or "")
        if path.is_file():
            return _from_file(copy, path)
    problems = [] if data_dir is None else [f"{data_dir} has no {' or '.join(copy.file or '' for copy in files)}"]
    for copy in definition.copies:
        if copy.hub is None:
            continue
        try:
            return _from_hub(copy, copy.hub)
        except AlignmendError as error:
            problems.append(str(error))
    problems = problems or ["it is not on the hub, and no folder with a local copy was given"]
    raise FileFormatError(f"suite {name!r}: {'; '.join(problems)}. How to get it: {definition.how_to_get}")


def _from_file(copy: Copy, path: Path) -> tuple[Copy, list[Path], Origin]:
    return copy, [path], Origin(path.name, _sha256(path), copy=copy.name)


def _from_hub(copy: Copy, repository: str) -> tuple[Copy, list[Path], Origin]:
    found = [hub_file(repository, path, copy.revision) for path in copy.path]
    paths = [path for path, _ in found]
    location = f"{repository}/{copy.path[0]}" + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
    return copy, paths, Origin(location, _sha256(*paths), revision=found[0][1] or copy.revision, copy=copy.name)


def _prompts(name: str, definition: Definition, copy: Copy, paths: Sequence[Path], asked: _Asked) -> list[Prompt]:
    defaults = Defaults(
        name,
        expected=asked.defaults.expected or definition.expected,
        language=definition.language or asked.defaults.language,
        split=copy.split,
        source=copy.hub or copy.address or definition.address,
        family=definition.translations,
    )
    rows: list[tuple[str, Placed]] = []
    for place, path in enumerate(paths):
        group = {"category": copy.groups[place]} if copy.groups else {}
        made = numbered(read_table(path, headerless=copy.headerless), path, copy)
        rows += [(str(len(rows) + n), (where, group | row)) for n, (where, row) in enumerate(made)]
    return [to_prompt(where, row, number, defaults) for number, (where, row) in rows]


def _checked(prompts: Sequence[Prompt], definition: Definition, copy: Copy, origin: Origin) -> Origin:
    """`origin` with a note where the hash is another than the known one; an error where size or structure differ."""
    wrong = misfits(prompts, definition, copy)
    if wrong:
        raise FileFormatError(
            f"{origin.location}: this is not {definition.title} as published: it has {'; '.join(wrong)}. Get it again "
            f"({definition.how_to_get}), or give the file itself as the suite if it is yours"
        )
    if copy.sha256 is None or copy.sha256 == origin.sha256:
        return origin
    note = f"the file's SHA-256 is not the known {copy.sha256[:12]}...; size and structure are as published"
    return replace(origin, notes=(*origin.notes, note))


def _selected(prompts: Sequence[Prompt], asked: _Asked, split: str | None, where: str) -> tuple[Prompt, ...]:
    kept = prompts
    for column, wanted in (("split", None if split == ALL_SPLITS else split), ("language", asked.defaults.language)):
        if wanted is None:
            continue
        found = sorted({repr(getattr(prompt, column)) for prompt in kept})
        kept = [prompt for prompt in kept if getattr(prompt, column) == wanted]
        if not kept:
            raise RecipeError(f"{where}: no prompt has {column} {wanted!r}; {column}s found: {', '.join(found)}")
    return tuple(kept)


def _selection_notes(
    definition: Definition, copy: Copy, prompts: Sequence[Prompt], kept: Sequence[Prompt], split: str | None
) -> list[str]:
    notes = [f"a sample of {len(prompts)} of {definition.size} prompts"] if copy.sample else []
    if len(kept) < len(prompts):
        part = f"split {split!r}" if split not in (None, ALL_SPLITS) else "one language"
        notes.append(f"{part}: {len(kept)} of {len(prompts)} prompts")
    return notes


def _sha256(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
