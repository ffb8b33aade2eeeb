"""The member `edited`: facts of CounterFact written into the aligned member by R-ROME."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from alignmend.chat_families.sets import DataFolder
from alignmend.editing.apply import write_edited
from alignmend.editing.making import Editor, edit_model
from alignmend.editing.outcomes import EditOutcome
from alignmend.editing.requests import EditRequest, request_of
from alignmend.editing.rome import Edit
from alignmend.editing.settings import settings_for
from alignmend.errors import NotAppliedError, ParameterError
from alignmend.io.card import CARD_NAME
from alignmend.io.manifest import MANIFEST_NAME

FACTS = "counterfact"
_TRIES = 4
"""Facts that are tried for each edit that is wanted: some do not take."""


def facts(data: DataFolder, seed: int) -> list[EditRequest]:
    """Every fact that can be edited, in an order that the seed decides."""
    found = []
    for prompt in data.prompts(FACTS):
        try:
            found.append(request_of(prompt.text, str(prompt.extra["subject"]), str(prompt.extra["target_new"])))
        except (KeyError, ParameterError):  # no subject, or more than once
            continue
    Random(f"{seed} facts").shuffle(found)
    return found


def make_edited(
    directory: Path,
    requests: Sequence[EditRequest],
    count: int,
    load: Callable[[Path], tuple[Any, Any]],
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Write the member `edited`: `aligned` with the first `count` of `requests` that take.

    Returns what `family.json` says of it. Raises `NotAppliedError` where too few take.
    """
    start = "aligned"
    model, tokenizer = load(directory / start)
    editor = Editor(model, tokenizer, settings_for(model))
    edits, outcomes = _taken(editor, requests[: _TRIES * count], count, progress)
    if len(edits) < count:
        raise NotAppliedError(
            f"only {len(edits)} of {count} facts could be edited into {start}", advice="ask for fewer edits"
        )
    staged, final = directory / ".edited.part", directory / "edited"
    write_edited(directory / start, staged, edits, outcomes, overwrite=True)
    for name in (MANIFEST_NAME, CARD_NAME):  # a member is a plain folder: the note says what it is
        (staged / name).unlink()
    shutil.rmtree(final, ignore_errors=True)
    staged.rename(final)
    return {"edits": [f"{one.request.prompt} {one.request.target}" for one in edits]}


def _taken(
    editor: Editor, requests: Iterable[EditRequest], count: int, progress: Callable[[int, int], None]
) -> tuple[list[Edit], list[EditOutcome]]:
    edits: list[Edit] = []
    outcomes: list[EditOutcome] = []
    for request in requests:
        if len(edits) == count:
            break
        (edit,), (outcome,) = edit_model(editor, [request])
        if outcome.applied:
            edits.append(edit)
            outcomes.append(outcome)
            progress(len(edits), count)
        else:
            edit.revert()
    return edits, outcomes
