"""The last step: what proves the checkpoint goes beside it before it gets its name, and its card tells of it.

Rates go into the output, which may be uploaded; answers, report and search into the report folder, which may not.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from alignmend.evaluation.results import write_results
from alignmend.io.card import CARD_NAME, model_card, read_licence
from alignmend.io.folder import MAX_CONFIG_BYTES
from alignmend.io.manifest import read_manifest
from alignmend.io.strict_json import read_object
from alignmend.report.card import measured
from alignmend.report.runs import RECORDS
from alignmend.restore.candidates import CALIBRATION
from alignmend.restore.places import JOURNAL, KEPT_JOURNAL, RESULTS, Places
from alignmend.restore.writing import RECIPE, public_text

REPORT = "report.html"
_CONFIG = "config.json"


def finish(document: Mapping[str, Any], places: Places) -> None:
    """Put everything that proves the checkpoint in its place; what an interrupted attempt left is written again."""
    from alignmend.report.write import write_report

    staged, report = places.staged, places.staged_report
    report.mkdir(exist_ok=True)
    shutil.rmtree(report / RECORDS, ignore_errors=True)
    shutil.copytree(places.work / RECORDS, report / RECORDS)
    shutil.copyfile(places.work / JOURNAL, report / KEPT_JOURNAL)
    shutil.copyfile(places.work / RECIPE, report / RECIPE)
    recipe = (places.work / RECIPE).read_text(encoding="utf-8")
    _keep_texts(recipe, places)
    (staged / RECIPE).write_text(public_text(recipe, places.out), encoding="utf-8")
    for place in (staged, report):
        write_results(place / RESULTS, document)
    (staged / CARD_NAME).write_text(_card(document, places), encoding="utf-8")
    write_report([report], report / REPORT, overwrite=True)


def _card(document: Mapping[str, Any], places: Places) -> str:
    """The model card with the rates of the proof; licence and pipeline are those that it has already."""
    staged = places.staged
    has_config = (staged / _CONFIG).is_file()
    config = read_object(staged / _CONFIG, limit=MAX_CONFIG_BYTES, advice="") if has_config else {}
    return model_card(
        read_manifest(staged),
        name=places.out.name,
        licence=read_licence(staged),
        config=config,
        measured=measured(document, places.out.name),
    )


def _keep_texts(recipe: str, places: Places) -> None:
    """What the recipe takes moments over stands beside it, in the report folder."""
    kept, made = places.staged_report / CALIBRATION, places.private / CALIBRATION
    shutil.rmtree(kept, ignore_errors=True)
    if made.is_dir() and f"{CALIBRATION}/" in recipe:
        shutil.copytree(made, kept)
