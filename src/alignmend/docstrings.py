"""Docstrings that the program reads: also where Python has dropped them (`-OO`, `PYTHONOPTIMIZE=2`)."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any


def docstring(thing: Callable[..., Any]) -> str:
    """The docstring of a function or class, without its indent; empty where it has none."""
    found = thing.__doc__
    if found is not None:
        return inspect.cleandoc(found)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
    except (OSError, TypeError, SyntaxError):  # made without a file
        return ""
    first = tree.body[0]
    if isinstance(first, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return ast.get_docstring(first) or ""
    return ""
