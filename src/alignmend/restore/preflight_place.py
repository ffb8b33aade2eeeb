"""Preflight of the output: is its place free, can it be written, is nothing of the user's in the way?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from alignmend.errors import OutputError
from alignmend.restore.places import Places, check_free
from alignmend.restore.preflight_findings import Finding, from_error, ok, problem
from alignmend.restore.request import Request


def look_at_place(request: Request, folders: Mapping[str, Path], *, trains: bool) -> Iterator[Finding]:
    """Whether `request.out` can be written, and where everything else will lie; `folders` are the models' own."""
    places = Places(request.out)
    if not request.out.name:  # then nothing can lie beside it
        yield from _free(places, request)
        return
    inputs = _inputs(request, folders)
    found = [*_free(places, request), *_own_inputs(places, inputs), *_writable(places)]
    yield from found or [ok("output", f"{places.out} can be written")]
    yield from _held(places, request, trains=trains)


def existing_parent(path: Path) -> Path:
    """The nearest folder above `path` that is there."""
    return next(one for one in path.absolute().parents if one.is_dir())


def _free(places: Places, request: Request) -> Iterator[Finding]:
    try:
        check_free(places, resume=request.resume, overwrite=request.overwrite)
    except OutputError as error:
        yield from_error("output", error, "choose another folder")


def _inputs(request: Request, folders: Mapping[str, Path]) -> Mapping[str, Path]:
    files = {"harmful data": request.harmful_data, "contrast pairs": request.pairs, "task data": request.task_data}
    named = (*request.prompts.suites, *request.prompts.report_suites)
    suites = {f"suite {one}": Path(one) for one in named if Path(one).is_file()}
    given = {what: path.resolve() for what, path in (files | suites).items() if path is not None}
    return given | {role: path.resolve() for role, path in folders.items()}


def _own_inputs(places: Places, inputs: Mapping[str, Path]) -> Iterator[Finding]:
    """An output that would replace or hold what it is made from, or whose work folders are removed with it."""
    for what, path in inputs.items():
        out = places.out.resolve()
        if path == out or out in path.parents or (path.is_dir() and path in out.parents):
            told = f"{places.out} is, holds or lies in the {what} ({path})"
            yield problem("output", told, "write to another folder: --out DIR")
        for work in (places.work, places.private):
            if work.resolve() in (path, *path.parents):
                told = f"the {what} lies in {work}, which a restore removes when it is done"
                yield problem("output", told, "move it to another folder first, or choose another --out")


def _writable(places: Places) -> Iterator[Finding]:
    parent = existing_parent(places.out)
    if not os.access(parent, os.W_OK | os.X_OK):
        yield problem("output", f"{parent} cannot be written", "choose a folder of your own: --out DIR")


def _held(places: Places, request: Request, *, trains: bool) -> Iterator[Finding]:
    """What data is held where."""
    kept = "kept (--keep-private): never publish it" if request.keep_private else "deleted at the end"
    parts = f"models trained on the harmful pairs lie in {places.private}, marked private and {kept}"
    yield ok("private work", f"{parts}; the pairs are not copied" if trains else "nothing is trained")
    yield ok(
        "search work",
        f"journal, answers and the checkpoint in the making lie in {places.work}; at the end the journal and the "
        f"answers to the report prompts go into {places.out}, the rest is deleted",
    )
