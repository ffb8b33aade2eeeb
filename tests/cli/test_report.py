"""`alignmend report`, in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.command import alignmend, assert_one_message
from tests.report.conftest import demo_document
from tests.report.run_folders import AFTER, BEFORE, write_run


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return write_run(tmp_path / "a", "finetuned", BEFORE), write_run(tmp_path / "b", "restored", AFTER)


def test_two_runs_become_a_page_and_the_same_page_again(folders: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = tmp_path / "report.html", tmp_path / "again.html"
    done = alignmend("report", *folders, "--out", first, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["models"] == ["finetuned", "restored"]
    assert said["bytes"] == first.stat().st_size
    assert alignmend("report", *folders, "--out", second).returncode == 0
    assert first.read_bytes() == second.read_bytes()
    assert b"SECRET" not in first.read_bytes()
    assert alignmend("report", *folders, "--out", first, "--show-text").returncode == 0, "a report may be replaced"
    assert b"SECRET" in first.read_bytes()


def test_the_ending_says_the_format_and_the_option_says_it_louder(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert alignmend("report", *folders, "--out", tmp_path / "card.md").returncode == 0
    assert (tmp_path / "card.md").read_text().startswith("---\nmodel-index:")
    done = alignmend("report", *folders, "--out", tmp_path / "card", "--format", "markdown")
    assert done.returncode == 0
    assert (tmp_path / "card").read_bytes() == (tmp_path / "card.md").read_bytes()
    done = alignmend("report", *folders, "--out", tmp_path / "card.pdf")
    assert done.returncode == 2
    assert_one_message(done.stderr, "card.pdf", "name it .html or .md")


def test_a_file_that_is_no_report_is_not_replaced(folders: tuple[Path, Path], tmp_path: Path) -> None:
    notes = tmp_path / "README.md"
    notes.write_text("Made with alignmend report.")
    done = alignmend("report", *folders, "--out", notes)
    assert done.returncode == 2
    assert_one_message(done.stderr, "README.md", "is no report", "--overwrite")
    assert notes.read_text() == "Made with alignmend report."
    assert alignmend("report", *folders, "--out", notes, "--overwrite").returncode == 0
    assert alignmend("report", *folders, "--out", notes).returncode == 0
    done = alignmend("report", *folders, "--out", tmp_path, "--format", "html")
    assert_one_message(done.stderr, "is a folder")


def test_prompts_that_were_tuned_on_are_no_report_without_saying_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", "m", BEFORE, tuned_on=[{"suite": "xstest", "use": "choosing the strength"}])
    done = alignmend("report", run, "--out", tmp_path / "report.html")
    assert done.returncode == 2
    assert_one_message(done.stderr, "xstest was used for choosing the strength", "--allow-leak")
    assert not (tmp_path / "report.html").exists()
    done = alignmend("report", run, "--out", tmp_path / "report.html", "--allow-leak")
    assert done.returncode == 0
    assert "not a fair test" in done.stdout
    assert "Not a fair test: xstest" in (tmp_path / "report.html").read_text()


def test_what_is_no_run_is_one_message(tmp_path: Path) -> None:
    done = alignmend("report", tmp_path / "nothing", "--out", tmp_path / "report.html")
    assert done.returncode == 2
    assert_one_message(done.stderr, "nothing", "no such file")
    (tmp_path / "folder").mkdir()
    done = alignmend("report", tmp_path / "folder", "--out", tmp_path / "report.html")
    assert_one_message(done.stderr, "no results.json here")


def test_a_results_document_is_a_page_too(tmp_path: Path) -> None:
    """Also one of an earlier version, which held the points of a sweep."""
    results, document = tmp_path / "results.json", demo_document()
    results.write_text(json.dumps(document | {"sweep": document["control"]}))
    assert alignmend("report", results, "--out", tmp_path / "report.html").returncode == 0
    assert "Suites side by side" in (tmp_path / "report.html").read_text()
