"""`python -m docs.build`: write the reference pages from the code, so that they cannot be untrue."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from alignmend.cli import parser
from alignmend.methods.registry import methods, type_name
from docs import suite_page

PAGES = Path(__file__).parent / "reference"
_NOTE = "<!-- written by `make docs` from the code; do not edit -->"


def pages() -> dict[str, str]:
    """File name -> text."""
    texts = {"methods.md": _methods(), "commands.md": _commands(), "suites.md": (_NOTE, "", *suite_page.page())}
    return {name: "\n".join(lines) + "\n" for name, lines in texts.items()}


def _methods() -> Iterator[str]:
    yield from (
        _NOTE,
        "",
        "# Methods",
        "",
        "Each is one file in `src/alignmend/methods/`; a recipe names it under `method:`.",
    )
    for method in methods().values():
        yield from (
            "",
            f"## {method.name}",
            "",
            method.summary,
            "",
            f"{method.authors}, *{method.title}*, arXiv {method.arxiv}"
            if method.title
            else "Of this project: no paper.",
            "",
        )
        yield from (
            f"    {method.equation}",
            "",
            "| key | under | symbol | type | default | meaning |",
            "| --- | --- | --- | --- | --- | --- |",
        )
        for one in method.arguments.values():
            default = "required" if one.required else "" if one.default is None else f"`{one.default}`"
            kind = type_name(one.annotation).replace("|", "or")
            under = "models" if one.is_operand else "parameters"
            yield f"| `{one.name}` | {under} | {one.symbol} | {kind} | {default} | {one.meaning} |"


def _commands() -> Iterator[str]:
    yield from (_NOTE, "", "# Commands", "")
    yield "Exit codes: 0 done, 1 a gate that failed, 2 wrong use or bad input (one message), 130 interrupted."
    top = parser()
    yield from ("", "```", top.format_help().rstrip(), "```")
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield from ("", f"## alignmend {name}", "", "```", command.format_help().rstrip(), "```")


def main() -> None:
    """Write the pages."""
    PAGES.mkdir(exist_ok=True)
    for name, text in pages().items():
        (PAGES / name).write_text(text, encoding="utf-8")
        print(f"wrote docs/reference/{name}")


if __name__ == "__main__":
    os.environ["COLUMNS"] = "100"
    main()
