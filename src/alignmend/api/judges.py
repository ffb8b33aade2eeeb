"""Judges of a job, by name, with what those that ask a model need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from alignmend.errors import ParameterError

if TYPE_CHECKING:
    from alignmend.evaluation.judges import Judge
    from alignmend.evaluation.reasoning_marks import Tags

Names: TypeAlias = str | Path | Sequence[str | Path]
"""One name or several."""
TagPairs: TypeAlias = Iterable[Sequence[str]]
"""What a model puts around thoughts: pairs of an opening and a closing tag."""


def names_of(given: Names) -> list[str]:
    """The names as texts."""
    return [str(given)] if isinstance(given, str | Path) else [str(one) for one in given]


def tags_of(given: TagPairs) -> tuple[Tags, ...]:
    """The pairs as tags; `ParameterError` where one is no pair."""
    from alignmend.evaluation.reasoning_marks import Tags

    pairs = [tuple(pair) for pair in given]
    for pair in pairs:
        if len(pair) != 2:
            raise ParameterError(f"reasoning tags are pairs of an opening and a closing tag, not {pair!r}")
    return tuple(Tags(*pair) for pair in pairs)


def make_judges(
    judge: Names,
    *,
    model: str | Mapping[str, str] | None = None,
    endpoint: str | None = None,
    key_variable: str = "OPENAI_API_KEY",
    reasoning_tags: TagPairs = (),
    cache: str | Path | None = None,
    device: str | None = None,
) -> list[Judge]:
    """The judges of these names; `model` is one for all, or one for each name, under `""` that of all others."""
    from alignmend.evaluation.judges import JudgeOptions, get_judge

    names = names_of(judge)
    if not names:
        raise ParameterError("no judge is named", advice="name one, such as refusal-phrases")
    models = {"": model} if isinstance(model, str) else dict(model or {})
    if unknown := sorted(set(models) - {"", *names}):
        raise ParameterError(f"a model is given for judge {unknown[0]!r}, which is not among {', '.join(names)}")
    tags = tags_of(reasoning_tags)
    return [
        get_judge(
            name,
            JudgeOptions(
                endpoint=endpoint,
                model=models.get(name, models.get("")),
                key_variable=key_variable,
                cache=None if cache is None else Path(cache),
                device=device,
                reasoning_tags=tags,
            ),
        )
        for name in names
    ]
