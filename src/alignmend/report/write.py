"""From runs on disk to a report on disk: which page, whether it may be made, whether the file may be replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alignmend.errors import OutputError, RecipeError
from alignmend.evaluation.metrics import ALL_SUITES
from alignmend.io.atomic import replace_bytes
from alignmend.report import runs_html, runs_markdown
from alignmend.report.leaks import Leak, leaks
from alignmend.report.runs import Runs, read_runs

Form = Literal["html", "markdown"]
_FORMS: dict[str, Form] = {".html": "html", ".htm": "html", ".md": "markdown", ".markdown": "markdown"}
_MARKDOWN_MARK = "<!-- written by alignmend report -->"
_MARKS = (_MARKDOWN_MARK.encode(), b'<meta name="generator" content="alignmend report">')
"""One of these is in every report and in no other file."""


@dataclass(frozen=True)
class Written:
    """A report that was written."""

    path: Path
    bytes: int
    models: tuple[str, ...]
    suites: tuple[str, ...]
    leaks: tuple[Leak, ...]


def write_report(
    places: Sequence[Path],
    out: Path,
    *,
    form: Form | None = None,
    show_text: bool = False,
    allow_leak: bool = False,
    overwrite: bool = False,
) -> Written:
    """Write the report of the runs in `places` (see `read_runs`) to `out`, whole or not at all.

    `RecipeError` where the form cannot be told from the name, or where reported prompts were used for tuning and
    `allow_leak` is not given. `OutputError` where `out` holds something else than a report and
    `overwrite` is not given.
    """
    chosen = form or _form_of(out)
    runs = read_runs(places)
    leaked = leaks(runs)
    if leaked and not allow_leak:
        raise RecipeError(
            f"not a fair test: {'; '.join(map(str, leaked))};",
            advice="report prompts that were not used, or give --allow-leak, which says so on the page",
        )
    data = _rendered(runs, chosen, show_text=show_text).encode("utf-8")
    _check_replaceable(out, overwrite=overwrite)
    replace_bytes(out, data)
    suites = dict.fromkeys(suite for one in runs.models for suite in one.rates if suite != ALL_SUITES)
    return Written(out, len(data), tuple(one.label for one in runs.models), tuple(suites), leaked)


def _form_of(out: Path) -> Form:
    if out.suffix.lower() not in _FORMS:
        raise RecipeError(
            f"{out}: its ending does not say the format;", advice="name it .html or .md, or give --format"
        )
    return _FORMS[out.suffix.lower()]


def _rendered(runs: Runs, form: Form, *, show_text: bool) -> str:
    if form == "html":
        return runs_html.render_runs(runs, show_text=show_text)
    # The mark comes last, as a model card's front matter must come first.
    return f"{runs_markdown.render_runs(runs)}\n{_MARKDOWN_MARK}\n"


def _check_replaceable(out: Path, *, overwrite: bool) -> None:
    if out.is_dir():
        raise OutputError(f"{out} is a folder;", advice="name a file")
    if not overwrite and out.exists() and not any(mark in _content(out) for mark in _MARKS):
        raise OutputError(f"{out} exists and is no report;", advice="choose another name or give --overwrite")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OutputError(
            f"{path} cannot be read: {error.strerror};", advice="choose another name or give --overwrite"
        ) from error
