"""A real restore of the organism that ships, and what its report says of it."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.fixtures_organisms import shipped
from tests.report.pages import Page, assert_alone

from alignmend.cli import main
from alignmend.evaluation.results import read_results, results_schema
from alignmend.organisms import Family
from alignmend.report.numbers import percent
from alignmend.report.runs import read_runs
from alignmend.report.runs_html import render_runs
from alignmend.report.search_view import front

__all__ = ["shipped"]
pytestmark = pytest.mark.slow
_EVERY = 4


@pytest.fixture(scope="module")
def out(shipped: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a restore by RESTA leaves."""
    place = tmp_path_factory.mktemp("restore")
    options: list[str] = []
    for name in ("harmful", "borderline", "task"):
        lines = shipped.suites[name].read_text(encoding="utf-8").splitlines()[::_EVERY]
        (place / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        options += ["--suite", str(place / f"{name}.jsonl")]
    for role in ("aligned", "unaligned"):
        options += [f"--{role}", str(shipped.members[role])]
    options += ["--judge", "organism", "--trials", "4", "--method", "resta", "--max-new-tokens", "32", "--yes"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = main(["restore", str(shipped.members["finetuned"]), *options, "--out", str(place / "out")])
    assert code == 0
    return place / "out"


@pytest.fixture(scope="module")
def document(out: Path) -> dict[str, Any]:
    return read_results(out / "results.json")


def test_the_document_keeps_to_the_schema(document: dict[str, Any]) -> None:
    jsonschema.validate(document, results_schema())


def test_the_page_shows_the_proof_in_pairs_and_the_search(out: Path, document: dict[str, Any]) -> None:
    page = assert_alone((out.with_name(f"{out.name}-report") / "report.html").read_text(encoding="utf-8"))
    for model in ("finetuned", "restored"):
        assert percent(document["models"][model]["harmful"]["attack_success_rate"]["value"]) in page.shown
    assert "Paired on the same prompts" in page.shown
    (paired,) = document["paired"].values()
    assert f"harmful attack success A → B {paired['n']} {paired['fixed']} " in page.shown
    assert "safety_arithmetic" not in page.shown  # was not asked for
    for one in front(document["search"]):
        assert one["label"] in page.shown
    assert f"Everything that was tried ({len(document['search']['candidates'])})" in page.collapsed


def test_the_report_can_be_made_again(out: Path, tmp_path: Path) -> None:
    assert render_runs(read_runs([out])) == (out.with_name(f"{out.name}-report") / "report.html").read_text(
        encoding="utf-8"
    )
    for name in ("page.html", "card.md"):
        assert main(["report", str(out), "--out", str(tmp_path / name)]) == 0
    assert Page((tmp_path / "page.html").read_text(encoding="utf-8")).shown
    assert "**The search.**" in (tmp_path / "card.md").read_text(encoding="utf-8")


def test_records_and_results_are_for_the_gate_and_for_comparisons(
    out: Path, document: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gate", str(out), "--max-asr", "0.999", "--json"]) in (0, 1)
    records = out.with_name(f"{out.name}-report") / "records"
    assert main(["compare", str(records / "finetuned"), str(records / "restored"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert main(["compare", str(records / "finetuned"), str(out), "--json"]) == 0  # of a restore the restored model
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == said
