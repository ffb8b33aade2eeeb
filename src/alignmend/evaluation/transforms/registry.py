"""What a transform is, and finding one by name.

A transform puts something around a request, as a jailbreak does, so that safety is measured under pressure too. Each
is one file beside this one, simple and known; none is optimized against a model.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from alignmend.docstrings import docstring
from alignmend.errors import ParameterError, RecipeError
from alignmend.evaluation.records import Prompt, text_hash
from alignmend.evaluation.suites import Suite
from alignmend.nearest import nearest

Rewrite = Callable[[str], str]


@dataclass(frozen=True)
class Transform:
    """A pure function of a request; `version` changes whenever what it returns could."""

    name: str
    version: str
    summary: str
    rewrite: Rewrite

    def __call__(self, text: str) -> str:
        """The request as it is put to the model."""
        return self.rewrite(text)


_KNOWN: dict[str, Transform] = {}


def register(name: str, version: str) -> Callable[[Rewrite], Rewrite]:
    """Makes a function of the text the transform `name`; the first line of its docstring is the summary."""

    def keep(rewrite: Rewrite) -> Rewrite:
        fresh = Transform(name, version, docstring(rewrite).split("\n")[0], rewrite)
        known = _KNOWN.setdefault(name, fresh).rewrite
        if (known.__module__, known.__qualname__) != (rewrite.__module__, rewrite.__qualname__):
            raise RecipeError(f"two transforms are called {name!r}: in {known.__module__} and {rewrite.__module__}")
        return rewrite

    return keep


@cache
def _load_all() -> None:
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{__package__}.{module.name}")


def list_transforms() -> tuple[str, ...]:
    """The names that `get_transform` knows, sorted."""
    _load_all()
    return tuple(sorted(_KNOWN))


def get_transform(name: str) -> Transform:
    """The transform `name`; `RecipeError` offers the nearest known name."""
    names = list_transforms()
    if name not in names:
        near = nearest(name, names) or f"; known transforms: {', '.join(names)}"
        raise RecipeError(f"unknown transform {name!r}{near}")
    return _KNOWN[name]


def transform_suite(suite: Suite, name: str) -> Suite:
    """`suite` with the transform `name` around every prompt, called `SUITE+NAME`.

    Ids and everything else stay. `extra` says how it was before: `original_prompt`, the text that a judge of the
    request needs, `original_prompt_hash`, its SHA-256, and `transform`, a list of what was applied, with versions.
    A task is refused: its answer belongs to its text.
    """
    transform = get_transform(name)
    if suite.kind == "task":
        raise ParameterError(f"suite {suite.name!r} is a task; transforms are for requests that a model may refuse")
    shown = f"{suite.name}+{name}"
    prompts = tuple(_transformed(prompt, shown, transform) for prompt in suite.prompts)
    chain = name if suite.transform is None else f"{suite.transform}+{name}"
    return replace(suite, name=shown, prompts=prompts, transform=chain)


def _transformed(prompt: Prompt, suite: str, transform: Transform) -> Prompt:
    original = prompt.extra.get("original_prompt", prompt.text)
    done = [*prompt.extra.get("transform", ()), f"{transform.name}-{transform.version}"]
    before = {"original_prompt": original, "original_prompt_hash": text_hash(original), "transform": done}
    extra = {**prompt.extra, **before}
    return prompt.model_copy(update={"suite": suite, "text": transform(prompt.text), "extra": extra})
