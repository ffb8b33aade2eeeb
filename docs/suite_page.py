"""The page of suites, from their definitions."""

from __future__ import annotations

from collections.abc import Iterator

from alignmend.evaluation.suites import Definition, definitions
from alignmend.evaluation.suites.definition import Copy
from alignmend.evaluation.transforms import get_transform, list_transforms

_INTRODUCTION = """# Suites

The `starter` suites ship with the package, prompts without answers, written for it: they are there so that a model can
be measured at once, and so that `search` and `report` prompts never mix. They are small and plain; published suites and
your own prompts say more, and a number from them compares with no paper's.

Each suite is one file in `src/alignmend/evaluation/suites/definitions/`; no data of the published ones is part of this
project. A published suite is read from a local copy in the folder given with `--data-dir`, else from the hub (its
cache first). Published sizes and structures are checked when it is loaded; a sample of a suite is named `NAME-sample`.
What is marked *not verified* was written from memory: check it before you rely on it, licences before all.

A file of your own (JSONL, JSON, CSV, TSV, plain lines or Parquet) is a suite too: it needs `prompt`, and may have `id`,
`category`, `subcategory`, `language`, `expected` (`refuse` or `comply`), `answer`, `scoring` (`words`, `number`,
`choice` with `choices`, `code` with `test`), `split` and `source`.

A score on prompts that a method was trained or searched on is no evidence: *trained on* says where that is known, and
exact and near duplicates, and translations, are found among the suites in use."""


def page() -> Iterator[str]:
    """The lines of the page."""
    yield from (_INTRODUCTION, "", "| suite | kind | prompts | language | licence |", "| --- | --- | --- | --- | --- |")
    for name, suite in definitions().items():
        gated = " (gated)" if suite.gated else ""
        language = suite.language or "several"
        yield f"| [{name}](#{name}) | {suite.kind} | {suite.default_size:,} | {language} | {suite.licence}{gated} |"
    for name, suite in definitions().items():
        yield from ("", f"## {name}", "", *_whole(suite))
    yield from ("", "# Transforms", "")
    yield "A transform puts something around every request of a suite, which is then called `SUITE+TRANSFORM`."
    yield from ("", "| transform | does |", "| --- | --- |")
    for name in list_transforms():
        yield f"| `{name}` | {get_transform(name).summary} |"


def _whole(suite: Definition) -> Iterator[str]:
    credit = "Written for this package." if suite.is_shipped else f"{suite.paper}. <{suite.address}>"
    yield from (f"{suite.title}. {credit}", "")
    yield f"How to get it: {suite.how_to_get}."
    yield from ("", *(f"- {line}" for line in _facts(suite)))


def _facts(suite: Definition) -> Iterator[str]:
    splits = ", ".join(f"{size:,} `{split}`" for split, size in suite.structure.splits.items())
    default = f"; default `{suite.default_split}`" if suite.default_split else ""
    yield f"{suite.size:,} prompts" + (f" ({splits}{default})" if splits else "") + f"; licence: {suite.licence}"
    yield "read from: " + "; ".join(filter(None, map(_place, suite.copies)))
    for trained in suite.in_distribution_with:
        yield f"*trained on*: {trained}"
    yield from suite.notes
    if suite.unverified:
        yield f"*not verified*: {', '.join(suite.unverified)}"


def _place(copy: Copy) -> str:
    places = [f"`{copy.file}`" + (" of the package" if copy.shipped else "")] if copy.file else []
    if copy.address:
        places.append(f"<{copy.address}>")
    if copy.hub:
        revision = f" at `{copy.revision[:12]}`" if copy.revision else ""
        places.append(f"hub `{copy.hub}`{revision}")
    return ", ".join(places)
