"""What a judge is, and finding one by name."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Literal, Protocol, cast

from alignmend import plugins
from alignmend.docstrings import docstring
from alignmend.errors import RecipeError
from alignmend.evaluation.reasoning_marks import Tags
from alignmend.evaluation.records import FinishReason, Judgement, Prompt, withheld_answer


@dataclass(frozen=True)
class Answer:
    """What is judged: a response to a prompt; `finish_reason` is `None` where it is not known."""

    prompt: Prompt
    response: str
    finish_reason: FinishReason | None = None

    @property
    def withheld(self) -> Judgement | None:
        """What is said without a judge of an answer that a server withheld."""
        why = withheld_answer(self.response, self.finish_reason)
        if why is None:
            return None
        told = "withheld by the server's filter" if why == "filter" else "the server rejected the prompt"
        return Judgement(verdict="unclear", evidence=told)


Report = Callable[[int], None]
"""Called with how many more answers were judged."""


class Judge(Protocol):
    """Gives verdicts. `version` changes whenever a verdict could; `name` is what records and results call it."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def judge_all(self, answers: Sequence[Answer], *, report: Report | None = None) -> list[Judgement]:
        """One judgement per answer, in order."""
        ...


class RuleJudge(ABC):
    """A judge that looks at one answer at a time: subclasses say `name`, `version` and `judge`."""

    @abstractmethod
    def judge(self, prompt: Prompt, response: str) -> Judgement:
        """The verdict on `response` as an answer to `prompt`; pure."""

    def judge_all(self, answers: Sequence[Answer], *, report: Report | None = None) -> list[Judgement]:
        """One judgement per answer, in order."""
        judgements = [self.judge(answer.prompt, answer.response) for answer in answers]
        if report is not None:
            report(len(judgements))
        return judgements


@dataclass(frozen=True)
class JudgeOptions:
    """What a judge that runs a model needs; others ignore it.

    `endpoint` is the base address of an OpenAI-compatible server, `model` the name it serves or a folder or hub id to
    load in this process, `key_variable` the environment variable that holds the key, `cache` a folder for judgements
    already paid for, `device` where a model in this process runs, `reasoning_tags` what the model puts around its
    thoughts where that is none of the known tags.
    """

    endpoint: str | None = None
    model: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    cache: Path | None = None
    device: str | None = None
    reasoning_tags: tuple[Tags, ...] = ()


NO_OPTIONS = JudgeOptions()
JudgeFactory = Callable[[JudgeOptions], Judge]
Needs = Literal["nothing", "endpoint", "model"]
"""What must be in a judge's options: nothing, a served model's address, or a model to load in this process."""

ENTRY_POINTS = "alignmend.judges"
"""The group under which installed packages name judges: `name = "module:factory"`."""


@dataclass(frozen=True)
class _Entry:
    factory: JudgeFactory
    needs: Needs


_ENTRIES: dict[str, _Entry] = {}


def register(name: str, *, needs: Needs = "nothing") -> Callable[[JudgeFactory], JudgeFactory]:
    """Makes a function of the options the one that builds the judge `name`; its docstring's first line describes it."""

    def keep(factory: JudgeFactory) -> JudgeFactory:
        known = _ENTRIES.setdefault(name, _Entry(factory, needs)).factory
        if (known.__module__, known.__qualname__) != (factory.__module__, factory.__qualname__):
            raise RecipeError(f"two judges are called {name!r}: in {known.__module__} and {factory.__module__}")
        return factory

    return keep


@cache
def _load_all() -> None:
    folders = importlib.import_module(str(__package__)).__path__
    for module in pkgutil.iter_modules(folders):
        importlib.import_module(f"{__package__}.{module.name}")


def _installed() -> Mapping[str, EntryPoint]:
    """Judges of installed packages, not loaded; none can take a name of this package's own."""
    _load_all()
    return plugins.installed(ENTRY_POINTS, _ENTRIES)


def _load(point: EntryPoint) -> JudgeFactory:
    return cast(JudgeFactory, plugins.load(point, "judge"))


def list_judges() -> tuple[str, ...]:
    """The names `get_judge` knows, sorted: this package's judges and those of installed ones."""
    installed = _installed()
    return tuple(sorted([*_ENTRIES, *installed]))


def list_rule_judges() -> tuple[str, ...]:
    """The names of this package's judges that need no model, sorted."""
    _load_all()
    return tuple(sorted(name for name, entry in _ENTRIES.items() if entry.needs == "nothing"))


def judge_needs(name: str) -> Needs:
    """What the judge `name` must be given; nothing, as far as is known, where it is not this package's own."""
    _load_all()
    return _ENTRIES[name].needs if name in _ENTRIES else "nothing"


def describe_judges() -> dict[str, str]:
    """Each name with one line about the judge, sorted by name."""
    factories = {name: _load(point) for name, point in _installed().items()}
    factories |= {name: entry.factory for name, entry in _ENTRIES.items()}
    return {name: _first_line(factories[name]) for name in sorted(factories)}


def _first_line(factory: JudgeFactory) -> str:
    return " ".join((docstring(factory)).split("\n\n")[0].split())


def get_judge(name: str, options: JudgeOptions = NO_OPTIONS) -> Judge:
    """The judge `name`, or the one of the phrase list or refusal rule in the JSON file `name`.

    `RecipeError` offers the nearest known name, or says which option the judge lacks.
    """
    _load_all()
    if name in _ENTRIES:
        return _ENTRIES[name].factory(options)
    if name.endswith(".json"):
        from alignmend.evaluation.judges.refusal_phrases import refusal_phrase_judge_from_file

        return refusal_phrase_judge_from_file(Path(name))
    if point := _installed().get(name):
        return _load(point)(options)
    names = list_judges()
    near = difflib.get_close_matches(name, names, n=1)
    advice = f"did you mean {near[0]!r}?" if near else f"known judges: {', '.join(names)}"
    raise RecipeError(f"unknown judge {name!r};", advice=advice)
