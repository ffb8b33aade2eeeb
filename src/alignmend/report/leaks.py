"""Prompts that were used to train, fit or search must not be reported as if they were new."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from alignmend.report.runs import Runs

REPORT_SPLIT = "report"
USED = "used"


@dataclass(frozen=True)
class Leak:
    """A reported suite that was used before, for `use`; or `hits` of its prompts, which are also in `other`."""

    suite: str
    use: str
    other: str = ""
    hits: int = 0

    def __str__(self) -> str:
        """One sentence's worth."""
        if not self.other:
            return f"{self.suite} was used for {self.use}"
        return f"{self.hits} prompts of {self.suite} are also in {self.other}, which was used for {self.use}"


@dataclass(frozen=True)
class Shared:
    """How many prompts of `suite` are in `other` too, and how: `exact`, `near` or `translation`."""

    found: str
    suite: str
    other: str
    kind: str
    prompts: int


def leaks(runs: Runs) -> tuple[Leak, ...]:
    """Every reported suite that a run says, or an overlap check found, to have been used before; sorted.

    From the results' blocks: `tuned_on`, a list of `{"suite", "use", "sha256"}` (the content hash decides where it is
    given: another sample of a suite is another set); `overlap`, what `find_overlaps(used, reported)` found, as a list
    of rows or as `{"used": rows}`; and `chosen`, whose `split` is `report` where a coefficient was chosen on the very
    prompts that are reported.
    """
    found = {leak for document in runs.documents for leak in _leaks_of(document, runs)}
    return tuple(sorted(found, key=lambda leak: (leak.suite, leak.other, leak.use)))


def shared(document: Mapping[str, Any]) -> tuple[Shared, ...]:
    """The `overlap` block of a document, counted: a prompt counts once, whatever the number of its doubles.

    Under other names than `used` the block may hold what is shared among the reported suites, which is no leak.
    """
    prompts: dict[tuple[str, str, str, str], set[str]] = {}
    for found, rows in document.get("overlap", {}).items():
        for row in rows:
            prompts.setdefault((found, row["suite"], row["other_suite"], row["kind"]), set()).add(row["prompt_id"])
    return tuple(Shared(*key, len(ids)) for key, ids in prompts.items())


def tunings(runs: Runs) -> tuple[str, ...]:
    """What every run says its model was tuned on, whether or not it is reported here, in words."""
    found = {
        f"{entry['suite']} was used for {entry['use']}"
        for document in runs.documents
        for entry in document.get("tuned_on", ())
    }
    return tuple(sorted(found))


def _leaks_of(document: Mapping[str, Any], runs: Runs) -> Iterator[Leak]:
    reported = {suite for measured in runs.models for suite in measured.rates}
    whole = list(_tuned_on(document, runs, reported))
    yield from whole
    yield from _doubles(document, reported - {leak.suite for leak in whole})
    for choice in document.get("chosen", ()):
        if choice["split"] == REPORT_SPLIT:
            suites = sorted(document.get("suites", {}))
            yield from (Leak(suite, "choosing the coefficient") for suite in suites)


def _tuned_on(document: Mapping[str, Any], runs: Runs, reported: set[str]) -> Iterator[Leak]:
    by_hash = {runs.suites.get(suite, {}).get("sha256"): suite for suite in sorted(reported)}
    for entry in document.get("tuned_on", ()):
        given = entry.get("sha256")
        suite = entry["suite"] if given is None else by_hash.get(given)
        if suite in reported:
            yield Leak(suite, entry["use"])


def _doubles(document: Mapping[str, Any], reported: set[str]) -> Iterator[Leak]:
    """Prompts of `reported` suites that were found in a set that was used."""
    uses = {entry["suite"]: entry["use"] for entry in document.get("tuned_on", ())}
    prompts: dict[tuple[str, str], set[str]] = {}
    for row in document.get("overlap", {}).get(USED, ()):
        if row["suite"] in reported:
            prompts.setdefault((row["suite"], row["other_suite"]), set()).add(row["prompt_id"])
    for (suite, other), ids in prompts.items():
        yield Leak(suite, uses.get(other, "tuning"), other, len(ids))
