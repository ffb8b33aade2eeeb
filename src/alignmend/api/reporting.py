"""`report`: one page of one or more runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alignmend.api.gating import Runs
from alignmend.api.judges import names_of
from alignmend.api.shown import Shown

if TYPE_CHECKING:
    from alignmend.report.write import Written


@dataclass(frozen=True, repr=False)
class ReportResult(Shown):
    """A report that was written; a notebook shows the page itself."""

    written: Written

    @property
    def out(self) -> Path:
        """The file."""
        return self.written.path

    @property
    def leaks(self) -> tuple[str, ...]:
        """Why it is no fair test, where it is none."""
        return tuple(map(str, self.written.leaks))

    def _facts(self) -> Iterable[str]:
        yield str(self.out)
        yield ", ".join(self.written.models)
        yield f"{self.written.bytes:,} bytes"

    def _parts(self) -> Iterable[Any]:
        yield from (f"not a fair test: {leak}" for leak in self.leaks)

    def _page(self) -> Path | None:
        return self.out if self.out.suffix.lower() in (".html", ".htm") else None


def report(
    runs: Runs,
    out: str | Path,
    *,
    format: Literal["html", "markdown"] | None = None,
    show_text: bool = False,
    allow_leak: bool = False,
    overwrite: bool = False,
) -> ReportResult:
    """Put runs (folders that `evaluate` or `restore` wrote, or results documents) side by side on one page.

    The first run is what the others are compared with. Without a `format` the ending of `out` says it. Answers that may
    be harmful stay out of the file unless `show_text`.
    """
    from alignmend.report.write import write_report

    return ReportResult(
        write_report(
            [Path(one) for one in names_of(runs)],
            Path(out),
            form=format,
            show_text=show_text,
            allow_leak=allow_leak,
            overwrite=overwrite,
        )
    )
