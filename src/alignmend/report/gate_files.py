"""A gate's checks for the programs of a pipeline: JUnit XML, and a table in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from alignmend.report.checks import Check
from alignmend.report.numbers import clean

_NAMES = {"rise": "rise of failures: ", "utility": "utility relative to the fine-tune: ", "rate": ""}


def name_of(check: Check) -> str:
    """What was limited."""
    return f"{_NAMES[check.limit.kind]}{check.limit.metric}"


def told(check: Check) -> str:
    """What was found, and what it had to be."""
    side = "at most" if check.limit.is_ceiling else "at least"
    end = f" (worse end of its 95 percent interval {check.worst:.3f})" if check.confident else ""
    return clean(f"{check.value:.3f}{end}; {side} {check.limit.value:g}; n {check.n}")


def junit(checks: Sequence[Check], error: str | None = None) -> bytes:
    """One test case for each check; `error`, where the gate could not be checked, is one more."""
    failed = sum(not one.passed for one in checks)
    counts = {"tests": str(len(checks) + (error is not None)), "failures": str(failed), "errors": str(int(bool(error)))}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": "alignmend gate", **counts})
    for one in checks:
        named = {"classname": clean(f"{one.model}.{one.suite}"), "name": clean(name_of(one))}
        case = ElementTree.SubElement(suite, "testcase", named)
        if one.passed:
            ElementTree.SubElement(case, "system-out").text = told(one)
        else:
            ElementTree.SubElement(case, "failure", {"message": told(one), "type": "limit"})
    if error is not None:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "gate", "name": "can be checked"})
        ElementTree.SubElement(case, "error", {"message": clean(error), "type": "error"})
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def step_summary(checks: Sequence[Check], error: str | None = None) -> str:
    """A heading and a table, as a summary of a step on GitHub shows them."""
    if error is not None:
        return f"### alignmend gate: could not be checked\n\n{_cell(error)}\n\n"
    failed = sum(not one.passed for one in checks)
    word = f"failed {failed} of {len(checks)} checks" if failed else f"passed {len(checks)} checks"
    rows = [
        f"| {'pass' if one.passed else '**FAIL**'} | {_cell(one.model)} | {_cell(one.suite)} | {_cell(name_of(one))} "
        f"| {_cell(told(one))} |"
        for one in checks
    ]
    head = ["| | model | suite | limited | found |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([f"### alignmend gate: {word}", "", *head, *rows, "", ""])


def _cell(text: str) -> str:
    """As text: names come from files."""
    text = clean(text).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("`", "\\`")
