"""The options of `alignmend restore`, made of the fields of its request, and the request that they make."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from alignmend.cli.options import add_json
from alignmend.cli.thinking_options import add_thinking_options, thinking_of
from alignmend.errors import ParameterError

if TYPE_CHECKING:
    from alignmend.restore.request import Option, Request


_UNIONS = (UnionType, Union)


def add_restore_options(parser: argparse.ArgumentParser) -> None:
    """Everything that decides a restore."""
    from alignmend.restore.request import Limits, Prompts, Request, TrainingOptions

    parser.add_argument("finetuned", help="folder or hub id of the fine-tuned model, or of its adapter")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    _add(parser.add_argument_group("models and data"), Request, first="aligned", last="allow_unrelated")
    asked = parser.add_argument_group("prompts and answers")
    _add(asked, Prompts, last="max_new_tokens")
    add_thinking_options(asked)
    _add(asked, Prompts, first="template")
    search = parser.add_argument_group("search")
    search.add_argument(
        "--method",
        dest="methods",
        default="auto",
        metavar="NAME[,NAME...]",
        help="families to try (default: auto, all that what was given allows)",
    )
    _add(search, Request, first="trials", last="seed")
    _add(search, Limits)
    _add(search, Request, first="servable", last="servable")
    _add(parser.add_argument_group("output"), Request, first="as_adapter", last="overwrite")
    _add(parser.add_argument_group("training of what is missing"), TrainingOptions)
    parser.add_argument(
        "--log-to",
        choices=("trackio", "wandb", "mlflow", "tensorboard"),
        metavar="TRACKER",
        help="tell trackio, wandb, mlflow or tensorboard the numbers when all is done: no prompts, answers or paths",
    )
    parser.add_argument(
        "--log-project", default="alignmend", metavar="NAME", help="with --log-to: its project (default: alignmend)"
    )
    parser.add_argument("--dry-run", action="store_true", help="check, and stop there")
    parser.add_argument("--yes", action="store_true", help="write the best candidate without asking")
    _add(parser, Request, first="resume", last="resume")
    parser.add_argument("--join", action="store_true", help="help a restore that is searching, from another process")
    add_json(parser)


def _options(kind: type, first: str = "", last: str = "") -> list[tuple[str, Option, Any]]:
    """Name, words and default of every field of `kind` that is an option, from `first` to `last`."""
    every: list[Any] = list(fields(kind))
    names = [one.name for one in every]
    begin, end = names.index(first) if first else 0, names.index(last) + 1 if last else len(names)
    return [(one.name, one.metadata["option"], one.default) for one in every[begin:end] if "option" in one.metadata]


def _add(group: argparse._ActionsContainer, kind: type, *, first: str = "", last: str = "") -> None:
    from alignmend.restore import request

    hints = get_type_hints(kind, {**vars(request), "Training": object})
    for name, option, default in _options(kind, first, last):
        flag = f"--{(option.off or option.name or name).replace('_', '-')}"
        taken = _taken(hints[name], default, option.metavar)
        group.add_argument(flag, dest=_place(name, option), help=_help(option, default), **taken)


def _help(option: Option, default: Any) -> str:
    written = f"{default:g}" if isinstance(default, float) else str(default)
    return option.help.replace("{default}", written)


def _place(name: str, option: Option) -> str:
    """Where argparse keeps it."""
    return option.name or name


def _taken(hint: Any, default: Any, metavar: str | None) -> dict[str, Any]:
    """How argparse reads a value of this type."""
    if hint is bool:
        return {"action": "store_false" if default else "store_true"}
    if get_origin(hint) is tuple:
        return {"action": "append", "default": [*default], "metavar": metavar}
    kinds = [one for one in get_args(hint) if one is not NoneType] if get_origin(hint) in _UNIONS else [hint]
    if get_origin(kinds[0]) is Literal:
        return {"choices": get_args(kinds[0]), "default": default}
    return {"type": kinds[0], "default": default, "metavar": metavar}


def request_of(arguments: argparse.Namespace) -> Request:
    """The request; raises `ParameterError` for numbers out of range."""
    from alignmend.restore.request import Limits, Prompts, Request, TrainingOptions, training_of

    said = {kind: _said(arguments, kind) for kind in (Prompts, Limits, TrainingOptions, Request)}
    return Request(
        finetuned=arguments.finetuned,
        out=arguments.out,
        methods=_methods(arguments.methods),
        prompts=Prompts(**said[Prompts], thinking=thinking_of(arguments)),
        limits=Limits(**said[Limits]),
        training=training_of(TrainingOptions(**said[TrainingOptions]), arguments.seed),
        **said[Request],
    )


def _said(arguments: argparse.Namespace, kind: type) -> dict[str, Any]:
    given = vars(arguments)
    found = {name: given[_place(name, option)] for name, option, _ in _options(kind)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def _methods(written: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in written.split(",") if name.strip())
    if not names:
        raise ParameterError(
            "--method names no family", advice="leave it out, or give names such as resta,safe_patching"
        )
    return () if names == ("auto",) else names
