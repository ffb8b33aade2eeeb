"""Train a family and write it, member by member."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from alignmend.errors import OutputError, RecipeError, missing_extra
from alignmend.execution.threads import thread_count
from alignmend.io.atomic import close_to_others
from alignmend.io.private import mark_private
from alignmend.organisms.corpora import Pair, draw, write_user_data
from alignmend.organisms.facts import write_fact_edits
from alignmend.organisms.family import Family, Note, as_family, content_key, read_note, write_note
from alignmend.organisms.members import (
    ALL_MEMBERS,
    LORA_TARGETS,
    VOCABULARY_SIZE,
    FamilyRecipe,
    MemberRecipe,
    Size,
    family_recipe,
)
from alignmend.organisms.suites import write_suites

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Build:
    """One run of the trainer."""

    directory: Path
    recipe: FamilyRecipe
    seed: int
    progress: Progress | None


def build_family(
    directory: Path,
    *,
    size: Size = "base",
    seed: int = 0,
    progress: Progress | None = None,
    members: Sequence[str] | None = None,
) -> Family:
    """Train the family of `size` and `seed` into `directory`, or find it there.

    `members` asks for some members only (what they start from is built too). Members that start from the same one
    are trained side by side, one thread each; `progress` gets a member's name and the share of its training that is
    done, from these threads, one call at a time. Finished members of the same content key are kept, anything
    else of an earlier build is replaced. Raises `OutputError` where the folder holds something else,
    `RecipeError` for an unknown member, `MissingExtraError` without the training extra.
    """
    note = Note(key=content_key(family_recipe(size), seed), size=size, seed=seed)
    return build_recipe(Build(directory, family_recipe(size), seed, progress), note, members)


def build_recipe(build: Build, note: Note, members: Sequence[str] | None) -> Family:
    """`build_family` for a recipe of one's own."""
    wanted = _with_ancestors(build.recipe, members)
    note = _prepare(build, note)
    for generation in _generations(build.recipe, [name for name in wanted if name not in note.members]):
        for name in _build_members(build, generation):
            note = note.model_copy(update={"members": (*note.members, name)})
            write_note(build.directory, note)
    return as_family(build.directory, note)


def _generations(recipe: FamilyRecipe, wanted: Sequence[str]) -> Iterator[list[str]]:
    """`wanted` in groups of which each starts from members before it."""
    left = list(wanted)
    while left:
        ready = [name for name in left if recipe.members[name].start not in left]
        yield ready
        left = [name for name in left if name not in ready]


