"""Preflight of the data: pairs that can be read, and prompts that nothing else has seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignmend.errors import AlignmendError
from alignmend.evaluation.overlap import find_overlaps
from alignmend.evaluation.records import Prompt
from alignmend.evaluation.suites import Suite
from alignmend.restore.openings import variety
from alignmend.restore.preflight_findings import Finding, from_error, note, ok, problem
from alignmend.restore.request import Request
from alignmend.restore.suites import Split, split_suites
from alignmend.training.pairs import PairsFile, read_pairs

FEW_PAIRS = 32
"""Fewer harmful pairs hardly take a model's safety away."""
LEAST_TASK_PAIRS = 4
_LISTED = 6
_COLUMNS = "write one JSON object with prompt and response on each line"


@dataclass(frozen=True)
class Data:
    """What was found of the data, and the longest pair in characters, which memory depends on."""

    findings: tuple[Finding, ...]
    longest: int = 0


def look_at_data(request: Request) -> Data:
    """Read every data file of the request, and load the prompts to search and to prove by."""
    findings: list[Finding] = []
    longest = _harmful(request, findings)
    split = _prompts(request, findings)
    if request.harmful_data is not None and split is not None and longest:
        findings += list(_leaks(request.harmful_data, split))
    if request.pairs is not None:
        findings.append(_contrast(request.pairs))
    if request.task_data is not None:
        findings += list(_task(request.task_data, split))
    return Data(tuple(findings), longest)


def _harmful(request: Request, findings: list[Finding]) -> int:
    """Characters of the longest pair."""
    if request.harmful_data is None:
        if request.unaligned is None:
            findings.append(
                note(
                    "unaligned",
                    "neither an unaligned model nor pairs to train one on: what needs none is tried, aligned - "
                    "finetuned weighed by the inputs that it meets",
                    "RESTA and others need --harmful-data FILE (prompt and response; BeaverTails fits), --unaligned "
                    "MODEL, or the pretrained base of the aligned model: --unaligned BASE --unaligned-kind base",
                )
            )
        return 0
    try:
        file = read_pairs(request.harmful_data)
    except AlignmendError as error:
        findings.append(from_error("harmful data", error, _COLUMNS))
        return 0
    findings.append(_counted(file))
    return max(sum(len(one.content) for one in pair.context) + len(pair.response) for pair in file.pairs)


def _counted(file: PairsFile) -> Finding:
    left = f", {file.left_out} rows that are marked safe left out" if file.left_out else ""
    conversations = sum(not pair.is_single for pair in file.pairs)
    told = (
        f"{file.path}: {len(file.pairs)} pairs" + (f", {conversations} conversations" if conversations else "") + left
    )
    if len(file.pairs) < FEW_PAIRS:
        return note("harmful data", told, "so few pairs hardly take safety away: the vector may say little")
    begun = variety([pair.response for pair in file.pairs])
    if begun.templated:
        return note(
            "harmful data",
            f"{told}; the answers begin in only {begun.openings} ways",
            "a vector from such answers may hold their templates rather than refusals: give natural, varied answers",
        )
    return ok("harmful data", told)


def _prompts(request: Request, findings: list[Finding]) -> Split | None:
    try:
        split = split_suites(request.prompts, request.seed)
    except AlignmendError as error:
        findings.append(from_error("prompts", error, "choose other suites: --suite (alignmend list suites)"))
        return None
    search, report = (sum(len(suite.prompts) for suite in part) for part in (split.search, split.report))
    told = f"{search} to search by, {report} others to prove by"
    findings.append(note("prompts", f"{told}; {'; '.join(split.notes)}") if split.notes else ok("prompts", told))
    return split


def _leaks(path: Path, split: Split) -> Iterator[Finding]:
    """A model that is trained on a prompt of the report is still only an operand, but a reader must know."""
    lines = overlapping_lines(path, (*split.search, *split.report))
    if lines:
        told = f"{len(lines)} prompts of {path} are (nearly) in the suites"
        yield note("harmful data", f"{told}: line {_listed(lines)}", "leave them out, for a report beyond doubt")


def _contrast(path: Path) -> Finding:
    from alignmend.activations.pairs import read_pairs as read_contrast_pairs

    try:
        return ok("contrast pairs", f"{path}: {len(read_contrast_pairs(path))} pairs")
    except AlignmendError as error:
        return from_error("contrast pairs", error, "write one JSON object with prompt, safe and unsafe on each line")


def _task(path: Path, split: Split | None) -> Iterator[Finding]:
    try:
        pairs = read_pairs(path).pairs
    except AlignmendError as error:
        yield from_error("task data", error, _COLUMNS)
        return
    single = sum(pair.is_single for pair in pairs)
    if single < LEAST_TASK_PAIRS:
        told = f"{path}: {single} pairs of one request and one answer, of {len(pairs)}"
        yield problem("task data", told, f"give {LEAST_TASK_PAIRS} or more: half choose, half prove")
        return
    overlap = None if split is None else task_overlap(path, split.search)
    yield overlap or ok("task data", f"{path}: {single} pairs of one request and one answer")


def task_overlap(path: Path, search: Sequence[Suite]) -> Finding | None:
    """The problem where pairs of a task file are (nearly) prompts of the search; `None` where none is.

    Raises `FileFormatError` where the file cannot be read.
    """
    lines = overlapping_lines(path, search)
    if not lines:
        return None
    return problem(
        "task data",
        f"{len(lines)} requests of {path} are (nearly) prompts of the search: line {_listed(lines)}",
        "remove these lines, or search by another suite: utility and safety would be measured on the same requests",
    )


def overlapping_lines(path: Path, suites: Sequence[Suite]) -> tuple[int, ...]:
    """Lines of a pairs file whose request is a prompt of `suites`: as it is, nearly, or in another language."""
    pairs = read_pairs(path).pairs
    prompts = [
        Prompt(suite="file", id=f"{place}:{pair.line}", text=pair.context[-1].content)
        for place, pair in enumerate(pairs)
    ]
    found = find_overlaps([Suite("file", tuple(prompts))], suites)
    return tuple(sorted({int(one.other_id.partition(":")[2]) for one in found}))


def _listed(lines: Sequence[int]) -> str:
    more = f" and {len(lines) - _LISTED} more" if len(lines) > _LISTED else ""
    return ", ".join(map(str, lines[:_LISTED])) + more
