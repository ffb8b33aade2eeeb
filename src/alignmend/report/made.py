"""How runs were made: models and how they were asked, suites and where they come from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alignmend.report.labels import letter
from alignmend.report.runs import Measured, Runs


@dataclass(frozen=True)
class Made:
    """How one model was asked."""

    weights: str
    templates: str
    sampling: str
    answers: int
    cut_off: int
    withheld: int


@dataclass(frozen=True)
class SuiteFacts:
    """Where a suite comes from; `facts` are in words (name, value), `hashes` in hex, `notes` as recorded."""

    name: str
    n: str
    facts: tuple[tuple[str, str], ...]
    hashes: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def suite_facts(runs: Runs) -> tuple[SuiteFacts, ...]:
    """Every suite with what the results record of it."""
    return tuple(_facts(name, block) for name, block in runs.suites.items())


def _facts(name: str, block: Mapping[str, Any]) -> SuiteFacts:
    origin: Mapping[str, Any] = block.get("origin") or {}
    known = {
        **{key: value for key, value in block.items() if key not in ("n", "sha256", "origin")},
        "source": origin.get("location"),
        **{key: value for key, value in origin.items() if key not in ("location", "sha256", "notes")},
    }
    facts = tuple((key, _words(value)) for key, value in known.items() if value not in (None, "", [], {}))
    hashes = (("prompts", block.get("sha256")), ("file", origin.get("sha256")))
    notes = tuple(str(note) for note in origin.get("notes", ()))
    return SuiteFacts(name, str(block.get("n", "")), facts, tuple((of, value) for of, value in hashes if value), notes)


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def agreements(runs: Runs) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """What every run says of how its judges agree, with the letters of its models."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    for document in runs.documents:
        letters = ", ".join(letter(index) for index, one in enumerate(runs.models) if one.document is document)
        found += [(letters, each) for each in document.get("agreement", ())]
    return tuple(found)


def made(measured: Measured) -> Made | None:
    """How a model was asked, from its records; `None` without them."""
    rows = [answered.generation for answered in measured.answers.values()]
    if not rows:
        return None
    reasons = Counter(row.finish_reason for row in rows)
    weights, templates, sampling = (
        ", ".join(sorted({getattr(row, name) for row in rows})) for name in ("model_hash", "template", "sampling")
    )
    return Made(weights, templates, sampling, len(rows), reasons["length"], reasons["filter"] + reasons["rejected"])
