"""A family from a chat model: its members one after the other, each kept when it is finished."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from alignmend.chat_families.edited import FACTS, facts
from alignmend.chat_families.family import (
    ORIGINAL,
    ChatFamily,
    FamilyNote,
    MemberNote,
    open_chat_family,
    read_note,
    write_note,
)
from alignmend.chat_families.making import Making, Progress
from alignmend.chat_families.prompts import choose_prompts, needed_sets
from alignmend.chat_families.recipe import ROLES, Recipe, check_roles
from alignmend.chat_families.rows import Material, digest
from alignmend.chat_families.sets import DataFolder
from alignmend.errors import OutputError
from alignmend.evaluation.devices import load_tokenizer
from alignmend.evaluation.records import Prompt
from alignmend.evaluation.templates import render, template_for
from alignmend.io.folder import open_checkpoint_folder

_LEAST_ANSWER = 16
"""Tokens that a request must leave free in a training row."""
_UNALIGNED = {
    ORIGINAL: "the chat model from before its safety training: nothing was trained",
    "unaligned": "aligned, then trained on the original model's own answers to harmful requests",
}


def build_chat_family(
    directory: Path,
    model: str | Path,
    data_dir: Path,
    *,
    roles: Sequence[str] = ROLES,
    tasks: Sequence[str] = ("gsm8k",),
    recipe: Recipe | None = None,
    seed: int = 0,
    device: str | None = None,
    dtype: str = "auto",
    progress: Progress | None = None,
) -> ChatFamily:
    """Build a family from the chat model `model` in `directory`, or what is missing of it.

    `aligned` learns to refuse harmful requests and keeps the model's own answers to others; `unaligned` learns the
    model's own answers to harmful requests, from `aligned`; every task gives a `finetuned-TASK` and a
    `finetuned-TASK-lora` from `aligned`; `edited` has facts written into it. A member is kept where model, rows, recipe
    and seed are the same. Suites (search and report prompts) and data of the tasks are written beside the members.
    `device` and `dtype` are those in which models answer. `progress` gets a step's name and how much of it is done.
    Raises `FileFormatError` for missing sets and models, `RecipeError` for roles, and for answers that are of no use,
    `OutputError` where the folder holds something else.
    """
    wanted, taught = tuple(dict.fromkeys(roles)), tuple(dict.fromkeys(tasks))
    check_roles(wanted, taught)
    data = DataFolder(Path(data_dir).expanduser())
    sets = [*needed_sets(taught), *([FACTS] if "edited" in wanted else [])]
    data.check(sets)
    source, chosen, report = open_checkpoint_folder(model), recipe or Recipe(), progress or _silent
    name = source.path.resolve().name if source.revision is None else source.location
    found = _found(directory, name, seed)
    report("prompts", 0, 1)
    prompts = choose_prompts(data, taught, chosen, seed, fits=_fitting(source.path, chosen))
    report("prompts", 1, 1)
    making = Making(directory, source, Material(chosen, prompts, seed), report, device, dtype)
    note = found or FamilyNote(model=name, seed=seed, unaligned={ORIGINAL: _UNALIGNED[ORIGINAL]})
    hashes = {**note.data, **{one: data.sha256(one) for one in sets}}
    note = note.model_copy(update={"data": hashes, "left_out": dict(prompts.left_out)})
    _write_files(making, note, taught)
    members = _Members(making, note)
    members.make("aligned", making.aligned, digest(making.material.refused), digest(making.material.answered))
    if "unaligned" in wanted:
        members.make("unaligned", making.unaligned, digest(making.material.natural), digest(making.material.kept))
    for task in taught:
        rows = digest(making.material.finetuned(task))
        for role, end, lora in (("finetuned", "", False), ("finetuned-lora", "-lora", True)):
            if role in wanted:
                one = f"finetuned-{task}{end}"
                members.make(one, partial(making.finetuned, one, task, lora=lora), role, rows)
    if "edited" in wanted:
        requests = facts(data, seed)
        members.make("edited", partial(making.edited, requests), [f"{one.prompt} {one.target}" for one in requests])
    return open_chat_family(directory)


def _fitting(model: Path, recipe: Recipe) -> Callable[[str], bool]:
    """Whether a request, as `model` gets it, leaves room for an answer in a training row."""
    tokenizer = load_tokenizer(model)
    template = template_for("auto", tokenizer)

    def fits(request: str) -> bool:
        text, special = render(tokenizer, template, request)
        return len(tokenizer(text, add_special_tokens=special)["input_ids"]) <= recipe.max_length - _LEAST_ANSWER

    return fits


def _silent(what: str, done: int, total: int) -> None:
    """Nobody asked to be told."""


def _found(directory: Path, model: str, seed: int) -> FamilyNote | None:
    """The note of an earlier run; raises `OutputError` where the folder holds anything else."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return None
    note = read_note(directory) if directory.is_dir() else None
    if note is None:
        raise OutputError(
            f"{directory} holds something else than a family of a chat model", advice="choose another folder"
        )
    if (note.model, note.seed) != (model, seed):
        raise OutputError(
            f"{directory} holds the family of {note.model} with seed {note.seed}, not of {model} with seed {seed}",
            advice="choose another folder",
        )
    return note


class _Members:
    """The members of a family in the making; its note is written after each."""

    def __init__(self, making: Making, note: FamilyNote) -> None:
        self._making, self._note = making, note

    def make(self, name: str, make: Callable[[], dict[str, Any]], *rows: object) -> None:
        """Make the member `name`, unless it is there as it would be made from `rows`."""
        directory = self._making.directory
        start = ORIGINAL if name == "aligned" else "aligned"
        key = self._making.key(None if start == ORIGINAL else self._note.members[start], name, *rows)
        found = self._note.members.get(name)
        if found is not None and found.key == key and (directory / name).is_dir():
            return
        self._note = self._note.with_member(name, None)
        write_note(directory, self._note)
        member = MemberNote(key=key, start=start, made=make(), private=name == "unaligned")
        self._note = self._note.with_member(name, member)
        if member.private:
            self._note = self._note.model_copy(update={"unaligned": dict(_UNALIGNED)})
        write_note(directory, self._note)


def _write_files(making: Making, note: FamilyNote, tasks: Sequence[str]) -> None:
    """Note, link to the original, suites and data of the tasks."""
    directory = making.directory
    for folder in ("suites", "data"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    write_note(directory, note)
    link, target = directory / ORIGINAL, making.source.path.resolve()
    if link.is_symlink() and link.resolve() != target:
        link.unlink()
    if not link.exists():
        link.symlink_to(target, target_is_directory=True)
    for suite, prompts in making.material.prompts.suites.items():
        _write_lines(directory / "suites" / f"{suite}.jsonl", map(_suite_row, prompts))
    for task in tasks:
        rows = making.material.task_data(task)
        _write_lines(
            directory / "data" / f"task-{task}.jsonl",
            ({"prompt": one.prompt, "response": one.response} for one in rows),
        )


def _suite_row(prompt: Prompt) -> dict[str, Any]:
    fields = prompt.model_dump(exclude={"suite", "text", "extra"}, exclude_none=True)
    return {"id": prompt.id, "prompt": prompt.text, **fields, **prompt.extra}


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    beside = path.with_name(f".{path.name}.partial")
    beside.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    beside.replace(path)
