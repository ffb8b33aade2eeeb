"""The last step: results, report and records go into the checkpoint's folder before it gets its name."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from alignmend.evaluation.results import write_results
from alignmend.restore.places import JOURNAL, KEPT_JOURNAL, RESULTS, Places
from alignmend.restore.proof import Proof
from alignmend.restore.writing import RECIPE

RECORDS, REPORT = "records", "report.html"


def finish(document: Mapping[str, Any], places: Places, proof: Proof) -> None:
    """Put everything that proves the checkpoint beside it; what an interrupted attempt left is written again."""
    from alignmend.report.write import write_report

    staged = places.staged
    shutil.rmtree(staged / RECORDS, ignore_errors=True)
    shutil.copytree(places.work / RECORDS, staged / RECORDS)
    shutil.copyfile(places.work / JOURNAL, staged / KEPT_JOURNAL)
    shutil.copyfile(places.work / RECIPE, staged / RECIPE)
    write_results(staged / RESULTS, document)
    write_report([staged], staged / REPORT, overwrite=True)
