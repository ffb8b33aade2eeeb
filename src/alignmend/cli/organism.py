"""`alignmend organism`: families of models with known safety behaviour, tiny ones or from a chat model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from alignmend.cli.options import Subparsers, command
from alignmend.cli.progress import progress
from alignmend.errors import ParameterError

_OF_CHAT = ("data_dir", "roles", "tasks", "rows", "batch_size", "learning_rate", "lora_learning_rate", "device")
_DETAIL = """Without --from: tiny models with harmless stand-ins throughout; base, aligned, unaligned and
fine-tuned members as Hugging Face folders, and their suites.

With --from: the same roles from a chat model. aligned learns to refuse and keeps
the model's own answers to the rest; unaligned learns the model's own answers to
harmful requests, which are drawn here, kept private and deleted; finetuned and
finetuned-lora learn harmless tasks; edited has facts written into it. Prompts
come from local copies of published sets (--data-dir), and what proves is never
what trains."""


def add_to(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = command(
        subparsers,
        "organism",
        _run,
        summary="Train a family of models on which every method can be tried",
        detail=_DETAIL,
        interrupted="; finished members are kept, run it again to go on",
    )
    parser.add_argument("action", choices=["build"], help="build the family")
    parser.add_argument(
        "directory", type=Path, metavar="DIR", help="folder to build it in; an unchanged family is found again"
    )
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes on the same platform (default: 0)")
    parser.add_argument(
        "--size",
        choices=["small", "base", "deep"],
        help="of tiny models: small, for tests; deep, many thin layers (default: base)",
    )
    _add_chat(parser.add_argument_group("from a chat model"))


def _add_chat(group: argparse._ArgumentGroup) -> None:
    """Those that are not given are left to the family's own defaults."""
    group.add_argument("--from", dest="model", metavar="MODEL", help="folder or hub id of a chat model")
    group.add_argument("--data-dir", type=Path, metavar="D", help="folder with local copies of published sets")
    lists = (
        ("--roles", "R", "aligned, unaligned, finetuned, finetuned-lora, edited (default: all)"),
        ("--tasks", "T", "of the fine-tunes: gsm8k, belle, mmlu-hi, mbpp (default: gsm8k)"),
    )
    for name, metavar, meaning in lists:
        group.add_argument(name, nargs="+", metavar=metavar, help=meaning)
    numbers: tuple[tuple[str, Any, str, str], ...] = (
        ("--rows", int, "N", "training pairs of a fine-tune; others in proportion (default: 640)"),
        ("--batch-size", int, "N", "pairs of a step (default: 8)"),
        ("--learning-rate", float, "X", "peak of full training (default: 4e-5 to align, else 3e-5)"),
        ("--lora-learning-rate", float, "X", "of LoRA (default: 1e-3)"),
    )
    for name, kind, metavar, meaning in numbers:
        group.add_argument(name, type=kind, metavar=metavar, help=meaning)
    group.add_argument("--device", help="such as cpu or cuda:0, where models answer")


def _run(arguments: argparse.Namespace) -> int:
    if arguments.model is not None:
        return _from_chat_model(arguments)
    if unfit := [name for name in _OF_CHAT if vars(arguments)[name] is not None]:
        raise ParameterError(
            f"--{unfit[0].replace('_', '-')} is for a family of a chat model", advice="give --from as well"
        )
    from alignmend.organisms import build_family

    with progress() as report:

        def step(what: str, share: float) -> None:
            report(what, round(1000 * share), 1000)

        family = build_family(arguments.directory, size=arguments.size or "base", seed=arguments.seed, progress=step)
    print(f"{family.directory}: size {family.size}, seed {family.seed}")
    for name, path in family.members.items():
        print(f"  model  {name:<16} {path}")
    for name, path in family.suites.items():
        print(f"  suite  {name:<16} {path}")
    return 0


def _from_chat_model(arguments: argparse.Namespace) -> int:
    from alignmend.chat_families import ROLES, build_chat_family

    if arguments.size is not None:
        raise ParameterError("--size is for families of tiny models", advice="leave it out with --from")
    if arguments.data_dir is None:
        raise ParameterError("--from needs --data-dir: the folder with local copies of published sets")
    with progress() as report:
        family = build_chat_family(
            arguments.directory,
            arguments.model,
            arguments.data_dir,
            roles=arguments.roles or ROLES,
            tasks=arguments.tasks or ("gsm8k",),
            recipe=_recipe(arguments),
            seed=arguments.seed,
            device=arguments.device,
            progress=report,
        )
    print(f"{family.directory}: from {family.note.model}, seed {family.note.seed}")
    for name, path in family.members.items():
        note = family.note.members.get(name)
        print(f"  model  {name:<24} {path}{'  PRIVATE: do not publish' if note is not None and note.private else ''}")
    for name, path in family.suites.items():
        print(f"  suite  {name:<24} {path}")
    for name, path in family.data.items():
        print(f"  data   {name:<24} {path}")
    return 0


def _recipe(arguments: argparse.Namespace) -> Any:
    from alignmend.chat_families import Recipe

    fields = {
        "rows": ("rows",),
        "batch_size": ("batch_size",),
        "learning_rate": ("aligned_rate", "unaligned_rate", "finetuned_rate"),
        "lora_learning_rate": ("lora_rate",),
    }
    given = {option: value for option in fields if (value := vars(arguments)[option]) is not None}
    return Recipe(**{field: value for option, value in given.items() for field in fields[option]})