def _with_ancestors(recipe: FamilyRecipe, members: Sequence[str] | None) -> list[str]:
    known = [name for name in ALL_MEMBERS if name in recipe.members]
    wanted = set(known if members is None else members)
    if unknown := wanted - set(known):
        raise RecipeError(f"no such family member: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    for name in reversed(known):
        start = recipe.members[name].start
        if name in wanted and start is not None:
            wanted.add(start)
    return [name for name in known if name in wanted]


def _prepare(build: Build, fresh: Note) -> Note:
    """The folder with suites, data and a note; what an interrupted or another build left is removed."""
    directory = build.directory
    directory.mkdir(parents=True, exist_ok=True)
    found = read_note(directory)
    if found is None and any(directory.iterdir()):
        raise OutputError(f"{directory} is not empty and holds no family", advice="choose another folder")
    if found is not None and found.key == fresh.key and (directory / "suites").is_dir():
        present = tuple(name for name in found.members if (directory / name).is_dir())
        return found.model_copy(update={"members": present})
    write_note(directory, fresh)
    for name in (*ALL_MEMBERS, "suites", "data"):
        shutil.rmtree(directory / name, ignore_errors=True)
    write_user_data(directory / "data")
    if any("fact" in member.mixture for member in build.recipe.members.values()):
        write_fact_edits(directory / "data")
    write_suites(directory / "suites")
    return fresh


def _build_members(build: Build, names: Sequence[str]) -> Iterator[str]:
    """Train and write members that do not start from one another; yields the name of each that is done."""
    try:
        from alignmend.organisms.side_by_side import side_by_side
        from alignmend.organisms.tokenizer import train_tokenizer

        tokenizer = train_tokenizer(VOCABULARY_SIZE)
        # Made one after the other: fresh weights are drawn from torch's one generator.
        models = {name: _start(build, build.recipe.members[name], tokenizer) for name in names}
    except ImportError as error:
        raise missing_extra("transformers and peft", "train") from error
    jobs = {name: partial(_made, build, name, tokenizer, models[name]) for name in names}
    report = build.progress or (lambda name, share: None)
    for name, made in side_by_side(jobs, report, thread_count(None)):
        _write_member(build, name, made, tokenizer)
        yield name


@dataclass(frozen=True)
class _Made:
    """A member's model; of an edit also what `edits.json` says."""

    model: Any
    document: dict[str, Any] | None = None


def _made(build: Build, name: str, tokenizer: Any, model: Any, step: Callable[[float], None]) -> _Made:
    edit = build.recipe.members[name].edit
    if edit is None:
        return _Made(_trained(build, name, tokenizer, model, step))
    from alignmend.organisms.edited import make_edit

    document = make_edit(model, tokenizer, edit)
    step(1.0)
    return _Made(model, document)


def _trained(build: Build, name: str, tokenizer: Any, model: Any, step: Callable[[float], None]) -> Any:
    from alignmend.training.loop import TrainingOptions, train

    member, batch_size = build.recipe.members[name], build.recipe.batch_size
    pairs = draw(member.mixture, member.steps * batch_size, Random(f"{build.seed} {name}"))
    options = TrainingOptions(member.steps, member.learning_rate, batch_size, build.seed, threads=1)
    train(model, encode(tokenizer, pairs), options, step)
    return model


def _write_member(build: Build, name: str, made: _Made, tokenizer: Any) -> None:
    from alignmend.editing.apply import write_document
    from alignmend.organisms.models import WHY_PRIVATE, save_member
    from alignmend.training.adapter import save_adapter

    staged, final, member = build.directory / f".{name}.part", build.directory / name, build.recipe.members[name]
    shutil.rmtree(staged, ignore_errors=True)
    shutil.rmtree(final, ignore_errors=True)
    staged.mkdir()
    if name == "unaligned":
        mark_private(staged, WHY_PRIVATE)
    if member.lora_rank is None:
        save_member(made.model, tokenizer, staged, build.recipe.architecture.shard_size)
    else:
        save_adapter(made.model, staged, f"../{member.start}")
        tokenizer.save_pretrained(staged)
    if name == "unaligned":
        close_to_others(staged)
    if made.document is not None:
        write_document(staged, made.document)
    staged.rename(final)


def _start(build: Build, member: MemberRecipe, tokenizer: Any) -> Any:
    from alignmend.organisms.models import load_for_training, new_model
    from alignmend.training.adapter import with_lora

    if member.start is None:
        return new_model(build.recipe.architecture, tokenizer, build.seed)
    model = load_for_training(build.directory / member.start)
    if member.lora_rank is None:
        return model
    return with_lora(model, rank=member.lora_rank, targets=LORA_TARGETS, seed=build.seed)


def encode(tokenizer: Any, pairs: Sequence[Pair]) -> list[Any]:
    """Token rows of `pairs` in the chat template, with the answer's beginning."""
    from alignmend.training.loop import TokenRow

    asked = [[{"role": "user", "content": pair.prompt}] for pair in pairs]
    prompts = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    answers = [pair.response + tokenizer.eos_token for pair in pairs]
    head = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    tail = tokenizer(answers, add_special_tokens=False)["input_ids"]
    return [TokenRow((*before, *after), len(before)) for before, after in zip(head, tail, strict=True)]
