"""The tutorial runs as it stands, from top to bottom."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
from nbclient import NotebookClient

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.ipynb"


def test_the_tutorial_runs_and_shows_tables_and_plots(tmp_path: Path) -> None:
    notebook = nbformat.read(TUTORIAL, as_version=4)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pages = [
        output.data.get("text/html", "")
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "data" in output
    ]
    assert any("attack success" in page for page in pages)
    assert any("<iframe srcdoc=" in page for page in pages)
    assert (tmp_path / "tutorial" / "report.html").is_file()


def test_the_tutorial_is_committed_without_outputs() -> None:
    cells = json.loads(TUTORIAL.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
