"""`alignmend list`: methods, suites, transforms, judges, with what they take."""

from __future__ import annotations

import argparse
import json
import textwrap
from typing import TYPE_CHECKING

from alignmend.cli.options import Subparsers, add_json, command
from alignmend.errors import RecipeError

if TYPE_CHECKING:
    from alignmend.evaluation.suites import Definition
    from alignmend.methods.registry import Method


def add_to(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = command(
        subparsers,
        "list",
        _run,
        summary="List methods, suites, transforms or judges",
        detail="With a NAME, show that one whole: of a suite its source, its licence and how to get it.",
    )
    parser.add_argument("what", choices=list(_LISTS), help="what to list")
    parser.add_argument("name", nargs="?", help="one of them")
    add_json(parser)


def _run(arguments: argparse.Namespace) -> int:
    return _LISTS[arguments.what](arguments)


def _methods(arguments: argparse.Namespace) -> int:
    from alignmend.methods.registry import get_method, methods

    chosen = [get_method(arguments.name)] if arguments.name else list(methods().values())
    if arguments.json:
        print(json.dumps([_document(method) for method in chosen]))
    elif arguments.name:
        print(_whole(chosen[0]))
    else:
        for method in chosen:
            print(f"{method.name:<18} {method.summary} ({method.source})")
    return 0


def _document(method: Method) -> dict[str, object]:
    from alignmend.methods.registry import type_name

    arguments = [
        {
            "name": one.name,
            "type": type_name(one.annotation),
            "required": one.required,
            "default": None if one.is_operand else one.default,
            "meaning": one.meaning,
        }
        for one in method.arguments.values()
    ]
    return {
        "name": method.name,
        "title": method.title or None,
        "arxiv": method.arxiv or None,
        "equation": method.equation,
        "arguments": arguments,
    }


def _whole(method: Method) -> str:
    from alignmend.methods.registry import type_name

    paper = f"{method.authors}: {method.title}, arXiv {method.arxiv}" if method.title else "Of this project: no paper."
    lines = [method.summary, "", *textwrap.wrap(paper, 100), ""]
    lines += [*textwrap.wrap(method.equation, 100, initial_indent="  ", subsequent_indent="  "), ""]
    for models in (True, False):
        lines.append("models:" if models else "parameters:")
        for one in method.arguments.values():
            if one.is_operand != models:
                continue
            kind = type_name(one.annotation) + (
                "" if one.required else ", optional" if one.default is None else f", default {one.default}"
            )
            lines.append(f"  {one.name}  ({kind})")
            lines += textwrap.wrap(one.meaning, 90, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def _suites(arguments: argparse.Namespace) -> int:
    from alignmend.evaluation.suites import definitions, get_definition

    chosen = {arguments.name: get_definition(arguments.name)} if arguments.name else definitions()
    if arguments.json:
        print(json.dumps([{"name": name, **suite.model_dump(mode="json")} for name, suite in chosen.items()]))
    elif arguments.name:
        print(_whole_suite(arguments.name, chosen[arguments.name]))
    else:
        for name, suite in chosen.items():
            licence = suite.licence.split(" (")[0] + (
                "; gated" if suite.gated else "; ships" if suite.is_shipped else ""
            )
            print(f"{name:<22} {suite.kind:<10} {suite.default_size:>6}  {licence}")
    return 0


def _whole_suite(name: str, suite: Definition) -> str:
    splits = ", ".join(f"{size} {split}" for split, size in suite.structure.splits.items())
    expected = {"refuse": "a refusal", "comply": "an answer", None: "differs by prompt or is scored by choice"}
    facts = {
        "kind": suite.kind,
        "expected": expected[suite.expected],
        "prompts": str(suite.size) + (f" ({splits})" if splits else ""),
        "default split": suite.default_split,
        "language": suite.language or "several",
        "licence": suite.licence,
        "paper": suite.paper,
        "address": suite.address,
        "how to get it": suite.how_to_get,
        "gated": "yes" if suite.gated else None,
        "local copies": _local_copies(suite),
        "not verified": ", ".join(suite.unverified) or None,
    }
    lines = [f"{name}: {suite.title}", ""]
    for key, value in facts.items():
        lines += _wrapped(f"{key:<14} ", value) if value else []
    for key, items in (("trained on", suite.in_distribution_with), ("note", suite.notes)):
        for item in items:
            lines += _wrapped(f"{key:<14} ", item)
    return "\n".join(lines)


def _local_copies(suite: Definition) -> str | None:
    files = ", ".join(copy.file for copy in suite.copies if copy.file and not copy.shipped)
    return f"{files} in the folder --data-dir" if files else None


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent=label, subsequent_indent=" " * len(label), break_long_words=False)


def _transforms(arguments: argparse.Namespace) -> int:
    from alignmend.evaluation.transforms import get_transform, list_transforms

    chosen = [get_transform(name) for name in ([arguments.name] if arguments.name else list_transforms())]
    if arguments.json:
        print(json.dumps([{"name": one.name, "version": one.version, "summary": one.summary} for one in chosen]))
    else:
        print("\n".join(f"{one.name:<20} {one.summary}" for one in chosen))
    if arguments.name and not arguments.json:
        print("\n" + chosen[0]("(the request)"))
    return 0


def _judges(arguments: argparse.Namespace) -> int:
    from alignmend.evaluation.judges import describe_judges
    from alignmend.nearest import nearest

    described = describe_judges()
    if arguments.name and arguments.name not in described:
        raise RecipeError(f"unknown judge {arguments.name!r}{nearest(arguments.name, described)}")
    names = [arguments.name] if arguments.name else list(described)
    if arguments.json:
        print(json.dumps(names))
    else:
        width = max(map(len, names))
        print("\n".join(f"{name:<{width}}  {described[name]}" for name in names))
    return 0


_LISTS = {"methods": _methods, "suites": _suites, "transforms": _transforms, "judges": _judges}
