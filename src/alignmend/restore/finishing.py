"""The last step: results, report and records go into the checkpoint's folder before it gets its name."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from alignmend.evaluation.results import write_results
from alignmend.restore.candidates import CALIBRATION
from alignmend.restore.places import JOURNAL, KEPT_JOURNAL, RESULTS, Places
from alignmend.restore.proof import Proof
from alignmend.restore.writing import RECIPE

RECORDS, REPORT = "records", "report.html"


def finish(document: Mapping[str, Any], places: Places, proof: Proof) -> None:
    """Put everything that proves the checkpoint beside it; what an interrupted attempt left is written again."""
    from alignmend.report.write import write_report

    staged = places.staged
    _keep_texts(places)
    shutil.rmtree(staged / RECORDS, ignore_errors=True)
    shutil.copytree(places.work / RECORDS, staged / RECORDS)
    shutil.copyfile(places.work / JOURNAL, staged / KEPT_JOURNAL)
    shutil.copyfile(places.work / RECIPE, staged / RECIPE)
    write_results(staged / RESULTS, document)
    write_report([staged], staged / REPORT, overwrite=True)


def _keep_texts(places: Places) -> None:
    """What the recipe takes moments over stands beside it."""
    kept, made = places.staged / CALIBRATION, places.private / CALIBRATION
    shutil.rmtree(kept, ignore_errors=True)
    if made.is_dir() and f"{CALIBRATION}/" in (places.work / RECIPE).read_text(encoding="utf-8"):
        shutil.copytree(made, kept)
